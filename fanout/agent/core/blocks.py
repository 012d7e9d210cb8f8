"""What is shipped, as a stream of blocks: how one stands on the wire and on a relay's disk.  Pure.

The stream is one entry after another, a single file one entry without a name:

    kind u8 | mode u16 | size u64 | name size u16 | link size u16 | name | link | . | content

The full stop keeps blocks of zeros inside of contents.  It is cut into blocks of `BLOCK` bytes, the last one shorter:

    offset u64 | size u64 | method u8 | packed size u32 | check 16 bytes | packed

`offset` and `size` are those in the stream.  A block of zeros, of any number of whole BLOCKs, has nothing packed.
The check covers offset and content, so a block is known to be right wherever it comes from; the digest of the
whole is that of the checks in order, and does not depend on what was compressed.
"""

from __future__ import annotations

import zlib
from struct import Struct
from struct import error as struct_error

try:
    from _hashlib import openssl_sha256 as sha256  # what hashlib gives, without the start of all it has
except ImportError:
    from hashlib import sha256

BLOCK = 60 << 10  # bytes; with its head less than a frame of bulk may have, and a multiple of a page
ZEROS = bytes(BLOCK)
ZEROS_MOST = 4096 * BLOCK
HEAD = Struct(">QQBI16s")
ENTRY = Struct(">BHQHH")
SLOT = HEAD.size + BLOCK
"""Bytes that a block has on disk at most, so that its place follows from its offset."""
PLAIN, PACKED, ZERO = 0, 1, 2
FILE, FOLDER, LINK = 0, 1, 2
"""Kinds of entries."""


def check(offset: int, data: bytes) -> bytes:
    digest = sha256(offset.to_bytes(8, "big"))
    digest.update(data)
    return digest.digest()[:16]


def encode(offset: int, data: bytes, known: bytes, compress: bool) -> bytes:
    """A block; `known` is its check."""
    if compress:
        packed = zlib.compress(data, 1)
        if len(packed) < len(data):
            return HEAD.pack(offset, len(data), PACKED, len(packed), known) + packed
    return HEAD.pack(offset, len(data), PLAIN, len(data), known) + data


def zeros(offset: int, size: int) -> bytes:
    return HEAD.pack(offset, size, ZERO, 0, check(offset, b"%d" % size))


def decode(block: bytes) -> tuple[int, int, bytes | None, bytes]:
    """(offset, size, content or None for zeros, check).  ValueError: it is damaged."""
    try:
        offset, size, method, packed_size, known = HEAD.unpack_from(block)
        if len(block) != HEAD.size + packed_size or (method != ZERO and not 0 < size <= BLOCK):
            raise ValueError
        if method == ZERO:
            if not 0 < size <= ZEROS_MOST or known != check(offset, b"%d" % size):
                raise ValueError
            return offset, size, None, known
        data = block[HEAD.size :]
        if method == PACKED:
            data = zlib.decompressobj().decompress(data, BLOCK)
        if len(data) != size or check(offset, data) != known:
            raise ValueError
    except (ValueError, zlib.error, struct_error):
        raise ValueError("a damaged block") from None
    return offset, size, data, known


def place(offset: int) -> int:
    """Where a block stands on disk."""
    return offset // BLOCK * SLOT


def whole(stored: bytes, offset: int) -> bytes:
    """The block at the beginning of what was read from the place of `offset`.  ValueError: there is none."""
    if len(stored) >= HEAD.size:
        known, size, _, packed_size, _ = HEAD.unpack_from(stored)
        if known == offset and size:
            return stored[: HEAD.size + packed_size]
    raise ValueError("no block begins at %d" % offset)


def size_of(block: bytes) -> int:
    """How much of the stream it is."""
    size: int = HEAD.unpack_from(block)[1]
    return size


class Digest:
    """Of a whole stream, block by block."""

    def __init__(self) -> None:
        self._hash = sha256()

    def add(self, known: bytes) -> None:
        """The check of the next block that is not zeros."""
        self._hash.update(known)

    def result(self, size: int) -> bytes:
        digest = self._hash.copy()
        digest.update(size.to_bytes(8, "big"))
        return digest.digest()


def entry(kind: int, name: bytes, mode: int, size: int, link: bytes) -> bytes:
    """What stands before the content.  Names are as the file system has them."""
    return ENTRY.pack(kind, mode, size, len(name), len(link)) + name + link + b"."
