"""The tables.  Times are seconds since 1970, UTC; money is US dollars; lengths of time are seconds.

`migrations/` has every step from nothing to this; a test holds that the two agree.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy's own idiom
        float: Float(53),
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Tenant(Base):
    """Somebody who may lease machines."""

    __tablename__ = "tenants"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    machines: Mapped[int]
    ttl: Mapped[float]
    types: Mapped[list[Any]]
    regions: Mapped[list[Any]]
    cost_per_day: Mapped[float | None]


class Lease(Base):
    """Machines for a tenant, from what is asked of the fleet to the word that they are gone."""

    __tablename__ = "leases"
    __table_args__ = (
        UniqueConstraint("tenant_id", "key", name="uq_leases_tenant_key"),
        Index("ix_leases_state", "state"),
        Index("ix_leases_tenant_ended", "tenant_id", "ended_at"),
    )

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    """Also the run's id for the fleet."""
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    key: Mapped[str] = mapped_column(String(200))
    """The Idempotency-Key that it was asked for with."""
    asked: Mapped[dict[str, Any]]
    offer: Mapped[str] = mapped_column(String(63))
    spec: Mapped[str] = mapped_column(Text)
    """Of the fleet, as it was then: offers may change while machines are there."""
    machines: Mapped[int]
    """All that count against the quota."""
    price: Mapped[float | None]
    """An hour, for each machine."""
    ttl: Mapped[float]
    state: Mapped[str] = mapped_column(String(10))
    cause: Mapped[str | None] = mapped_column(String(20))
    """Why it ended."""
    reason: Mapped[str | None] = mapped_column(Text)
    """The same for people."""
    created_at: Mapped[float]
    expires_at: Mapped[float]
    idle_at: Mapped[float]
    """When it ends unless a heartbeat comes; never after `expires_at`."""
    ended_at: Mapped[float | None]
    """When its machines were gone."""
    hosts: Mapped[list[Any] | None]
    login_key: Mapped[str | None] = mapped_column(Text)
    """A private key that opens these machines and nothing else; forgotten when they are gone."""
    made: Mapped[str] = mapped_column(Text, default="")
    """What another instance of the fleet needs to release them."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Releases that have failed."""
    retry_at: Mapped[float] = mapped_column(default=0.0)

    tenant: Mapped[Tenant] = relationship(lazy="joined", innerjoin=True)


class Entry(Base):
    """A line of the audit log.  It keeps names, not references: it outlives what it speaks of."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float] = mapped_column(index=True)
    action: Mapped[str] = mapped_column(String(40))
    actor: Mapped[str] = mapped_column(String(80))
    """`tenant:NAME`, `operator`, or `broker`."""
    tenant: Mapped[str | None] = mapped_column(String(63), index=True)
    lease: Mapped[str | None] = mapped_column(String(63))
    address: Mapped[str | None] = mapped_column(String(64))
    """Where a request came from."""
    detail: Mapped[dict[str, Any]]
