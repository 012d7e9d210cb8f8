"""Leases in the store: how one begins, what it may become, and who may ask.

    making -> ready -> ending -> ended        and from making to ending, when it fails or nobody waits for it

Whoever wants a lease to end writes `ending`; the reaper sees to the rest.  A step that does not fit the state is none:
it returns False, and nothing is written.  Every function works in the caller's transaction.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from fanout.broker import audit, quotas, tenants
from fanout.broker.offers import Offer
from fanout.broker.problems import Problem, not_found
from fanout.broker.quotas import Held, Wanted
from fanout.broker.schema import Entry, Lease, Tenant
from fanout.fleets import roles
from fanout.fleets.base import Host, Request

DEFAULT_MACHINES = 2
"""For who names no number: a quota can only be held against one."""
DEFAULT_TTL = 3900.0
"""Seconds, for who names none: a run of the runner's own limit of an hour, and its ends."""
RETRY = 2.0  # s after a first failed release, twice as many after each further one
RETRY_MOST = 300.0  # s


class State(StrEnum):
    MAKING = "making"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


class Cause(StrEnum):
    RELEASED = "released"
    TTL = "ttl"
    IDLE = "idle"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    DISABLED = "disabled"


REASONS = {
    Cause.RELEASED: "its tenant ended it",
    Cause.TTL: "its time was over: ask for a longer ttl, within your quota",
    Cause.IDLE: "no heartbeat came for too long",
    Cause.INTERRUPTED: "the broker was restarted while the machines were made: ask again",
    Cause.DISABLED: "its tenant was disabled",
}
_OPEN = (State.MAKING, State.READY)


@dataclass(frozen=True)
class Asked:
    """What a tenant asks for; times in seconds."""

    offer: str
    machines: int | None = None
    roles: Mapping[str, int] = field(default_factory=dict)
    relays: int = 0
    ttl: float | None = None

    @property
    def count(self) -> int:
        """All machines that it may come to.  UsageError when it contradicts itself."""
        return roles.total(self.machines, self.roles, DEFAULT_MACHINES) + self.relays


@dataclass(frozen=True)
class Order:
    """What is asked of a fleet, as any process can read it in the store."""

    spec: str
    request: Request
    made: dict[str, Any] | None
    """What the fleet noted before it made anything; None: nothing was made."""


def ask(
    session: Session, tenant_id: int, key: str, asked: Asked, offer: Offer, now: float, idle: float, address: str
) -> tuple[Lease, bool]:
    """The lease for this key, and whether it is new.  Problem when it is not within the tenant's quotas.

    The tenant's row is locked first: whoever else asks for the same tenant waits until this is written.
    """
    tenant = session.get_one(Tenant, tenant_id, with_for_update=True)
    record = asdict(asked)
    found = session.scalar(select(Lease).where(Lease.tenant_id == tenant_id, Lease.key == key))
    if found is not None:
        if found.asked != record:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-mismatch",
                "this Idempotency-Key was used to ask for something else", "use a new key for a new lease",
            )  # fmt: skip
        return found, False
    allowed = tenants.quota(tenant)
    ttl = min(DEFAULT_TTL, allowed.ttl) if asked.ttl is None else asked.ttl
    wanted = Wanted(asked.count, ttl, offer.types, offer.regions, offer.price)
    refused = quotas.refusal(allowed, wanted, held(session, tenant_id, now), now)
    if refused:
        raise Problem(
            HTTPStatus.FORBIDDEN, "quota-exceeded", refused.detail, refused.remedy, quota=refused.quota
        )
    lease = Lease(
        id=f"lease-{secrets.token_hex(8)}", tenant=tenant, key=key, asked=record, offer=offer.name, spec=offer.spec,
        machines=wanted.machines, price=offer.price, ttl=ttl, state=State.MAKING, created_at=now,
        expires_at=now + ttl, idle_at=now + min(idle, ttl), made="", attempts=0, retry_at=0.0,
    )  # fmt: skip
    session.add(lease)
    audit.write(
        session, now, "lease.granted", actor=f"tenant:{tenant.name}", tenant=tenant.name, lease=lease.id,
        address=address, offer=offer.name, machines=lease.machines, ttl=ttl,
    )  # fmt: skip
    return lease, True


def held(session: Session, tenant_id: int, now: float) -> list[Held]:
    """What counts against the tenant's quotas."""
    recent = or_(Lease.ended_at.is_(None), Lease.ended_at > now - quotas.DAY)
    columns = select(Lease.machines, Lease.price, Lease.created_at, Lease.expires_at, Lease.ended_at)
    return [
        Held(machines, price, begin, max(expires, now) if ended is None else ended, ended is None)
        for machines, price, begin, expires, ended in session.execute(
            columns.where(Lease.tenant_id == tenant_id, recent)
        )
    ]


def of(session: Session, tenant_id: int, lease_id: str, *, change: bool = False) -> Lease:
    """A lease of this tenant; that of another is not found.  With `change`, nobody else changes it meanwhile."""
    query = select(Lease).where(Lease.id == lease_id, Lease.tenant_id == tenant_id)
    lease = session.scalar(query.with_for_update(of=Lease) if change else query)
    if lease is None:
        raise not_found()
    return lease


def mine(session: Session, tenant_id: int, most: int) -> list[Lease]:
    """The tenant's latest leases, the newest first."""
    query = select(Lease).where(Lease.tenant_id == tenant_id).order_by(Lease.created_at.desc(), Lease.id)
    return list(session.scalars(query.limit(most)))


def beat(session: Session, tenant_id: int, lease_id: str, now: float, idle: float) -> Lease:
    """The tenant is still there: the idle time begins anew.  The lease's own end stays."""
    lease = of(session, tenant_id, lease_id, change=True)
    if lease.state in _OPEN:
        lease.idle_at = max(lease.idle_at, min(now + idle, lease.expires_at))
    return lease


def order(session: Session, lease_id: str) -> Order:
    lease = session.get_one(Lease, lease_id)
    asked = Asked(**lease.asked)
    request = Request(lease.id, lease.machines - asked.relays, asked.roles, asked.relays, lease.ttl)
    return Order(lease.spec, request, json.loads(lease.made) if lease.made else None)


def ready(
    session: Session, lease_id: str, hosts: list[Host], login_key: str | None, now: float
) -> bool:
    """Its machines are there.  False if it has been ended meanwhile."""
    lease = _locked(session, lease_id)
    if lease.state != State.MAKING:
        return False
    lease.state, lease.login_key = State.READY, login_key
    lease.hosts = [_public(host) for host in hosts]
    _note(session, now, "lease.ready", lease, hosts=len(hosts), seconds=round(now - lease.created_at, 3))
    return True


def end(
    session: Session, lease_id: str, cause: Cause, now: float, reason: str = "", actor: str = audit.BROKER,
    address: str | None = None, error: str | None = None,
) -> bool:  # fmt: skip
    """Its machines are to go.  False if that was said before."""
    lease = _locked(session, lease_id)
    if lease.state not in _OPEN:
        return False
    lease.state, lease.cause, lease.reason = State.ENDING, cause, reason or REASONS[cause]
    lease.retry_at = now
    audit.write(
        session, now, "lease.ending", actor=actor, tenant=lease.tenant.name, lease=lease.id, address=address,
        cause=cause, **({"error": error} if error else {}),
    )  # fmt: skip
    return True


def remember(session: Session, lease_id: str, made: Mapping[str, Any]) -> None:
    """What the fleet needs to take back what it makes, as it told before making it."""
    _locked(session, lease_id).made = json.dumps(made)


def ended(session: Session, lease_id: str, now: float) -> str:
    """Its machines are gone, and with them all that opened them.  The cause."""
    lease = _locked(session, lease_id)
    lease.state, lease.ended_at = State.ENDED, now
    lease.hosts, lease.login_key, lease.made = None, None, ""
    cost = quotas.cost([Held(lease.machines, lease.price, lease.created_at, now, False)], 0.0)
    _note(session, now, "lease.ended", lease, cause=lease.cause, machines=lease.machines, cost=round(cost, 4))
    return lease.cause or Cause.RELEASED


def not_released(session: Session, lease_id: str, now: float, error: str) -> float:
    """The fleet could not remove the machines; in how many seconds it is tried again."""
    lease = _locked(session, lease_id)
    wait = min(RETRY_MOST, RETRY * 2.0 ** min(lease.attempts, 30))
    lease.attempts, lease.retry_at = lease.attempts + 1, now + wait
    _note(session, now, "lease.not-released", lease, error=error, attempts=lease.attempts)
    return wait


def overdue(session: Session, now: float) -> list[tuple[str, Cause]]:
    """Which leases have to end now, and why."""
    rows = session.execute(
        select(Lease.id, Lease.expires_at, Tenant.disabled)
        .join(Tenant)
        .where(Lease.state.in_(_OPEN), or_(Lease.idle_at <= now, Tenant.disabled))
    )
    return [
        (lease, Cause.TTL if expires <= now else Cause.DISABLED if disabled else Cause.IDLE)
        for lease, expires, disabled in rows
    ]


def to_release(session: Session, now: float) -> list[str]:
    return list(session.scalars(select(Lease.id).where(Lease.state == State.ENDING, Lease.retry_at <= now)))


def recover(session: Session, now: float, idle: float) -> None:
    """After a restart: what was being made is not trusted, and nobody could be heard while the broker was away."""
    for lease in session.scalars(select(Lease).where(Lease.state != State.ENDED)).all():
        if lease.state == State.MAKING:
            end(session, lease.id, Cause.INTERRUPTED, now)
        elif lease.state == State.READY:
            lease.idle_at = max(lease.idle_at, min(now + idle, lease.expires_at))
        else:
            lease.retry_at = now


def prune(session: Session, before: float) -> None:
    """Forget leases that ended, and audit entries that were written, before that."""
    session.execute(delete(Lease).where(Lease.state == State.ENDED, Lease.ended_at < before))
    session.execute(delete(Entry).where(Entry.at < before))


def figures(session: Session) -> dict[State, tuple[int, int]]:
    """How many leases there are in each state but the last, and how many machines they have."""
    rows = session.execute(
        select(Lease.state, func.count(), func.sum(Lease.machines))
        .where(Lease.state != State.ENDED)
        .group_by(Lease.state)
    )
    found = {State(state): (count, machines) for state, count, machines in rows}
    return {state: found.get(state, (0, 0)) for state in (State.MAKING, State.READY, State.ENDING)}


def _locked(session: Session, lease_id: str) -> Lease:
    return session.get_one(Lease, lease_id, with_for_update={"of": Lease}, populate_existing=True)


def _public(host: Host) -> dict[str, Any]:
    """A host as its tenant may see it: `key` names a file of the broker's machine."""
    record = asdict(host)
    del record["key"], record["local"]
    return record


def _note(session: Session, now: float, action: str, lease: Lease, **detail: Any) -> None:
    audit.write(session, now, action, tenant=lease.tenant.name, lease=lease.id, **detail)
