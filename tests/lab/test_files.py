"""Files to hosts with disks of their own: a full one costs that machine its file, and nobody else's."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fanout.agent.core.node import DONE
from fanout.fleets.lab import Lab
from fanout.fleets.lab.ground import LabHost
from fanout.root.outcomes import RunOutcome
from fanout.root.shipping import Source
from tests.lab.test_trouble import Labs, on
from tests.root.trees import until
from tests.scenario.play import play, write

pytestmark = pytest.mark.lab

SIZE = 12 << 20  # bytes of the file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def hosts_file(lab: Lab, folder: Path) -> Path:
    """The hosts of a lab as machines that exist, with their keys known to who has `folder` as home."""
    (folder / ".ssh").mkdir()
    (folder / ".ssh/known_hosts").write_text(
        "".join(f"{host.address} {key}\n" for host in lab.hosts for key in host.host_keys))
    path = folder / "hosts"
    path.write_text("".join(
        f"{host.user}@{host.address} key={lab.key} name={host.name}\n" for host in lab.hosts))
    return path


def small_disk(lab: Lab, host: LabHost, at: str, size: str) -> None:
    done = lab.run_in(host, ["sh", "-c", f"mkdir -p {at} && mount -t tmpfs -o size={size} tmpfs {at}"])
    assert not done.returncode, done.stderr


def check_whole(lab: Lab, hosts: list[LabHost], path: str, source: Path) -> None:
    want = hashlib.sha256(source.read_bytes()).hexdigest()
    for host in hosts:
        assert lab.run_in(host, ["sha256sum", path]).stdout.split()[:1] == [want], host.name


def test_copy_names_the_machine_whose_disk_is_full_with_cause_and_remedy_and_the_others_have_it(
        lab: Labs, source: Path, tmp_path: Path) -> None:
    here = lab(4)
    full = here.hosts[2]
    small_disk(here, full, "/mnt", "4m")
    done = subprocess.run(
        [sys.executable, "-m", "fanout.cli", "copy", "--json", "-q", "-w", f"@{hosts_file(here, tmp_path)}",
         str(source), "/mnt/file"],
        capture_output=True, env={**os.environ, "HOME": str(tmp_path)}, timeout=90)
    machines = {machine["name"]: machine for machine in json.loads(done.stdout)["machines"]}
    assert (done.returncode, done.stderr) == (1, b"")
    assert {name for name, machine in machines.items() if machine["outcome"] != "ok"} == {full.name}
    assert machines[full.name]["reason"] == (
        "cannot put it at /mnt/file: No space left on device; free some there, or choose another place")
    check_whole(here, [host for host in here.hosts if host is not full], "/mnt/file", source)
    assert here.run_in(full, ["ls", "-A", "/mnt"]).stdout == "", "nothing half done stays"


async def test_ship_names_it_too_and_the_others_have_it(
        lab: Labs, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = lab(4)
    full = here.hosts[0]
    small_disk(here, full, "/mnt", "4m")
    monkeypatch.setenv("HOME", str(tmp_path))
    scenario = write(tmp_path, f"""
        with pytest.raises(ShipFailed) as failure:
            await fleet.ship({str(source)!r}, "/mnt/file")
        assert [one.machine for one in failure.value.failures] == [{full.name!r}]
        assert "No space left on device; free some there" in str(failure.value)
    """)
    result, _ = await play(scenario, fleet=f"hosts:{hosts_file(here, tmp_path)}", machines=4)
    assert result.outcome is RunOutcome.PASSED, result.reason
    check_whole(here, here.hosts[1:], "/mnt/file", source)


@pytest.mark.parametrize("when", ["from the start", "in the middle"])
async def test_through_a_relay_without_room_its_children_get_all_of_it(lab: Labs, source: Path, when: str) -> None:
    """Without room it passes on from memory; a file that was begun is passed on as far as it came."""
    here = lab(4, rate="200mbit")
    relay = here.hosts[0]
    small_disk(here, relay, "/mnt", "2m" if when == "from the start" else "40m")
    small_disk(here, relay, "/root/.cache", "2m")
    async with on(here, [None, 0, 0, 0], folder="/mnt") as up:
        assert up.down == {}
        sending = Source(source)
        pump = up.shipping.pump
        if when == "in the middle":  # of which the root sends no more until the disk is full
            up.shipping.pump = lambda: up.shipping.sent <= SIZE // 4 and pump()  # type: ignore[method-assign]
        call = up.shipping.ship(sending, up.up, "/mnt/file", None)
        if when == "in the middle":
            await until(lambda: up.shipping.sent > SIZE // 4)
            assert not call.heard(DONE)
            await asyncio.to_thread(here.run_in, relay, ["sh", "-c", "cat /dev/zero > /mnt/other"])
            up.shipping.pump = pump  # type: ignore[method-assign]
            up.kick()
        assert await call.wait(DONE, timeout=60.0)
        reason = "cannot put it at /mnt/file: No space left on device; free some there, or choose another place"
        assert sorted(call.groups(DONE)) == [(0b0001, ["failed", reason]), (0b1110, ["ok", ""])]
        up.shipping.over(call)
        sending.close()
        check_whole(here, here.hosts[1:], "/mnt/file", source)
    assert up.problems == []
    assert here.run_in(relay, ["ls", "-A", "/mnt"]).stdout.split() == ["other"][: when == "in the middle"]
