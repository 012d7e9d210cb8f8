"""What every fleet must hold, whatever it is made of: it gives what was asked, and `release` leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fanout import fleets
from fanout.errors import FanoutError
from fanout.fleets import open_fleet
from fanout.fleets.base import Fleet, Request
from fanout.fleets.lab import Lab
from tests.broker.serving import Counting, served
from tests.sshd import need_isolation, need_sshd

MAKER = """#!/bin/sh
# Each machine is a file in $MADE.
case $1 in
up)
    for i in $(seq "$2"); do
        : > "$MADE/m$i"
        echo "10.0.0.$i name=m$i"
        [ "$2" -lt 50 ] || [ "$i" -lt 3 ] || exit 7
    done ;;
down)
    while read -r _ name; do rm "$MADE/${name#name=}"; named=yes; done
    [ "${named-}" ] || rm -f "$MADE"/m* ;;
esac
"""


@dataclass
class Kind:
    spec: str
    there: Callable[[], object]
    """What exists of its machines now."""
    too_many: int
    by_itself: bool = False
    """Whether what nobody remembers ends by itself."""


@pytest.fixture
def brokered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """A broker that leases machines which are counted."""
    monkeypatch.setitem(fleets.BUILT_IN, "counting", f"{Counting.__module__}:Counting")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where a process that died leaves its key
    Counting.reset()
    with served(f"sqlite:///{tmp_path}/broker.db") as broker:
        monkeypatch.setenv("FANOUT_BROKER_TOKEN", broker.token(machines=5))
        yield Kind(f"broker:{broker.url}", lambda: dict(Counting.there), 6, by_itself=True)


@pytest.fixture(params=["local", "hosts", pytest.param("lab", marks=pytest.mark.lab), "exec", "broker"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    if request.param == "local":
        return Kind("local", list, 1 << 16)
    if request.param == "hosts":
        (tmp_path / "nodes.txt").write_text("n[1-10]\n")
        return Kind(f"hosts:{tmp_path}/nodes.txt", lambda: (tmp_path / "nodes.txt").read_text(), 11)
    if request.param == "lab":
        need_sshd()
        need_isolation()
        return Kind("lab", Lab.names, 1 << 20)
    if request.param == "broker":
        found: Kind = request.getfixturevalue("brokered")
        return found
    made, program = tmp_path / "made", tmp_path / "make it.sh"
    made.mkdir()
    program.write_text(MAKER)
    program.chmod(0o755)
    monkeypatch.setenv("MADE", str(made))
    return Kind(f"exec:{program}", lambda: sorted(made.iterdir()), 50)


@asynccontextmanager
async def opened(kind: Kind) -> AsyncIterator[Fleet]:
    """A fleet that is released at the end, within its own bound, and again at once; then nothing of it is there."""
    before = kind.there()
    fleet = open_fleet(kind.spec)
    try:
        yield fleet
    finally:
        await asyncio.wait_for(fleet.release(), fleet.release_timeout)
        await asyncio.wait_for(fleet.release(), 1.0)
    assert kind.there() == before and fleet.relay_key is None


@pytest.mark.parametrize("roles", [{}, {"a": 1, "b": 2}], ids=["alike", "in roles"])
async def test_provision_gives_what_was_asked(kind: Kind, roles: dict[str, int]) -> None:
    async with opened(kind) as fleet:
        seen: list[tuple[int, int]] = []
        asked = Request("r1", None if roles else 3, roles)
        hosts = await fleet.provision(asked, lambda done, total: seen.append((done, total)))
        assert len(hosts) == 3
        assert len({host.name for host in hosts}) == len({host.address for host in hosts}) == 3
        assert seen[-1] == (3, 3) and all(done <= total for done, total in seen)


async def test_release_of_what_was_never_provisioned_does_nothing(kind: Kind) -> None:
    async with opened(kind):
        pass


async def test_release_after_a_provision_that_failed_leaves_nothing(kind: Kind) -> None:
    async with opened(kind) as fleet:
        with pytest.raises(FanoutError):
            await fleet.provision(Request("r1", kind.too_many), lambda done, total: None)


async def test_a_request_that_contradicts_itself_makes_nothing(kind: Kind) -> None:
    before = kind.there()
    async with opened(kind) as fleet:
        with pytest.raises(FanoutError, match="cannot fill the roles"):
            await fleet.provision(Request("r1", 2, {"a": 3}), lambda done, total: None)
        assert kind.there() == before


async def test_release_after_an_interrupted_provision_leaves_nothing(kind: Kind) -> None:
    async with opened(kind) as fleet:
        under_way = asyncio.Event()
        provision = asyncio.ensure_future(fleet.provision(Request("r1", 3), lambda done, total: under_way.set()))
        await asyncio.wait_for(under_way.wait(), 60.0)
        provision.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await provision


@pytest.mark.parametrize("ended", [True, False], ids=["provisioned", "half-way"])
async def test_what_a_dead_process_has_left_is_released_by_another(kind: Kind, ended: bool) -> None:
    if kind.by_itself and not ended:
        pytest.skip("a lease without heartbeats ends: tests/broker/test_reaper.py")
    asked = Request("r1", 3)
    async with opened(kind) as fleet:
        dead = open_fleet(kind.spec)
        await dead.provision(asked, lambda done, total: None)
        await fleet.adopt(asked, dead.state if ended else "")


async def test_two_releases_at_once_are_one(kind: Kind) -> None:
    async with opened(kind) as fleet:
        await fleet.provision(Request("r1", 2), lambda done, total: None)
        await asyncio.wait_for(asyncio.gather(fleet.release(), fleet.release()), fleet.release_timeout)
