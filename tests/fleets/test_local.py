"""The local fleet: machines on this one, which do not collide with each other."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from fanout import names
from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Host, Request
from fanout.fleets.lab.lab import Lab
from fanout.fleets.local import MAX_MACHINES, LocalFleet


async def provision(machines: int | None, roles: dict[str, int] | None = None, run: str = "r1") -> list[Host]:
    return await LocalFleet("").provision(Request(run, machines, roles or {}), lambda ready, wanted: None)


async def test_machines_are_local_and_run_this_python() -> None:
    hosts = await provision(3)
    assert names.fold(h.name for h in hosts) == "local-[0-2]"
    assert all(h.local and h.python == sys.executable and h.role is None for h in hosts)


async def test_the_number_is_what_is_asked_for_or_what_roles_need_or_two() -> None:
    assert len(await provision(None)) == 2
    assert len(await provision(None, {"a": 3, "b": 4})) == 7
    assert len(await provision(9, {"a": 3})) == 9
    with pytest.raises(UsageError, match="cannot fill the roles"):
        await provision(2, {"a": 3})
    with pytest.raises(UsageError, match="at most"):
        await provision(MAX_MACHINES + 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has the whole of 127/8")
async def test_on_linux_all_can_listen_on_one_port() -> None:
    hosts = await provision(300)
    assert len({h.address for h in hosts}) == 300
    listening = []
    try:
        port = 0
        for host in (hosts[0], hosts[1], hosts[254], hosts[255], hosts[299]):
            listening.append(socket.create_server((host.address, port)))
            port = listening[0].getsockname()[1]
    finally:
        for each in listening:
            each.close()


async def test_elsewhere_the_only_loopback_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert {h.address for h in await provision(3)} == {"127.0.0.1"}


def test_elsewhere_there_is_no_lab_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT_LAB_STATE", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(FleetError, match="a lab needs Linux"):
        Lab.up(2, isolated_hosts=False)
    assert list(tmp_path.iterdir()) == []


async def test_the_last_machine_has_an_address_and_none_is_of_127_0() -> None:
    for run in ("a", "b", "c"):
        hosts = await provision(MAX_MACHINES, run=run)
        last = hosts[-1].address.split(".")
        assert last[0] == "127"
        assert last[1] != "0"
        assert last[2:] == ["255", "254"]


def test_further_text_is_refused() -> None:
    with pytest.raises(UsageError, match="local:5"):
        LocalFleet("5")


async def test_release_does_nothing_however_often() -> None:
    fleet = LocalFleet("")
    await fleet.release()
    await fleet.release()
    assert fleet.relay_key is None
