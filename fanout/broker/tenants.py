"""Tenants, and the tokens by which they are known.

A token is 256 random bits and is stored as its SHA-256 alone.  A fast hash is right here: slow ones make guessing
dear where there is something to guess, as with passwords; nobody guesses 256 bits, and each request has to be checked.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fanout.broker import audit
from fanout.broker.offers import NAME
from fanout.broker.quotas import Quota
from fanout.broker.schema import Tenant
from fanout.errors import UsageError

PREFIX = "fanout_"  # lets scanners for leaked secrets find it


def add(session: Session, name: str, quota: Quota, now: float) -> str:
    """Make a tenant; its token, which is nowhere else."""
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r} cannot name a tenant: use up to 63 lower-case letters, digits and dashes")
    if session.scalar(select(Tenant).where(Tenant.name == name)):
        raise UsageError(f"there is a tenant {name} already: `fanout broker tenant token {name}` gives it a new token")
    token = _new_token()
    session.add(
        Tenant(
            name=name, token_hash=_hash(token), created_at=now, machines=quota.machines, ttl=quota.ttl,
            types=list(quota.types), regions=list(quota.regions), cost_per_day=quota.cost_per_day,
        )
    )  # fmt: skip
    audit.write(session, now, "tenant.added", actor=audit.OPERATOR, tenant=name)
    return token


def change(session: Session, name: str, now: float, **limits: Any) -> None:
    """Give a tenant other quotas, by their names in `Quota`; those that are not named stay.

    What it holds stays, also where that is more than it may have now.  Its row is locked, as when a lease is granted.
    """
    tenant = session.get_one(Tenant, named(session, name).id, with_for_update=True, populate_existing=True)
    before = asdict(quota(tenant))
    for what, value in limits.items():
        setattr(tenant, what, list(value) if isinstance(value, tuple) else value)
    after = asdict(quota(tenant))
    changed: dict[str, Any] = {what: [before[what], after[what]] for what in after if before[what] != after[what]}
    audit.write(session, now, "tenant.changed", actor=audit.OPERATOR, tenant=name, **changed)


def replace_token(session: Session, name: str, now: float) -> str:
    """A new token; the old one is worth nothing from now on.  It also enables the tenant."""
    tenant = named(session, name)
    token = _new_token()
    tenant.token_hash, tenant.disabled = _hash(token), False
    audit.write(session, now, "tenant.token", actor=audit.OPERATOR, tenant=name)
    return token


def disable(session: Session, name: str, now: float) -> None:
    """Its token is refused from now on, and the reaper ends its leases."""
    named(session, name).disabled = True
    audit.write(session, now, "tenant.disabled", actor=audit.OPERATOR, tenant=name)


def named(session: Session, name: str) -> Tenant:
    tenant = session.scalar(select(Tenant).where(Tenant.name == name))
    if tenant is None:
        raise UsageError(f"there is no tenant {name}: `fanout broker tenant list` shows all")
    return tenant


def every(session: Session) -> list[Tenant]:
    return list(session.scalars(select(Tenant).order_by(Tenant.name)))


def of_token(session: Session, token: str) -> Tenant | None:
    """Whose token it is, if that tenant is not disabled."""
    return session.scalar(select(Tenant).where(Tenant.token_hash == _hash(token), Tenant.disabled.is_(False)))


def quota(tenant: Tenant) -> Quota:
    return Quota(tenant.machines, tenant.ttl, tuple(tenant.types), tuple(tenant.regions), tenant.cost_per_day)


def _new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
