"""Stores of both kinds: made from nothing, equal to the schema, served by one broker at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from fanout.broker import tenants
from fanout.broker.quotas import Quota
from fanout.broker.schema import Base
from fanout.broker.store import Store
from fanout.errors import FanoutError, FleetError, UsageError


def test_migrations_lead_from_nothing_to_the_schema_and_keep_what_is_there(store_url: str) -> None:
    store = Store(store_url)
    try:
        store.migrate()
        with store.begin() as session:
            tenants.add(session, "ada", Quota(1, 60.0), 0.0)
        store.migrate()
        with store.begin() as session:
            assert tenants.quota(tenants.named(session, "ada")) == Quota(1, 60.0)
            assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
    finally:
        store.close()


def test_a_store_of_a_newer_fanout_is_left_alone(store_url: str) -> None:
    store = Store(store_url)
    try:
        store.migrate()
        with store.begin() as session:
            session.execute(text("update alembic_version set version_num = 'later'"))
        with pytest.raises(UsageError, match="newer fanout"):
            store.migrate()
    finally:
        store.close()


def test_one_broker_serves_a_store_and_the_next_when_it_has_ended(store_url: str) -> None:
    first, second = Store(store_url), Store(store_url)
    try:
        with first.serving():
            with pytest.raises(UsageError, match="another broker"), second.serving():
                pass
            second.migrate()  # tenants may be added meanwhile
        with second.serving():
            pass
    finally:
        first.close()
        second.close()


def test_a_transaction_that_fails_leaves_nothing(store_url: str) -> None:
    store = Store(store_url)
    try:
        store.migrate()
        with pytest.raises(ZeroDivisionError), store.begin() as session:
            tenants.add(session, "ada", Quota(1, 60.0), 0.0)
            raise ZeroDivisionError
        with store.begin() as session:
            assert tenants.every(session) == []
    finally:
        store.close()


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/new/broker.db")
    store.migrate()
    files = list((tmp_path / "new").iterdir())
    assert files and all(os.stat(path).st_mode & 0o077 == 0 for path in [tmp_path / "new", *files])
    store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "broker.db", "sqlite:////proc/x/y"])
def test_a_url_that_is_no_store_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError):
        Store(url)


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    store = Store("postgresql://me:hunter2@127.0.0.1:1/x")
    with pytest.raises(FleetError, match="does not answer") as raised:
        store.migrate()
    assert "hunter2" not in str(raised.value) and isinstance(raised.value, FanoutError)
    store.close()
