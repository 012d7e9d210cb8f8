"""How many are served at once follows how long this process waits for a CPU."""

from __future__ import annotations

from fanout.agent.core.concurrency import FIRST, MOST, Concurrency


def test_it_goes_down_to_one_where_there_is_no_cpu_to_spare_and_up_to_all_where_there_is() -> None:
    one, ran, waited = Concurrency(), 0, 0
    limits = []
    for _ in range(5):
        ran, waited = ran + 10, waited + 90
        one.look(ran, waited)
        limits.append(one.limit)
    assert limits == [4, 2, 1, 1, 1]
    for _ in range(12):
        ran, waited = ran + 90, waited + 10
        one.look(ran, waited)
        limits.append(one.limit)
    assert limits[5:8] == [2, 4, 8]
    assert limits[-1] == MOST


def test_where_nobody_tells_all_are_served() -> None:
    one = Concurrency()
    for _ in range(12):
        one.look(0, 0)
    assert one.limit == MOST > FIRST
