"""Opens what machines pack (`fanout.agent.core.parcels`).  Pure, and believes nothing: a stream that is not exactly
what it must be is a ProtocolError, before memory is taken for it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from fanout.agent.core import codec, parcels
from fanout.agent.core.codec import ProtocolError

_SHAPES: dict[int, tuple[type, ...]] = {
    parcels.WHOLE: (bytes, int, bytes, bytes),
    parcels.OPEN: (bytes, int, int, int),
    parcels.DATA: (int, bytes),
    parcels.SHUT: (bytes, str),
    parcels.FOLDER: (bytes, int),
    parcels.LINK: (bytes, bytes),
    parcels.LEFT: (bytes, str, int),
    parcels.TEXT: (bytes,),
    parcels.SKIPPED: (int,),
    parcels.END: (),
}


class Opener:
    """One stream: bytes in, in any pieces; entries out, each in the shape of its kind."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """ProtocolError ends the stream for good."""
        buffer, head = self._buffer, parcels.HEAD
        buffer += data
        while len(buffer) >= head.size:
            size, packing = head.unpack_from(buffer)
            if size > parcels.BLOCK_MOST:
                raise ProtocolError(f"a block of {size} bytes")
            if len(buffer) < head.size + size:
                return
            block = bytes(buffer[head.size : head.size + size])
            del buffer[: head.size + size]
            yield from _entries(_unpacked(block, packing))


def _unpacked(block: bytes, packing: int) -> bytes:
    if packing == parcels.RAW:
        return block
    if packing != parcels.ZLIB:
        raise ProtocolError(f"packing {packing}")
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(block, parcels.BLOCK_MOST + 1)
    except zlib.error as error:
        raise ProtocolError(f"a block that does not unpack: {error}") from None
    if len(found) > parcels.BLOCK_MOST or not unpack.eof or unpack.unused_data:
        raise ProtocolError("a block that unpacks to too much, or to a part")
    return found


def _entries(block: bytes) -> Iterator[tuple[Any, ...]]:
    entries = codec.unpack(block)
    if not isinstance(entries, list):
        raise ProtocolError("a block that is no list")
    for entry in entries:
        if not isinstance(entry, list) or not entry or not isinstance(entry[0], int):
            raise ProtocolError("an entry that is none")
        shape = _SHAPES.get(entry[0])
        if shape is None or len(entry) != len(shape) + 1:
            raise ProtocolError("an entry of no known kind")
        for value, kind in zip(entry[1:], shape, strict=True):
            if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 1 << 63):
                raise ProtocolError("an entry of the wrong shape")
        yield tuple(entry)
