"""Files as a stream of bytes: entries, many in a block, compressed where that pays.  Pure.

    size u32 | packing u8 | block        a block is a msgpack list of entries; an entry is a list: its kind, then ...

    WHOLE   path, mode, data, hash       a small file
    OPEN    path, mode, size, expected   a larger one, with so many bytes of data as it seems: then DATA, then SHUT
    DATA    offset, data                 ascending; what is between is a hole
    SHUT    hash, note                   the file is complete; an empty hash: it is given up, and the note says why
    FOLDER  path, mode
    LINK    path, target
    LEFT    path, reason, bytes          what is not brought
    TEXT    data                         of a log that is followed
    SKIPPED bytes                        ... and what was not sent of it
    END                                  that was all

Paths and targets are bytes, as they are on the machine.  `fanout.root.parcels` opens what is packed here.
"""

from __future__ import annotations

import zlib
from _blake2 import blake2b
from struct import Struct

from . import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WHOLE, OPEN, DATA, SHUT, FOLDER, LINK, LEFT, TEXT, SKIPPED, END = range(1, 11)
RAW, ZLIB = 0, 1
HEAD = Struct(">IB")
PIECE = 32 << 10  # bytes of data in one entry
BLOCK = 64 << 10  # bytes of entries that make a block full
BLOCK_MOST = 128 << 10  # bytes of a block, unpacked: the last entry may fill it over
PAYS = 0.9  # of its size, at most, that a block must shrink to
PAUSE = 15  # blocks that go as they are after one that did not shrink


class Sum:
    """The hash of a file: of its size, and of each piece with its offset.  Holes cost nothing."""

    def __init__(self, size: int) -> None:
        self._hash = blake2b(size.to_bytes(8, "big"), digest_size=16)

    def add(self, offset: int, data: bytes) -> None:
        self._hash.update(offset.to_bytes(8, "big") + data)

    def digest(self) -> bytes:
        return self._hash.digest()


def whole_sum(data: bytes) -> bytes:
    found = Sum(len(data))
    found.add(0, data)
    return found.digest()


class Packer:
    def __init__(self) -> None:
        self._pause = 0

    def pack(self, entries: list[list[Any]]) -> bytes:
        block = codec.pack(entries)
        if self._pause:
            self._pause -= 1
        else:
            small = zlib.compress(block, 1)
            if len(small) <= PAYS * len(block):
                return HEAD.pack(len(small), ZLIB) + small
            self._pause = PAUSE
        return HEAD.pack(len(block), RAW) + block
