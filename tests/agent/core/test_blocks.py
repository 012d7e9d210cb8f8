"""A block is known to be right or damaged wherever it comes from, and the whole by its blocks."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.agent.core import blocks, frames

CONTENT = st.one_of(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=9).map(lambda b: b * 5000))


@given(CONTENT, st.booleans(), st.integers(0, 1 << 40))
def test_a_block_comes_out_as_it_went_in(data: bytes, compress: bool, at: int) -> None:
    block = blocks.encode(at, data, blocks.check(at, data), compress)
    assert blocks.decode(block) == (at, len(data), data, blocks.check(at, data))
    assert blocks.size_of(block) == len(data)
    assert len(block) <= blocks.SLOT <= frames.MAX_SIZE[frames.BULK]


@given(CONTENT, st.booleans(), st.data())
def test_damage_anywhere_in_a_block_is_noticed(data: bytes, compress: bool, draw: st.DataObject) -> None:
    for block in (blocks.encode(7, data, blocks.check(7, data), compress), blocks.zeros(7, blocks.BLOCK)):
        at = draw.draw(st.integers(0, len(block) - 1))
        other = draw.draw(st.integers(1, 255))
        damaged = block[:at] + bytes([block[at] ^ other]) + block[at + 1 :]
        with contextlib.suppress(ValueError):
            assert blocks.decode(damaged)[:3] == blocks.decode(block)[:3]  # zlib has bits that mean nothing
        with pytest.raises(ValueError):
            blocks.decode(block[: draw.draw(st.integers(0, len(block) - 1))])


def test_a_block_that_unpacks_to_too_much_is_refused() -> None:
    import zlib

    huge = zlib.compress(bytes(4 << 20), 9)
    with pytest.raises(ValueError):
        blocks.decode(blocks.HEAD.pack(0, blocks.BLOCK, blocks.PACKED, len(huge), bytes(16)) + huge)


def test_the_digest_depends_on_content_place_and_size_and_on_nothing_else() -> None:
    def digest(*parts: tuple[int, bytes], size: int = 100) -> bytes:
        one = blocks.Digest()
        for at, data in parts:
            one.add(blocks.check(at, data))
        return one.result(size)

    whole = digest((0, b"a"), (5, b"b"))
    assert whole == digest((0, b"a"), (5, b"b"))
    assert len({whole, digest((0, b"a"), (6, b"b")), digest((0, b"a")), digest((0, b"a"), (5, b"b"), size=99)}) == 4
