"""Stores of both kinds, and the counting fleet among those that `--fleet` knows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout import fleets
from tests import postgres
from tests.broker.serving import Counting, Served, served


@pytest.fixture(scope="session")
def database_server() -> Iterator[postgres.Postgres]:
    with postgres.server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/broker.db"
    else:
        with request.getfixturevalue("database_server").database() as url:
            yield url


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counting]]:
    monkeypatch.setitem(fleets.BUILT_IN, "counting", f"{Counting.__module__}:Counting")
    Counting.reset()
    yield Counting
    assert not Counting.there, "machines were left behind"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Served]:
    """A broker with the counting fleet, on SQLite."""
    with served(f"sqlite:///{tmp_path}/broker.db") as found:
        yield found


