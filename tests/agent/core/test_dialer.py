"""The dialer: the bound and the deadline are kept, and each machine ends once."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanout.agent.core.dialer import RETRY, RETRY_MOST, START, Dialer


@settings(deadline=None)
@example(bound=16, machines=57, seed=58, seconds=13.0)
@given(bound=st.integers(1, 20), machines=st.integers(1, 60), seed=st.integers(0, 9999), seconds=st.floats(0, 20))
def test_every_machine_ends_in_exactly_one_way_within_bound_and_deadline(
    bound: int, machines: int, seed: int, seconds: float
) -> None:
    rng = random.Random(seed)
    dialer, now = Dialer(bound, rng.random), 0.0
    for machine in range(machines):
        dialer.add(machine, seconds)
    flights: list[tuple[float, int]] = []
    succeeded, failed, tries = set(), set(), dict.fromkeys(range(machines), 0)
    while len(succeeded) + len(failed) < machines:
        for machine in dialer.start(now):
            assert machine not in succeeded | failed
            assert machine not in {m for _, m in flights}
            assert dialer.tries(machine) == tries[machine]
            if tries[machine]:
                assert now < seconds + machines  # late only where the bound made it wait, for one flight each of others
            flights.append((now + rng.random(), machine))
        assert len(flights) <= bound
        assert flights or dialer.timeout() is not None, "stuck"
        due = dialer.timeout()
        if flights and (due is None or min(flights)[0] <= due):
            now, machine = min(flights)
            flights.remove((now, machine))
            assert dialer.active(machine)
            if rng.random() < 0.4:
                dialer.succeeded(machine)
                succeeded.add(machine)
            else:
                tries[machine] += 1
                if not dialer.failed(machine, rng.random() < 0.8, now):
                    failed.add(machine)
                else:
                    assert now < seconds
            assert not dialer.active(machine)
        else:
            assert due is not None
            now = max(now, due)
    assert not succeeded & failed
    assert dialer.start(now + 100) == []
    assert dialer.timeout() is None
    assert not dialer._deadlines
    assert not dialer._tries


def test_waits_double_up_to_a_limit_and_are_stretched() -> None:
    for stretch in (0.0, 1.0):
        dialer, now, waits = Dialer(1, lambda stretch=stretch: stretch), 0.0, []
        dialer.add(5, 1000.0)
        for _ in range(7):
            assert dialer.start(now) == [5]
            assert dialer.failed(5, True, now)
            due = dialer.timeout()
            assert due is not None
            assert dialer.start(due - 0.001) == []
            waits.append(due - now)
            now = due
        expected = [min(RETRY_MOST, RETRY * 2**i) * (1 + stretch / 2) for i in range(7)]
        assert [round(wait, 6) for wait in waits] == [round(wait, 6) for wait in expected]


def test_a_refusal_halves_the_bound_and_success_raises_it_again() -> None:
    dialer = Dialer(16, lambda: 0.0)
    for machine in range(100):
        dialer.add(machine, 100.0)
    started = dialer.start(0.0)
    assert len(started) == START
    for machine in started[:-1]:
        dialer.succeeded(machine)
    assert dialer.bound == 16, "no more than was asked for"
    assert dialer.failed(started[-1], True, 0.0)
    assert dialer.bound == 8
    assert len(dialer.start(0.0)) == 8


def test_a_failure_that_will_not_pass_is_final_and_does_not_slow_the_others() -> None:
    dialer = Dialer(4, lambda: 0.0)
    dialer.add(1, 100.0)
    assert dialer.start(0.0) == [1]
    assert not dialer.failed(1, False, 0.0)
    assert dialer.bound == 4
    assert dialer.timeout() is None


def test_a_retry_that_is_due_goes_before_a_first_attempt() -> None:
    dialer = Dialer(1, lambda: 0.0)
    for machine in (1, 2, 3):
        dialer.add(machine, 100.0)
    assert dialer.start(0.0) == [1]
    assert dialer.failed(1, True, 0.0)
    assert dialer.start(1.0) == [1]


def test_a_machine_that_is_wanted_anew_is_dialled_once() -> None:
    """Between attempts to attach it a retry may still be queued: what is connected must not be dialled again."""
    dialer = Dialer(32, lambda: 0.0)
    dialer.add(7, 10.0)
    assert dialer.start(0.0) == [7]
    assert dialer.failed(7, True, 0.0)
    dialer.succeeded(7)
    dialer.add(7, 20.0)
    dialer.add(7, 20.0)
    assert dialer.start(0.0) == [7]
    dialer.succeeded(7)
    assert dialer.start(5.0) == [] and dialer.timeout() is None
