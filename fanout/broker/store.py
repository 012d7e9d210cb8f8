"""The store: SQLite in one file, or PostgreSQL by URL; transactions, migrations, and who serves it.

What always holds: a transaction sees nothing half-done, and on SQLite it has the only right to write from its first
statement on; one broker at a time provisions for a store (other processes may read it and change tenants).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from fanout.errors import FleetError, UsageError

PATIENCE = 15.0  # s; for another transaction, a free connection or the server
POOL = 20  # connections; more requests than that wait for one
SERVING = 0x66616E6F  # the number of PostgreSQL's advisory lock; any would do


class Store:
    """All calls block, for milliseconds as a rule: on the event loop they belong into a thread."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        """UsageError for a URL that is none; nothing is connected to yet.

        `make`: a file that is not there is made; without, that is a UsageError too.
        """
        try:
            self._url = make_url(url)
            if self._url.get_backend_name() == "sqlite":
                self._engine = _sqlite(self._url, make)
            elif self._url.get_backend_name() == "postgresql":
                self._engine = create_engine(
                    self._url.set(drivername="postgresql+psycopg"),
                    connect_args={"connect_timeout": int(PATIENCE)},
                    pool_pre_ping=True,
                    pool_size=POOL,
                    pool_timeout=PATIENCE,
                )
            else:
                raise UsageError(f"a store is sqlite:///FILE or postgresql://..., not {self._url.drivername}")
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(f"the store's URL does not work: {error}; write sqlite:////var/lib/broker.db") from None

    @property
    def name(self) -> str:
        """For people: without the password."""
        return self._url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by an exception.  Objects stay readable after it."""
        with self._connected(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the tables to this version, from any earlier one or from nothing.  Idempotent."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
        with self._connected(), self._engine.begin() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise UsageError(f"{self.name} is of a newer fanout than this one: update it ({error})") from None

    def need(self) -> None:
        """UsageError for a store that has no tables yet."""
        with self._connected(), self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                raise UsageError(_missing(self.name))

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Be the one broker of this store; UsageError if another process is."""
        with contextlib.ExitStack() as stack:
            if self._url.database and self._engine.dialect.name == "sqlite":
                free = _lock_file(stack, f"{self._url.database}.lock")
            else:
                stack.enter_context(self._connected())
                connection = stack.enter_context(self._engine.connect())
                free = connection.scalar(text("select pg_try_advisory_lock(:number)"), {"number": SERVING})
                connection.commit()
                stack.callback(connection.invalidate)  # closed for good: the pool would keep the lock
            if not free:
                raise UsageError(f"another broker serves {self.name}: end it, or give this one a store of its own")
            yield

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            # Not the statement with its values: these may hold a key.
            raise FleetError(f"the store {self.name} does not answer: {str(error.orig).strip()}") from error.orig


def _missing(name: str) -> str:
    return (
        f"there is no broker's store at {name}: name the one that is served (--store, or FANOUT_BROKER_STORE);"
        " `fanout broker tenant add` and `fanout broker serve` make a new one"
    )


def _sqlite(url: URL, make: bool) -> Engine:
    if not url.database or url.database == ":memory:":
        raise UsageError("a store has to outlive the broker: sqlite:////var/lib/fanout-broker/broker.db")
    path = Path(url.database)
    if not make and not path.exists():
        raise UsageError(_missing(url.render_as_string()))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's own files beside it have the same mode
    except OSError as error:
        raise UsageError(f"the store {path} cannot be opened: {error.strerror}") from None
    engine = create_engine(url, connect_args={"timeout": PATIENCE}, pool_size=POOL, pool_timeout=PATIENCE)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # the driver would begin transactions at its own time
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _lock_file(stack: contextlib.ExitStack, path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
