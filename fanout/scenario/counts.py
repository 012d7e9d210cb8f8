"""How many machines of which role a run has: the scenario's wish, -n and --role.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fanout.errors import UsageError
from fanout.scenario.decorator import Scenario


def resolve(
    scenario: Scenario, machines: int | None, roles: Mapping[str, int]
) -> tuple[int | None, dict[str, int]]:
    """(machines, roles); None machines leaves the number to the fleet.

    --role sets one role.  -n is the number of all machines: with roles, those not set by --role share what is left
    in the proportion that the scenario gives, with at least one machine each.
    """
    if machines is not None and machines < 1:
        raise UsageError(f"-n {machines}: a run needs at least one machine")
    for role, count in roles.items():
        if role not in scenario.roles:
            there = f"its roles are {', '.join(scenario.roles)}" if scenario.roles else "it has none; use -n"
            raise UsageError(f"--role {role}={count}: scenario {scenario.name} has no role {role!r}; {there}")
        if count < 1:
            raise UsageError(f"--role {role}={count}: a role needs at least one machine")
    if not scenario.roles:
        return machines or scenario.machines, {}
    wanted = {**scenario.roles, **roles}
    if machines is not None:
        free = {role: count for role, count in scenario.roles.items() if role not in roles}
        left = machines - sum(roles.values())
        if left < len(free) or (left and not free):
            set_by = "".join(f" --role {role}={count}" for role, count in roles.items())
            raise UsageError(
                f"-n {machines}{set_by}: {left} machines are left for {len(free)} other roles"
                f" ({', '.join(free) or 'none'})"
            )
        wanted.update(_share(left, free))
    return sum(wanted.values()), wanted


def _share(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` in proportion to the weights, each at least 1, by largest remainder."""
    if not weights:
        return {}
    spare = total - len(weights)
    exact = {role: spare * weight / sum(weights.values()) for role, weight in weights.items()}
    shares = {role: 1 + int(value) for role, value in exact.items()}
    by_rest = sorted(weights, key=lambda role: int(exact[role]) - exact[role])
    for role in by_rest[: total - sum(shares.values())]:
        shares[role] += 1
    return shares
