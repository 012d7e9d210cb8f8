"""What a tenant may have, and whether one more lease is within it.  Pure: no store, no clock.

What always holds: if every lease was granted by `refusal`, then at no time are more machines held than the quota, and
in no 24 hours do they cost more than the quota, as long as machines end with their lease.  For the cost, a lease counts
in full, as if it lasted to its end, until it has ended; then it counts for what it lasted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fanout.durations import show

DAY = 86400.0
ROUNDING = 1e-6  # dollars


@dataclass(frozen=True)
class Quota:
    """Of one tenant.  An empty list allows all."""

    machines: int
    """At once, over all leases."""
    ttl: float
    """Seconds that one lease lives at most."""
    types: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    cost_per_day: float | None = None
    """US dollars in any 24 hours; None: no limit."""


@dataclass(frozen=True)
class Wanted:
    """A lease that is asked for."""

    machines: int
    ttl: float
    types: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    price: float | None = None
    """US dollars an hour, for each machine."""


@dataclass(frozen=True)
class Held:
    """A lease that was granted: from `begin` to `end`, which lies ahead while its machines are there."""

    machines: int
    price: float | None
    begin: float
    end: float
    there: bool


@dataclass(frozen=True)
class Refusal:
    quota: str
    detail: str
    remedy: str


def refusal(quota: Quota, wanted: Wanted, held: Sequence[Held], now: float) -> Refusal | None:
    """Why the lease cannot be granted, None if it can.  `held` has all leases that lasted into the last 24 hours."""
    if wanted.ttl > quota.ttl:
        return Refusal(
            "ttl",
            f"a lease of {show(wanted.ttl)} is longer than the {show(quota.ttl)} you may have",
            f"ask for ttl={show(quota.ttl)} or less",
        )
    for name, offered, allowed in (
        ("types", wanted.types, quota.types),
        ("regions", wanted.regions, quota.regions),
    ):
        if refused := _outside(name, offered, allowed):
            return refused
    taken = sum(lease.machines for lease in held if lease.there)
    if taken + wanted.machines > quota.machines:
        free = max(0, quota.machines - taken)
        return Refusal(
            "machines",
            f"{wanted.machines} machines are more than the {free} you may still have"
            f" ({quota.machines} at once, {taken} held)",
            "end a lease, or ask for fewer" if taken else "ask for fewer, or the broker's operator for a higher quota",
        )
    return _too_dear(quota, wanted, held, now)


def cost(leases: Iterable[Held], since: float) -> float:
    """US dollars of all that lies after `since`; what has no price costs nothing."""
    return sum(
        lease.machines * (lease.price or 0.0) * max(0.0, lease.end - max(lease.begin, since)) / 3600
        for lease in leases
    )


def _outside(name: str, offered: tuple[str, ...], allowed: tuple[str, ...]) -> Refusal | None:
    if not allowed or (offered and set(offered) <= set(allowed)):
        return None
    listed = ", ".join(allowed)
    if not offered:
        return Refusal(
            name,
            f"you may have machines of {name} {listed}, and this offer does not say what it makes",
            f"the broker's operator can give the offer its {name}",
        )
    return Refusal(
        name,
        f"this offer makes {name} {', '.join(offered)}, and you may have {listed}",
        "take another offer (GET /v1/offers)",
    )


def _too_dear(quota: Quota, wanted: Wanted, held: Sequence[Held], now: float) -> Refusal | None:
    if quota.cost_per_day is None:
        return None
    if wanted.price is None:
        return Refusal(
            "cost",
            f"you may spend ${quota.cost_per_day:.2f} a day, and this offer has no price to count",
            "the broker's operator can give the offer a price",
        )
    spent = cost(held, now - DAY)
    more = cost([Held(wanted.machines, wanted.price, now, now + wanted.ttl, True)], now)
    if spent + more <= quota.cost_per_day + ROUNDING:
        return None
    return Refusal(
        "cost",
        f"this lease may cost ${more:.2f} and ${spent:.2f} of the last 24 hours are spent or reserved,"
        f" of ${quota.cost_per_day:.2f} a day",
        "ask for fewer machines, a shorter ttl or a cheaper offer, or end leases that are not needed",
    )
