"""Sets of machines as bitmaps: a Python integer whose bit `i` stands for machine `i`.

Union, intersection and difference are `|`, `&` and `& ~`, at the speed of C for any fleet.
On the wire a set is its base byte (32 bits, big-endian) and the bytes from there on, both ends trimmed,
so one machine costs five bytes whatever its id.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ID = 1 << 24
"""Ids are below this: a hostile set cannot make a node allocate more than 2 MiB."""


def single(machine: int) -> int:
    return 1 << machine


def of(machines: Iterable[int]) -> int:
    """The set of the given ids."""
    bits = 0
    for machine in machines:
        bits |= 1 << machine
    return bits


def members(bits: int) -> list[int]:
    """The ids in a set, ascending.  Time grows with the set's bytes and members, not their square."""
    data = bits.to_bytes((bits.bit_length() + 7) >> 3, "little")
    return [(i << 3) + b for i, byte in enumerate(data) if byte for b in range(8) if byte >> b & 1]


def count(bits: int) -> int:
    return bin(bits).count("1")


def first(bits: int) -> int:
    """The lowest id in a set that is not empty."""
    return (bits & -bits).bit_length() - 1


def pack(bits: int) -> bytes:
    if not bits:
        return b""
    base = first(bits) >> 3
    bits >>= base << 3
    return base.to_bytes(4, "big") + bits.to_bytes((bits.bit_length() + 7) >> 3, "little")


def unpack(data: bytes) -> int:
    """The inverse of `pack`; ValueError for what `pack` cannot have made."""
    if not data:
        return 0
    if len(data) < 5:
        raise ValueError("a machine set of %d bytes" % len(data))
    base = int.from_bytes(data[:4], "big")
    if (base + len(data) - 4) << 3 > MAX_ID:
        raise ValueError("a machine set beyond id %d" % MAX_ID)
    return int.from_bytes(data[4:], "little") << (base << 3)
