"""The audit log: who did what to which lease or tenant, written in the transaction in which it is done.

Entries are added and, when they are old, removed; never changed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fanout.broker.schema import Entry

OPERATOR = "operator"
BROKER = "broker"
MOST = 1000  # entries of one answer


def write(
    session: Session, at: float, action: str, *, actor: str = BROKER, tenant: str | None = None,
    lease: str | None = None, address: str | None = None, **detail: Any,
) -> None:  # fmt: skip
    session.add(
        Entry(at=at, action=action, actor=actor, tenant=tenant, lease=lease, address=address, detail=detail)
    )


def read(
    session: Session, *, tenant: str | None = None, lease: str | None = None, since: float = 0.0, after: int = 0,
    most: int = MOST,
) -> list[Entry]:  # fmt: skip
    """The latest `most` entries after the one numbered `after`, the oldest of them first."""
    query = select(Entry).where(Entry.at >= since, Entry.id > after)
    if tenant is not None:
        query = query.where(Entry.tenant == tenant)
    if lease is not None:
        query = query.where(Entry.lease == lease)
    return list(session.scalars(query.order_by(Entry.id.desc()).limit(most)))[::-1]
