"""What every fleet must hold, whatever it is made of: it gives what was asked, and `release` leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fanout import fleets
from fanout.errors import FanoutError
from fanout.fleets import open_fleet
from fanout.fleets.base import Fleet, Request
from fanout.fleets.lab import Lab
from tests.broker.serving import Counting, served
from tests.cloud.cloud import REGION, Cloud
from tests.cloud.conftest import enter
from tests.cloud.root import in_short
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


@pytest.fixture
def brokered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """A broker that leases machines which are counted."""
    monkeypatch.setitem(fleets.BUILT_IN, "counting", f"{Counting.__module__}:Counting")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where a process that died leaves its key
    Counting.reset()
    with served(f"sqlite:///{tmp_path}/broker.db") as broker:
        monkeypatch.setenv("FANOUT_BROKER_TOKEN", broker.token(machines=5))
        yield Kind(f"broker:{broker.url}", lambda: dict(Counting.there), 6)


@pytest.fixture(params=["local", "hosts", pytest.param("lab", marks=pytest.mark.lab), "exec", "aws", "broker"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    if request.param == "aws":
        account: Cloud = request.getfixturevalue("booked")
        return Kind(f"aws:region={REGION},root_address=10.0.0.0/8", account.left, 50)
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


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as account:
        yield account


@pytest.fixture
def booked(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An account whose machines are only in the books, with 40 of them to be had."""
    cloud.clear()
    enter(cloud, monkeypatch, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where a process that died leaves its keys
    for place, name, value in in_short():
        monkeypatch.setattr(place, name, value)
    for letter in "abc":
        cloud.capacity["t3.small", f"{REGION}{letter}"] = 40 if letter == "a" else 0
    return cloud


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


async def test_two_releases_at_once_are_one(kind: Kind) -> None:
    async with opened(kind) as fleet:
        await fleet.provision(Request("r1", 2), lambda done, total: None)
        await asyncio.wait_for(asyncio.gather(fleet.release(), fleet.release()), fleet.release_timeout)


# What another process can do, once the one that provisioned is gone: it has what was recorded, and no more.


@asynccontextmanager
async def forgotten(kind: Kind) -> AsyncIterator[tuple[Fleet, list[dict[str, Any]]]]:
    """A fleet that is never released, and what it records; then nothing of it is there."""
    before = kind.there()
    fleet = open_fleet(kind.spec)
    recorded: list[dict[str, Any]] = []
    fleet.record = lambda made: recorded.append(json.loads(json.dumps(made)))
    yield fleet, recorded
    for made in recorded[-1:]:
        said = await type(fleet).reclaim("r1", made, lambda line: None)
        assert said and kind.there() == before
        assert await type(fleet).holds("r1", made, True) == "" or type(fleet).name == "exec"
    assert kind.there() == before


async def test_what_was_made_can_be_taken_back_by_another_process(kind: Kind) -> None:
    async with forgotten(kind) as (fleet, recorded):
        await fleet.provision(Request("r1", 3), lambda done, total: None)
        assert bool(recorded) == (type(fleet).name in ("lab", "exec", "aws", "broker"))
        if recorded:
            assert await type(fleet).holds("r1", recorded[-1], False)


async def test_it_is_recorded_before_the_first_thing_is_made(kind: Kind) -> None:
    before = kind.there()
    async with forgotten(kind) as (fleet, recorded):
        seen: list[object] = []
        fleet.record = lambda made: (seen.append(kind.there()), recorded.append(json.loads(json.dumps(made))))[1]
        await fleet.provision(Request("r1", 2), lambda done, total: None)
        assert not seen or seen[0] == before


async def test_what_a_provision_that_failed_has_made_can_be_taken_back_too(kind: Kind) -> None:
    async with forgotten(kind) as (fleet, _):
        with pytest.raises(FanoutError):
            await fleet.provision(Request("r1", kind.too_many), lambda done, total: None)


async def test_what_is_kept_is_not_released_and_can_be_taken_back(kind: Kind) -> None:
    async with forgotten(kind) as (fleet, recorded):
        await fleet.provision(Request("r1", 2), lambda done, total: None)
        there = kind.there()
        until = await fleet.keep(60.0)
        await asyncio.wait_for(fleet.release(), fleet.release_timeout)
        assert kind.there() == there and (until is not None) == bool(recorded)
