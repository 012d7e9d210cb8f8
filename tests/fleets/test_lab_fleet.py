"""The fleet `lab`: a lab for a run, or one that is up; and what is left of it without root."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fanout.errors import FanoutError, FleetError, UsageError
from fanout.fleets.base import Request
from fanout.fleets.lab import Lab, LabFleet, isolated
from tests.sshd import need_isolation, need_sshd
from tests.sshd_client import ssh

pytestmark = pytest.mark.lab


@pytest.fixture(params=["isolated", "loopback"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of lab; the second as if we were not allowed the first."""
    need_sshd()
    if request.param == "loopback":
        monkeypatch.setattr(isolated, "why_not", lambda: "this needs root")
    else:
        need_isolation()
    return str(request.param)


def request(machines: int | None) -> Request:
    return Request(run="r", machines=machines)


async def test_it_makes_machines_that_let_us_in_and_release_removes_them(kind: str, tmp_path: Path) -> None:
    before = Lab.names()
    seen: list[tuple[int, int]] = []
    fleet = LabFleet("python=/usr/bin/python3")
    try:
        hosts = await fleet.provision(request(3), lambda done, total: seen.append((done, total)))
        assert [host.name for host in hosts] == ["lab-001", "lab-002", "lab-003"]
        assert len({host.address for host in hosts}) == 3 and seen[-1] == (3, 3)
        for host in hosts:
            assert host.python == "/usr/bin/python3" and host.key and host.port and host.user
            done = ssh(
                tmp_path, host.address, host.port, host.user, Path(host.key), host.host_keys, "echo here"
            )
            assert done.stdout == "here\n", done.stderr
        assert "PRIVATE KEY" in (fleet.relay_key or "")
        assert os.stat(hosts[0].key or "").st_mode & 0o777 == 0o600
        assert ("share" in fleet.limits) == (kind == "loopback")
    finally:
        await fleet.release()
    assert Lab.names() == before and fleet.relay_key is None
    await fleet.release()


async def test_five_machines_when_none_are_asked_for(kind: str) -> None:
    fleet = LabFleet()
    try:
        assert len(await fleet.provision(request(None), lambda *_: None)) == 5
    finally:
        await fleet.release()


async def test_a_lab_that_is_up_is_used_and_stays(kind: str) -> None:
    with Lab.up(2, name="standing") as standing:
        fleet = LabFleet("name=standing")
        hosts = await fleet.provision(request(None), lambda *_: None)
        assert [host.address for host in hosts] == [host.address for host in standing.hosts]
        assert len(await fleet.provision(request(1), lambda *_: None)) == 1
        await fleet.release()
        assert "standing" in Lab.names()
        with pytest.raises(FleetError, match="only 2 hosts of 3"):
            await fleet.provision(request(3), lambda *_: None)


async def test_a_lab_that_is_not_up_is_an_error_and_is_made_only_where_that_is_said(kind: str) -> None:
    typo = LabFleet("name=standin")
    with pytest.raises(UsageError, match=r"no lab named standin .*lab up --name standin.*lab:new=standin"):
        await typo.provision(request(1), lambda *_: None)
    await typo.release()
    assert "standin" not in Lab.names()
    new = LabFleet("new=standin")
    try:
        await new.provision(request(1), lambda *_: None)
        assert "standin" in Lab.names()
        second = LabFleet("new=standin")
        with pytest.raises(FanoutError, match="standin"):
            await second.provision(request(1), lambda *_: None)
        await second.release()
        assert "standin" in Lab.names()
    finally:
        await new.release()
    assert "standin" not in Lab.names()


async def test_release_after_an_interrupted_provision_leaves_nothing(kind: str) -> None:
    before = Lab.names()
    fleet = LabFleet()
    provision = asyncio.create_task(fleet.provision(request(3), lambda *_: None))
    await asyncio.sleep(0)
    provision.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await provision
    await fleet.release()
    assert Lab.names() == before


async def test_without_isolation_what_cannot_be_done_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_sshd()
    monkeypatch.setattr(isolated, "why_not", lambda: "this needs root")
    with pytest.raises(FleetError, match="this needs root"):
        Lab.up(1, isolated_hosts=True)
    with Lab.up(2) as lab:
        impossible: list[Callable[..., object]] = [
            lab.power_cut,
            lab.link_down,
            lab.link_up,
            lab.changed_files,
        ]
        for attempt in impossible:
            with pytest.raises(FleetError, match="run as root"):
                attempt(lab.hosts[0])
        assert "this needs root" in lab.limits
    fleet = LabFleet("rate=10mbit")
    with pytest.raises(FleetError, match=r"rate=10mbit.*run as root"):
        await fleet.provision(request(1), lambda *_: None)
    await fleet.release()


@pytest.mark.parametrize(
    "spec", ["x", "x=1", "name=", "cpu=fast", "cpu=0", "cpu=nan", "rate=10", "name=a,name=b", "name=a b",
             "name=a,new=b", "name=a,rate=10mbit", "name=a,cpu=1", "new=a b"]
)
def test_a_bad_spec_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError):
        LabFleet(spec)
