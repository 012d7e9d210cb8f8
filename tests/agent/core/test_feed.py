"""Files are passed on whole, in order, at each child's own pace, within its window."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core.feed import PIECE, Feed


@settings(deadline=None)
@given(st.integers(0, 1 << 30))
def test_every_child_gets_every_byte_once_and_never_more_than_it_allowed(seed) -> None:
    random = Random(seed)
    size = random.randrange(1, 10 * PIECE)
    feed = Feed(size)
    got = dict.fromkeys(range(3), 0)
    allowed = dict.fromkeys(got, 0)
    for child in got:
        feed.want(child, 0, 0)
    while any(have < size for have in got.values()):
        child = random.randrange(3)
        feed.have = min(size, feed.have + random.randrange(PIECE))
        if random.random() < 0.5:
            allowed[child] = min(size, got[child] + random.randrange(1, 4 * PIECE))
            feed.more(child, allowed[child])
        piece = feed.next(child)
        if piece is not None:
            offset, length = piece
            assert offset == got[child]
            assert 0 < length <= PIECE
            got[child] += length
            assert got[child] <= min(feed.have, allowed[child])


def test_a_child_with_a_new_link_goes_on_from_where_it_stands() -> None:
    feed = Feed(3 * PIECE, 3 * PIECE)
    feed.want(7, 0, 3 * PIECE)
    assert feed.next(7) == (0, PIECE)
    assert feed.next(7) == (PIECE, PIECE)
    feed.want(7, 10, 3 * PIECE)
    assert feed.next(7) == (10, PIECE)


@pytest.mark.parametrize("offset, allowed", [(-1, 5), (6, 5), (0, 101)])
def test_what_cannot_be_is_refused(offset, allowed) -> None:
    with pytest.raises(ValueError, match="wants"):
        Feed(100).want(1, offset, allowed)
