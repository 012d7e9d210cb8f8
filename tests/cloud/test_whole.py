"""Runs on machines of the cloud, for real: hosts of a lab that boot when they are launched, and end when told to."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanout.agent.core import machineset
from fanout.fleets import open_fleet
from fanout.fleets.base import Request
from fanout.root.outcomes import Outcome
from tests.cloud.cloud import REGION, Cloud
from tests.cloud.conftest import enter
from tests.cloud.hosts import LabMachines
from tests.root.trees import outputs, run, session

pytestmark = pytest.mark.lab

TTL, IDLE = 600, 200  # s
FLEET = f"aws:region={REGION},root_address=10.213.0.0/16,ttl={TTL}s,idle={IDLE}s,ready_timeout=2m"
TIMEOUT = 120.0  # s for any one thing to come about, on a busy machine

SCENARIO = """
from fanout import scenario

@scenario
async def tested(fleet):
    done = await fleet.run("echo {address} $(hostname -I) $(whoami)")
    for machine, words in ((machine, one.stdout.split()) for one in done for machine in one.machines):
        assert words == [machine.address, machine.address, "ubuntu"], words
    fleet.report("all are here")
    await fleet.run("sleep SECONDS", timeout="5m")
"""

IMPOSTOR = b"""
cd /etc/ssh/fanout && rm host_key host_key.pub && ssh-keygen -q -t ed25519 -N '' -f host_key
rm host_key-cert.pub && sed -i '/^HostCertificate/d' /etc/ssh/sshd_config
"""
"""It has the run's mark, as anybody could, and no host key that the run's authority has signed."""


@pytest.fixture
def hosts(machines: Callable[..., LabMachines]) -> LabMachines:
    return machines(4)


@pytest.fixture
def account(hosts: LabMachines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(hosts) as cloud:
        enter(cloud, monkeypatch, tmp_path)
        monkeypatch.setenv("TMPDIR", str(tmp_path))  # a root that is killed leaves its throw-away keys there
        yield cloud


def fanout(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "fanout.cli", *arguments], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def scenario(folder: Path, seconds: int) -> list[str]:
    path = folder / "tested.py"
    path.write_text(SCENARIO.replace("SECONDS", str(seconds)))
    return ["run", str(path), "--run-dir", str(folder / "run"), "--fleet", FLEET]


def wait(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_run_on_machines_that_it_launches_behind_a_relay(
    hosts: LabMachines, account: Cloud, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def look(number: int, call: Any) -> None:
        if call.action == "TerminateInstances" and call.parameters.get("DryRun") != "true" and not seen:
            seen["tokens"] = {one.metadata_options.http_tokens for one in account.instances()}
            [group] = account.groups()
            seen["rules"] = {(rule.ip_protocol, rule.to_port, rule.ip_range.get("CidrIp"),
                              rule.source_group.get("GroupId") == group.id) for rule in group.ingress_rules}

    account.before = look
    done = fanout(*scenario(tmp_path, 0), "-n", "4", "--relays", "1")
    said, _ = done.communicate(timeout=TIMEOUT)
    assert done.returncode == 0, said
    assert "launched 4, terminated 4" in said and "all are here" in said and "1 relay, depth 2" in said
    assert account.left() == [] and not any(hosts.runs(address) for address in hosts.hosts)
    assert seen["tokens"] == {"required"}
    assert seen["rules"] == {("-1", None, None, True), ("tcp", 22, "10.213.0.0/16", False)}


BOOTS = """
from fanout import scenario

@scenario
async def tested(fleet):
    done = await fleet.run("echo {address}")
    assert sorted(m.address for one in done for m in one.machines) == sorted(m.address for m in fleet)
    fleet.report(f"all {len(fleet)} are here")
"""


def connected(hosts: LabMachines, number: int) -> list[str]:
    """The agents' logins on machine 1, 2, 3 ..."""
    host = list(hosts.hosts.values())[number - 1]
    return [text for text in hosts.lab.processes(host).values() if "sshd: ubuntu" in text]


def test_a_relay_has_its_first_child_while_another_machine_boots(
    hosts: LabMachines, account: Cloud, tmp_path: Path
) -> None:
    hosts.held = {1, 4}
    path = tmp_path / "tested.py"
    path.write_text(BOOTS)
    root = fanout("run", str(path), "--run-dir", str(tmp_path / "run"), "--fleet", FLEET, "-n", "4", "--relays", "1")
    try:
        # A machine that boots is no relay, although it is the first: its subtree would wait for it.
        wait(lambda: len(hosts.hosts) == 4 and connected(hosts, 2) and connected(hosts, 3), "the relay has no child")
        assert root.poll() is None and not connected(hosts, 1) and not connected(hosts, 4)
        hosts.power_on(4)
        hosts.power_on(1)
        said, _ = root.communicate(timeout=TIMEOUT)
    finally:
        root.kill()
        root.wait()
    assert root.returncode == 0, said
    assert "machines are ready: they are connected while the others boot" in said and "all 4 are here" in said
    assert "launched 4, terminated 4" in said and "1 relay, depth 2" in said and "at most" in said
    assert account.left() == []


def test_a_run_that_is_interrupted_while_machines_boot_ends_them_all(
    hosts: LabMachines, account: Cloud, tmp_path: Path
) -> None:
    hosts.held = {3}
    root = fanout(*scenario(tmp_path, 0), "-n", "3", "--relays", "1", "--keep", "10m")
    try:
        wait(lambda: len(hosts.hosts) == 3 and connected(hosts, 2), "the relay has no child")
        root.send_signal(signal.SIGINT)
        said, _ = root.communicate(timeout=TIMEOUT)
    finally:
        root.kill()
        root.wait()
    assert root.returncode == 130 and "launched 3, terminated 3" in said, said
    assert account.left() == []


async def test_a_machine_with_another_host_key_is_refused_by_the_root_and_by_relays(
    hosts: LabMachines, account: Cloud
) -> None:
    hosts.alter = lambda number, user_data: user_data + IMPOSTOR * (number == 3)
    fleet = open_fleet(FLEET)
    try:
        given = await fleet.provision(Request("r1", 3), lambda done, total: None)
        for parents in [None, None, None], [None, 0, 0]:
            async with session(given, parents, relay_key=fleet.relay_key) as up:
                assert up.down.keys() == {2} and up.down[2][0] == Outcome.HOST_KEY, (parents, up.down)
                assert set(outputs(await run(up, up.up, shell="true"))) == set(machineset.members(0b011))
    finally:
        await fleet.release()
    assert account.left() == []


def test_without_the_root_machines_end_by_their_lease_and_at_the_latest_by_their_time(
    hosts: LabMachines, account: Cloud, tmp_path: Path
) -> None:
    root = fanout(*scenario(tmp_path, 200), "-n", "3", "--relays", "1", "--lease", "8s")
    assert root.stdout is not None
    try:
        said = ""
        while "all are here" not in said:
            line = root.stdout.readline()
            assert line, said
            said += line
    finally:
        root.send_signal(signal.SIGKILL)
        root.communicate(timeout=TIMEOUT)
    addresses = list(hosts.hosts)

    def agents() -> list[str]:
        return [text for address in addresses for text in hosts.lab.processes(hosts.hosts[address]).values()
                if "sshd: ubuntu" in text or "python3" in text or "sleep 200" in text]

    wait(lambda: not agents(), "agents outlive their lease")
    # Where an agent's folder is, an agent may be: that machine is not idle.
    [run_id] = {tag["value"] for one in account.instances() for tag in one.get_tags() if tag["key"] == "fanout:run"}
    keeps = addresses[0]
    hosts.lab.run_in(hosts.hosts[keeps], ["mkdir", f"/tmp/fanout-{run_id}-x"])
    hosts.pass_time(IDLE)
    wait(lambda: len(account.instances("running")) == 1, "machines without an agent stay")
    assert hosts.runs(keeps)
    hosts.pass_time(TTL - IDLE + 60)
    wait(lambda: not account.instances(), "a machine stays beyond its time")
    assert len(account.left()) == 1, "only the security group is left"

    def reap(*more: str) -> str:
        done = fanout("reap", "--fleet", FLEET, *more)
        told, _ = done.communicate(timeout=TIMEOUT)
        assert done.returncode == 0, told
        return told

    assert list(tmp_path.glob("fanout-aws-*/login")), "the killed root's throw-away key"
    reap()
    assert list(tmp_path.glob("fanout-aws-*")), "only shown"
    assert "keys of 1 killed run removed" in reap("--yes")
    assert len(account.left()) == 1, "its time is not over"
    assert not list(tmp_path.glob("fanout-aws-*"))
    account.tagged(lambda name, value: "2020-01-01T00:00:00Z" if name == "fanout:expires" else value)
    assert "1 security group" in reap("--yes")
    assert account.left() == []
