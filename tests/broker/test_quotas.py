"""Quotas as plain values: what is refused, what it costs, and what holds over any history of grants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.broker.quotas import DAY, Held, Quota, Refusal, Wanted, cost, refusal

HOUR = 3600.0
NOW = 1_000_000.0


def refused(quota: Quota, wanted: Wanted, *held: Held) -> str | None:
    found = refusal(quota, wanted, held, NOW)
    assert found is None or (found.detail and found.remedy)
    return found.quota if found else None


def test_machines_at_once_count_those_that_are_still_there() -> None:
    gone = Held(9, None, NOW - HOUR, NOW - 1, there=False)
    overdue = Held(4, None, NOW - 2 * HOUR, NOW, there=True)
    assert refused(Quota(5, HOUR), Wanted(5, HOUR), gone) is None
    assert refused(Quota(5, HOUR), Wanted(2, HOUR), gone, overdue) == "machines"
    assert refused(Quota(5, HOUR), Wanted(1, HOUR), gone, overdue) is None


def test_ttl_is_a_cap() -> None:
    assert refused(Quota(5, HOUR), Wanted(1, HOUR)) is None
    assert refused(Quota(5, HOUR), Wanted(1, HOUR + 1)) == "ttl"


@pytest.mark.parametrize("name", ["types", "regions"])
def test_all_that_an_offer_may_make_has_to_be_allowed(name: str) -> None:
    def ask(allowed: tuple[str, ...], offered: tuple[str, ...]) -> str | None:
        return refused(Quota(5, HOUR, **{name: allowed}), Wanted(1, HOUR, **{name: offered}))  # type: ignore[arg-type]

    assert ask((), ("a",)) is ask((), ()) is ask(("a", "b"), ("b",)) is None
    assert ask(("a",), ("a", "b")) == ask(("a",), ()) == name


def test_an_open_lease_costs_as_if_it_lasted_and_an_ended_one_what_it_lasted() -> None:
    there = Held(2, 3.0, NOW - HOUR, NOW + HOUR, there=True)
    gone = Held(2, 3.0, NOW - 2 * HOUR, NOW - HOUR, there=False)
    assert cost([there], 0.0) == pytest.approx(12.0) and cost([gone], 0.0) == pytest.approx(6.0)
    assert cost([there, gone], NOW - 1.5 * HOUR) == pytest.approx(15.0)
    assert cost([Held(5, None, 0.0, NOW, True)], 0.0) == 0.0


def test_the_cost_of_a_day_is_a_cap_and_what_has_no_price_is_not_within_it() -> None:
    quota = Quota(100, 10 * HOUR, cost_per_day=10.0)
    assert refused(quota, Wanted(10, HOUR, price=1.0)) is None
    assert refused(quota, Wanted(11, HOUR, price=1.0)) == "cost"
    assert refused(quota, Wanted(1, HOUR)) == "cost"
    assert refused(quota, Wanted(1, HOUR, price=1.0), Held(10, 1.0, NOW - HOUR, NOW, False)) == "cost"
    yesterday = Held(10, 1.0, NOW - DAY - HOUR, NOW - DAY, False)
    assert refused(quota, Wanted(10, HOUR, price=1.0), yesterday) is None


step = st.tuples(
    st.integers(0, 6 * 3600),  # seconds until it is asked
    st.integers(1, 8),  # machines
    st.integers(60, 12 * 3600),  # ttl
    st.sampled_from([0.0, 0.25, 1.0, 7.5]),  # price
    st.floats(0.0, 1.0),  # when it ends, as a share of its ttl
)


@given(st.lists(step, max_size=40))
def test_no_history_of_grants_exceeds_the_machines_or_costs_more_in_any_day(steps: list[tuple[int, ...]]) -> None:
    quota = Quota(10, 12 * HOUR, cost_per_day=20.0)
    now, lives = 0.0, []
    for wait, machines, ttl, price, share in steps:
        now += wait
        held = [
            Held(count, each, begin, end if end <= now else begin + full, end > now)
            for count, each, begin, end, full in lives
        ]
        wanted = Wanted(machines, float(ttl), price=price)
        if not isinstance(refusal(quota, wanted, held, now), Refusal):
            lives.append((machines, price, now, now + ttl * share, float(ttl)))
    for at in [begin for _, _, begin, _, _ in lives]:
        assert sum(count for count, _, begin, end, _ in lives if begin <= at < end) <= quota.machines
    for until in [end for _, _, _, end, _ in lives]:
        spent = sum(
            count * price * max(0.0, min(end, until) - max(begin, until - DAY)) / 3600
            for count, price, begin, end, _ in lives
        )
        assert spent <= 20.0 + 1e-3
