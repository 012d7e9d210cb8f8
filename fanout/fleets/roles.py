"""Which machines a run takes, and which role each has: decided from plain data, the same in every fleet.

A role has exactly as many machines as were asked for, or there is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Host


def total(machines: int | None, roles: Mapping[str, int], default: int) -> int:
    """How many machines a request comes to; `default` when it names neither a number nor roles.

    UsageError when it contradicts itself.
    """
    for role, wanted in roles.items():
        if wanted < 1:
            raise UsageError(f"role {role!r} of {wanted} machines: a role needs at least one")
    least = sum(roles.values())
    if machines is None:
        return least or default
    if machines < 1:
        raise UsageError(f"a fleet of {machines} machines: it needs at least one")
    if machines < least:
        listed = " + ".join(f"{role} {wanted}" for role, wanted in roles.items())
        raise UsageError(f"{machines} machines cannot fill the roles, which need {least} ({listed})")
    return machines


def assign(hosts: Sequence[Host], roles: Mapping[str, int]) -> list[str]:
    """The role of each host, by position; "" for none.

    A role takes the hosts reserved for it first, then hosts without a reservation in order.  A host that no
    role asked for keeps the role it is reserved for.  FleetError when a role lacks hosts.
    """
    given = [host.role or "" for host in hosts]
    for place, role in _places(hosts, roles, range(len(hosts))).items():
        given[place] = role
    return given


def choose(hosts: Sequence[Host], machines: int | None, roles: Mapping[str, int]) -> list[Host]:
    """The hosts that a run takes of those that exist, in their order.

    All of them when nothing is asked for.  Otherwise as many as are asked for: the first in order, but those
    marked as relays before any other, since a tree may not work without them.  Roles are filled as by
    `assign`; what is wanted beyond the roles is taken from hosts not reserved for one of these roles.
    FleetError when there are too few, saying what is lacking.
    """
    wanted = total(machines, roles, default=len(hosts))
    if wanted > len(hosts):
        raise FleetError(
            f"{wanted} machines are wanted and the fleet has {len(hosts)}:"
            f" add {wanted - len(hosts)} or ask for fewer"
        )
    preferred = sorted(range(len(hosts)), key=lambda i: not hosts[i].relay)
    taken = _places(hosts, roles, preferred)
    rest = [i for i in preferred if i not in taken and hosts[i].role not in roles]
    lacking = wanted - len(taken) - len(rest)
    if lacking > 0:
        raise FleetError(
            f"{wanted} machines are wanted, and {lacking} are lacking: the others are reserved (role=) for"
            f" roles that have all they need; ask for more of such a role, or for fewer machines"
        )
    return [hosts[i] for i in sorted([*taken, *rest[: wanted - len(taken)]])]


def _places(hosts: Sequence[Host], roles: Mapping[str, int], order: Sequence[int]) -> dict[int, str]:
    """Position -> role, for exactly as many hosts as the roles need, taken in the given order."""
    free = iter([i for i in order if hosts[i].role is None])
    places: dict[int, str] = {}
    lacking: list[str] = []
    for role, wanted in roles.items():
        own = [i for i in order if hosts[i].role == role][:wanted]
        filled = own + [i for _, i in zip(range(wanted - len(own)), free, strict=False)]
        places.update(dict.fromkeys(filled, role))
        if len(filled) < wanted:
            lacking.append(f"role {role!r} lacks {wanted - len(filled)} of {wanted}")
    if lacking:
        raise FleetError(
            f"too few machines: {', '.join(lacking)}; add machines with that role= or without any"
        )
    return places
