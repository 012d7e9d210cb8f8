"""Roles: exactly as many machines as asked for, reserved ones first, and what is lacking is said."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Host
from fanout.fleets.roles import assign, choose, total


def hosts(*texts: str) -> list[Host]:
    """Hosts written as `name`, `name:role` or `name:role*`, with the star for a relay."""
    made = []
    for text in texts:
        name, _, role = text.rstrip("*").partition(":")
        made.append(Host(name, name, role=role or None, relay=text.endswith("*")))
    return made


def chosen(given_hosts: list[Host], machines: int | None, roles: dict[str, int]) -> str:
    return " ".join(host.name for host in choose(given_hosts, machines, roles))


def test_reserved_hosts_come_first_and_others_in_order() -> None:
    assert assign(hosts("a", "b", "c:db", "d"), {"db": 2, "web": 2}) == ["db", "web", "db", "web"]


def test_a_host_beyond_the_roles_has_its_own_role_or_none() -> None:
    assert assign(hosts("a", "b", "c:db"), {"web": 1}) == ["web", "", "db"]
    assert assign(hosts("a", "c:db"), {}) == ["", "db"]


def test_every_lacking_role_is_named() -> None:
    with pytest.raises(FleetError, match=r"'db' lacks 1 of 3, role 'web' lacks 1 of 1"):
        assign(hosts("a", "b:db", "c:other"), {"db": 3, "web": 1})


def test_the_first_hosts_are_taken() -> None:
    assert chosen(hosts("a", "b", "c:db", "d"), 3, {}) == "a b c"
    assert chosen(hosts("a", "b", "c:db", "d"), None, {}) == "a b c d"


def test_relays_are_taken_before_the_first_and_stay_in_order() -> None:
    assert chosen(hosts("a", "b", "c", "d*"), 2, {}) == "a d"
    assert chosen(hosts("a", "b", "c", "d*"), None, {"x": 2}) == "a d"


def test_roles_take_only_as_many_as_they_ask_for() -> None:
    assert chosen(hosts("a:db", "b:db", "c", "d"), None, {"db": 1, "web": 1}) == "a c"
    assert chosen(hosts("a:db", "b:db", "c", "d"), 3, {"db": 1, "web": 1}) == "a c d"


def test_machines_that_no_role_may_take_are_said_to_lack() -> None:
    with pytest.raises(FleetError, match="3 machines are wanted, and 1 are lacking"):
        choose(hosts("a:db", "b:db", "c"), 3, {"db": 1})


@pytest.mark.parametrize(
    ("machines", "roles", "what"),
    [
        (0, {}, "0 machines"),
        (-1, {}, "-1 machines"),
        (3, {"a": 2, "b": 2}, r"3 machines cannot fill the roles, which need 4 \(a 2 \+ b 2\)"),
        (None, {"a": 0}, "role 'a' of 0"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(
    machines: int | None, roles: dict[str, int], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        total(machines, roles, 5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "z"]), st.booleans()), min_size=1, max_size=12),
    st.none() | st.integers(1, 13),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 4)),
)
def test_what_is_chosen_can_always_be_assigned(
    marks: list[tuple[str | None, bool]], machines: int | None, roles: dict[str, int]
) -> None:
    fleet = [Host(f"n{i}", "", role=role, relay=relay) for i, (role, relay) in enumerate(marks)]
    try:
        taken = choose(fleet, machines, roles)
    except (FleetError, UsageError):
        return
    assert len(taken) == (machines or sum(roles.values()) or len(fleet))
    assert taken == [host for host in fleet if host in taken]
    given_roles = assign(taken, roles)
    counts = Counter(given_roles)
    assert all(counts[role] == wanted for role, wanted in roles.items())
    assert all(host.role in (None, role) for host, role in zip(taken, given_roles, strict=True))
