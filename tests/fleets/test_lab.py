"""Isolated hosts: each a machine of its own, that can be cut off, powered off, looked into, and removed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fanout.errors import FleetError, UsageError
from fanout.fleets import openssh
from fanout.fleets.lab import Lab, LabHost, disk, isolated, quota, state, switch
from tests.leftovers import named
from tests.patience import eventually
from tests.sshd import missing, need_isolation, need_sshd
from tests.sshd_client import ssh

pytestmark = pytest.mark.lab

Labs = Callable[..., Lab]


def login(lab: Lab, host: LabHost, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return ssh(folder, host.address, host.port, host.user, lab.key, host.host_keys, *command)


def banner(host: LabHost, timeout: float) -> socket.socket:
    """A connection to the host's sshd, which has said its name."""
    connection = socket.create_connection((host.address, host.port), timeout=timeout)
    assert connection.recv(4) == b"SSH-"
    return connection


def traces(name: str) -> list[str]:
    """What of a lab is there."""
    folder = state.folder(name)
    there = [entry for entry in named() if Path(entry).name == switch.tag(folder)]
    there += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    return there + [str(pid) for pid in isolated.inside(folder)] + ([str(folder)] if folder.exists() else [])


def test_each_host_is_a_machine_of_its_own(lab: Labs, tmp_path: Path) -> None:
    here = lab(3)
    assert [host.name for host in here.hosts] == ["lab-001", "lab-002", "lab-003"]
    assert len({host.host_keys for host in here.hosts}) == len({host.address for host in here.hosts}) == 3
    for host in here.hosts:
        done = login(here, host, tmp_path, "hostname; cat /etc/hostname; ls /tmp /run; echo /proc/[0-9]*")
        lines = done.stdout.split()
        assert lines[:2] == [host.name, host.name], done.stderr
        # Its own processes only, from its init (1), and nothing of the machine's /tmp and /run.
        assert "/proc/1" in lines and f"/proc/{os.getpid()}" not in lines
        assert str(here.key.parent.name) not in done.stdout


def test_a_host_with_another_key_is_not_taken_for_it(lab: Labs, tmp_path: Path) -> None:
    here = lab(2)
    one, two = here.hosts
    done = ssh(tmp_path, one.address, one.port, one.user, here.key, two.host_keys, "true")
    assert "Host key verification failed" in done.stderr


def test_hosts_reach_each_other_by_name_and_know_the_default_limits(lab: Labs) -> None:
    here = lab(2)
    probe = "import socket; print(socket.create_connection(('lab-002', 22), 10).recv(4))"
    done = here.run_in(here.hosts[0], ["python3", "-c", probe])
    assert done.stdout == "b'SSH-'\n", done.stderr
    limits = here.run_in(here.hosts[0], ["/usr/sbin/sshd", "-T", "-f", "/run/sshd/config"]).stdout
    assert "maxstartups 10:30:100" in limits and "maxsessions 10\n" in limits


def test_files_of_a_host_stay_in_it_and_can_be_listed(lab: Labs, tmp_path: Path) -> None:
    here = lab(2)
    one, two = here.hosts
    assert here.changed_files(one) == []
    command = "touch /root/a /tmp/b; mkdir /var/tmp/c /dev/shm/d; echo >> /etc/passwd; rm /etc/hosts"
    assert login(here, one, tmp_path, command).returncode == 0
    expected = ["/dev/shm/d", "/etc/hosts (deleted)", "/etc/passwd", "/root/a", "/tmp/b", "/var/tmp/c"]
    assert here.changed_files(one) == expected
    assert here.changed_files(two) == []
    assert not Path("/root/a").exists()
    login(here, two, tmp_path, "mkdir /root/x /tmp/x; touch /root/x/f; rm -r /root/x /tmp/x")
    assert here.changed_files(two) == []


def test_processes_of_a_host_can_be_listed(lab: Labs, tmp_path: Path) -> None:
    here = lab(2)
    login(here, here.hosts[0], tmp_path, "setsid sleep 600 >/dev/null 2>&1 </dev/null &")
    eventually(lambda: "sleep 600" in here.processes(here.hosts[0]).values())
    assert here.processes(here.hosts[1]) == {}


def test_a_power_cut_ends_all_processes_and_says_nothing_to_the_network(lab: Labs, tmp_path: Path) -> None:
    here = lab(2)
    victim, other = here.hosts
    login(here, victim, tmp_path, "setsid sleep 600 >/dev/null 2>&1 </dev/null &")
    with banner(victim, 10.0) as connection:
        here.power_cut(victim)
        assert here.processes(victim) == {} and openssh.wait_gone([victim.pid], 0.0) == []
        connection.setblocking(False)
        connection.recv(4096)  # the rest of its name
        with pytest.raises(BlockingIOError):  # neither an end nor a reset has come
            connection.recv(1)
    banner(other, 10.0).close()
    here.power_cut(victim)  # again is no error


def test_a_cut_link_is_a_partition_and_heals(lab: Labs) -> None:
    here = lab(2)
    cut, other = here.hosts
    here.link_down(cut)
    with pytest.raises(OSError):
        banner(cut, 0.2)
    assert here.run_in(cut, ["hostname"]).stdout == "lab-001\n"
    banner(other, 10.0).close()
    here.link_up(cut)
    banner(cut, 10.0).close()


def test_rate_caps_both_ends_of_the_link(lab: Labs) -> None:
    here = lab(1, rate="10mbit")
    inside = here.run_in(here.hosts[0], ["tc", "qdisc", "show", "dev", "eth0"]).stdout
    command = ["tc", "-n", switch.tag(here.key.parent), "qdisc", "show", "dev", switch.port(1)]
    outside = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "tbf" in inside and "rate 10Mbit" in inside
    assert "tbf" in outside and "rate 10Mbit" in outside


def test_cpu_caps_the_host_by_a_cgroup(lab: Labs) -> None:
    if not quota.controllers():
        missing("no cgroup `cpu` controller here")
    here = lab(1, cpu=0.5)
    tag = switch.tag(here.key.parent)
    assert f"/{tag}/lab-001" in Path(f"/proc/{here.hosts[0].pid}/cgroup").read_text()
    here.down()
    assert traces(here.name) == []


def test_labs_at_once_do_not_meet(lab: Labs) -> None:
    first, second = lab(1), lab(1)
    assert first.hosts[0].address != second.hosts[0].address
    first.down()
    banner(second.hosts[0], 10.0).close()


def test_another_process_finds_a_lab_and_takes_it_down(lab: Labs) -> None:
    here = lab(2, name="found")
    assert "found" in Lab.names()
    code = "from fanout.fleets.lab import Lab; lab = Lab.open('found'); print(len(lab.hosts)); lab.down()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr
    assert traces(here.name) == []
    here.down()  # again is no error


def test_a_name_is_taken_once(lab: Labs) -> None:
    lab(1, name="once")
    with pytest.raises(UsageError, match="once already"):
        Lab.up(1, name="once")
    assert len(Lab.open("once").hosts) == 1


@pytest.mark.parametrize("at", ["switch.make", "disk.mount", "disk.furnish_host", "isolated._built"])
def test_a_failure_half_way_leaves_nothing(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_isolation()
    need_sshd()
    module, _, function = at.partition(".")
    whole = {"switch": switch, "disk": disk, "isolated": isolated}[module]
    original = getattr(whole, function)

    def half(*arguments: object) -> None:
        made = original(*arguments)
        if function == "_built":
            next(made)
        raise FleetError("half-way")

    monkeypatch.setattr(whole, function, half)
    with pytest.raises(FleetError, match="half-way"):
        Lab.up(2, name="half")
    assert traces("half") == [] and "half" not in Lab.names()


@pytest.mark.parametrize("when", ["with its switch made", "with its first host up"])
def test_down_removes_what_a_killed_process_was_making(when: str) -> None:
    need_isolation()
    need_sshd()
    die = f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    code = "import os\nfrom fanout.fleets.lab import Lab, switch\n"
    if "switch" in when:
        code += f"made = switch.make\nswitch.make = lambda folder: (made(folder), {die})\n"
    code += f"Lab.up(3, name='crashed', ready=lambda count: {die})\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    crashed = Lab.open("crashed")
    assert traces("crashed")
    crashed.down()
    assert traces("crashed") == []


def test_a_bad_sshd_option_is_told_with_the_host(lab: Labs) -> None:
    with pytest.raises(FleetError, match=r"lab-001.*NoSuchOption"):
        lab(1, name="bad", sshd_options={"NoSuchOption": "1"})
    assert "bad" not in Lab.names()


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_a_lab_has_one_to_a_thousand_hosts(n: int) -> None:
    with pytest.raises(UsageError, match="1 to 1000"):
        Lab.up(n)


@pytest.mark.parametrize("rate", ["", "fast", "10", "0mbit", "10mbit; true", "-1mbit"])
def test_a_rate_is_a_link_speed(rate: str) -> None:
    with pytest.raises(UsageError, match="link speed"):
        switch.shape(rate)


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-x", "x" * 41])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a lab"):
        state.folder(name)


def test_names_fold() -> None:
    names = isolated.Plan(1000).names()
    assert names[0] == "lab-0001" and names[-1] == "lab-1000"
    assert isolated.Plan(5).names()[-1] == "lab-005"
