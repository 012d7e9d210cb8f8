"""-n and --role against the scenario's wish."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.errors import UsageError
from fanout.scenario.counts import resolve
from fanout.scenario.decorator import scenario


async def body(fleet: Any) -> None: ...


plain = scenario(body)
five = scenario(machines=5)(body)
roles = scenario(machines={"boot": 5, "peer": 20})(body)


def test_the_scenarios_number_holds_until_n_overrides_it() -> None:
    assert resolve(plain, None, {}) == (None, {})
    assert resolve(plain, 3, {}) == (3, {})
    assert resolve(five, None, {}) == (5, {})
    assert resolve(five, 3, {}) == (3, {})


def test_a_role_is_set_by_name() -> None:
    assert resolve(roles, None, {}) == (25, {"boot": 5, "peer": 20})
    assert resolve(roles, None, {"peer": 2}) == (7, {"boot": 5, "peer": 2})


def test_n_is_shared_in_proportion_by_roles_that_are_not_set() -> None:
    assert resolve(roles, 50, {}) == (50, {"boot": 11, "peer": 39})
    assert resolve(roles, 2, {}) == (2, {"boot": 1, "peer": 1})
    assert resolve(roles, 10, {"boot": 1}) == (10, {"boot": 1, "peer": 9})
    assert resolve(roles, 3, {"boot": 1, "peer": 2}) == (3, {"boot": 1, "peer": 2})


@pytest.mark.parametrize(
    ("kind", "n", "given_roles", "said"),
    [
        (plain, 0, {}, "at least one machine"),
        (plain, None, {"peer": 3}, "it has none; use -n"),
        (roles, None, {"pear": 3}, "no role 'pear'; its roles are boot, peer"),
        (roles, None, {"peer": 0}, "at least one machine"),
        (roles, 1, {}, "1 machines are left for 2 other roles"),
        (roles, 3, {"boot": 3}, "0 machines are left for 1 other roles"),
        (roles, 9, {"boot": 1, "peer": 2}, "6 machines are left for 0 other roles"),
    ],
)
def test_contradictions_are_told(kind: Any, n: int | None, given_roles: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve(kind, n, given_roles)


@given(st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), st.integers(1, 1000), min_size=1), st.data())
def test_all_machines_are_given_out_and_no_role_is_empty(wanted: dict[str, int], data: st.DataObject) -> None:
    n = data.draw(st.integers(len(wanted), 5000))
    total, shared = resolve(scenario(machines=wanted)(body), n, {})
    assert total == n == sum(shared.values())
    assert shared.keys() == wanted.keys()
    assert min(shared.values()) >= 1
    most = sorted(wanted, key=lambda role: (wanted[role], shared[role]))
    for smaller, larger in itertools.pairwise(most):
        assert shared[smaller] <= shared[larger] + 1
