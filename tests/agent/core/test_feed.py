"""Every child gets the whole stream at its own pace, from a node that keeps all of it or next to nothing."""

from collections import deque
from random import Random

import pytest

from fanout.agent.core.feed import LEAST, MOST, PATIENCE, Feed

STEP = 64 << 10


def test_a_child_is_sent_what_is_here_and_what_it_allowed() -> None:
    feed = Feed(10 * STEP, True)
    assert feed.demand(0.0) == (0, LEAST, True)
    assert feed.demand(0.0) is None
    feed.want(7, 0, 2 * STEP, True, 0.0)
    assert feed.next(7) is None
    feed.came(3 * STEP, 0.0)
    for at in (0, STEP):
        assert feed.next(7) == at
        feed.sent(7, STEP, 0.0)
    assert feed.next(7) is None, "it allowed no more"
    feed.want(7, 3 * STEP, 10 * STEP, False, 0.0)
    assert feed.next(7) == 2 * STEP, "what it was sent counts, not what it says it has"
    feed.want(7, 0, 10 * STEP, True, 0.0)
    assert feed.next(7) == 0


@pytest.mark.parametrize("offset, allowed", [(-1, 0), (0, 101), (5, 4)])
def test_a_child_that_wants_what_there_is_not_is_an_error(offset: int, allowed: int) -> None:
    with pytest.raises(ValueError, match="wants"):
        Feed(100, True, 100).want(1, offset, allowed, True, 0.0)


def test_a_new_parent_is_asked_from_where_it_stands() -> None:
    feed = Feed(100 * STEP, False)
    assert feed.demand(0.0) == (0, LEAST, True)
    feed.came(STEP, 0.0)
    assert feed.demand(0.0) == (STEP, STEP + LEAST, False)
    assert feed.demand(0.0) is None
    feed.renew()
    assert feed.demand(0.0) == (STEP, STEP + LEAST, True)


def test_a_node_without_room_waits_for_a_child_only_so_long() -> None:
    feed = Feed(100 * STEP, False)
    for child in (1, 2):
        feed.want(child, 0, 100 * STEP, True, 0.0)
    assert feed.demand(0.0) == (0, LEAST, True)
    for _ in range(2):
        feed.came(STEP, 0.1)
    while feed.next(1) is not None:
        feed.sent(1, STEP, 0.1)
    due = feed.due()
    assert due is not None and PATIENCE <= due < 2 * PATIENCE
    assert feed.demand(0.3) is None, "the other has taken nothing yet"
    assert feed.start == 0
    wanted = feed.demand(due)
    assert wanted is not None and wanted[0] == feed.start == 2 * STEP


@pytest.mark.parametrize("rate, trip", [(100e6, 0.002), (2e6, 0.002), (20e6, 0.1)])
def test_the_window_follows_what_the_link_carries(rate: float, trip: float) -> None:
    """A fast link, a slow one, a long one: it is used, and urgent messages wait for little on any of them."""
    feed, now, free, sent = Feed(1 << 40, True), 0.0, 0.0, 0
    arrivals: deque[float] = deque()
    wanted = feed.demand(now)
    for block in range(1500):
        if wanted is not None:
            while sent < wanted[1]:
                free = max(free, now + trip / 2) + STEP / rate
                arrivals.append(free + trip / 2)
                sent += STEP
        if block == 500:
            began = now
        now = arrivals.popleft()
        feed.came(STEP, now)
        wanted = feed.demand(now)
    assert 1000 * STEP / (now - began) > 0.8 * rate
    assert free + trip / 2 - now < 2 * trip + 0.05 + 2 * LEAST / rate


@pytest.mark.parametrize("seed", range(60))
def test_all_children_get_all_of_it_in_order_and_little_is_kept(seed: int) -> None:
    """The parent, the children and their credits move at random; some children are asleep for long."""
    random = Random(seed)
    size, roomy = random.randint(1, 60) * STEP, random.random() < 0.4
    feed, now = Feed(size, roomy), 0.0
    allowed = asked = 0
    got = dict.fromkeys(range(random.randint(0, 4)), 0)
    asleep = {child: random.choice([0.0, 0.0, 3.0, 20.0]) for child in got}
    late = {child: random.choice([0.0, 0.0, 1.0, 10.0]) for child in got}
    here = 0
    while here < size or any(at < size for at in got.values()):
        now += random.uniform(0.0, 0.1)
        assert now < 600.0, (got, feed.start, feed.end)
        for child, at in got.items():
            if now >= late[child] and child not in feed.children():
                feed.want(child, at, min(size, at + 4 * STEP), True, now)
        wanted = feed.demand(now)
        if wanted is not None:
            offset, allowed, again = wanted
            assert offset == feed.end or not again
            asked += again
        for _ in range(random.randint(0, 8)):
            if feed.end < min(size, allowed):
                feed.came(min(STEP, size - feed.end), now)
                here = max(here, feed.end)
        assert roomy or feed.end - feed.start <= MOST + STEP
        for child in feed.children():
            offset_or_none = feed.next(child)
            if offset_or_none is not None:
                assert offset_or_none == got[child]
                assert feed.start <= offset_or_none < feed.end
                feed.sent(child, STEP, now)
                got[child] += STEP
            if random.random() < 0.5 and not (2.0 < now < 2.0 + asleep[child]):
                feed.want(child, got[child], min(size, got[child] + 4 * STEP), False, now)
    assert asked <= 1 + 4 * len(got)
