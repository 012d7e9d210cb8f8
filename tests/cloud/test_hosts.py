"""Instances that are hosts of a lab boot, run their user data, and switch themselves off."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from fanout.fleets.openssh import keypair
from tests.cloud.cloud import IMAGE, Cloud
from tests.cloud.conftest import enter
from tests.cloud.hosts import LabMachines
from tests.sshd_client import ssh

pytestmark = pytest.mark.lab

USER_DATA = """#!/bin/sh
mkdir -p /root/.ssh
echo '{key}' > /root/.ssh/authorized_keys
systemctl restart ssh
shutdown -P +1
echo ready > /run/ready
"""


def wait(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20.0
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_an_instance_runs_its_user_data_lets_us_in_and_ends_by_its_own_timer(
    machines: Callable[..., LabMachines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = machines(2)
    hosts.alter = lambda number, data: data if number == 1 else data + b"shutdown -c; poweroff"
    with Cloud(hosts) as cloud:
        enter(cloud, monkeypatch, tmp_path)
        launched = boto3.client("ec2").run_instances(
            ImageId=IMAGE, InstanceType="t3.small", MinCount=2, MaxCount=2,
            InstanceInitiatedShutdownBehavior="terminate",
            UserData=USER_DATA.format(key=keypair(tmp_path / "id")))["Instances"]
        first, second = (one["PrivateIpAddress"] for one in launched)
        wait(lambda: not hosts.runs(second), "the second does not switch itself off")
        wait(lambda: Path(f"/proc/{hosts.hosts[first].pid}/root/run/ready").exists(), "user data does not end")
        key = (hosts.read(first, "etc/ssh/ssh_host_ed25519_key.pub").strip(),)
        done = ssh(tmp_path, first, 22, "root", tmp_path / "id", key, "ip -4 -o address show eth0; ls /run/cloud")
        assert f" {first}/" in done.stdout and "timer" in done.stdout, done.stderr
        assert [one.private_ip_address for one in cloud.instances("running")] == [first]
        hosts.pass_time(59)
        assert hosts.runs(first)
        hosts.pass_time(1)
        wait(lambda: not cloud.instances(), "the timer does not switch the first off")
        assert cloud.left() == []
