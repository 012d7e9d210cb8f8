"""The doctor: what would fail is found, with a remedy, and nothing stays behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fanout.cli.main import main
from fanout.fleets.base import Fleet, Host, Progress, Request
from fanout.fleets.openssh import LoopbackSshd, keypair
from fanout.root import doctor
from fanout.root.doctor import Finding, Level
from tests.root.trees import left, local, through

PROJECT = Path(__file__).parents[2]


def levels(findings: list[Finding]) -> list[str]:
    return [str(finding.level) for finding in findings]


class Given(Fleet):
    """These hosts; remembers that it was released."""

    name = "given"

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.released = 0

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        return self.hosts

    async def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok")])
def test_python_at_the_root(version: tuple[int, ...], level: str) -> None:
    assert doctor.python(version).level == level


def test_packages_that_are_missing_or_old_fail_with_what_to_install() -> None:
    missing, old = doctor.packages({"msgpack": "0.6.2"}.get)
    assert missing.level == old.level == "fail"
    assert "pip install 'asyncssh>=2.18'" in missing.remedy and "0.6.2" in old.text
    assert levels(doctor.packages({"msgpack": "1.1.0rc1", "asyncssh": "2.18.0"}.get)) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("answer", "level"),
    [((0, "OpenSSH_9.2p1 Debian-2, OpenSSL 3\n"), "ok"), ((0, "OpenSSH_6.6p1"), "warn"), ((0, "Dropbear"), "warn"),
     (None, "warn")],
)  # fmt: skip
def test_the_ssh_client(answer: tuple[int, str] | None, level: str) -> None:
    assert doctor.ssh_client(answer).level == level


def test_open_files_are_compared_with_the_machines() -> None:
    assert doctor.descriptors(10, 1024).level == "ok"
    few = doctor.descriptors(1000, 1024)
    assert few.level == "warn" and "ulimit -n 4128" in few.remedy
    assert doctor.descriptors(10**6, resource.RLIM_INFINITY).level == "ok"


def test_a_folder_for_runs_that_cannot_be_written_fails(tmp_path: Path) -> None:
    assert doctor.folder(tmp_path / "a/b/c").level in ("ok", "warn")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    found = doctor.folder(tmp_path / "file/runs")
    assert found.level == "fail" and "--run-dir" in found.remedy


def test_little_space_is_a_warning_and_none_fails() -> None:
    assert levels([doctor.space("x", free) for free in (5 << 30, 500 << 20, 1 << 20)]) == ["ok", "warn", "fail"]


def test_keys_that_cannot_log_in_are_told_why(tmp_path: Path) -> None:
    keypair(tmp_path / "good")
    keypair(tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "rubbish").write_text("no key\n")
    (tmp_path / "rubbish").chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked"], check=True)
    names = ("good", "locked", "none", "open", "rubbish")
    found = doctor.keys([Host(name, name, key=str(tmp_path / name)) for name in names], tmp_path, {})
    assert levels(found) == ["ok", "fail", "fail", "fail", "fail"]
    words = ["can be used", "has a passphrase", "cannot be read", "read by others", "no usable key"]
    assert all(word in one.text for word, one in zip(words, found, strict=True))
    assert "chmod 600" in found[3].remedy


def test_without_a_named_key_an_agent_or_a_key_of_the_user_is_needed(tmp_path: Path) -> None:
    host = [Host("a", "a")]
    assert levels(doctor.keys(host, tmp_path, {})) == ["warn"]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "id_ed25519"], check=True)
    [locked] = doctor.keys(host, tmp_path, {"SSH_AUTH_SOCK": str(tmp_path / "no agent")})
    assert locked.level == "warn" and "id_ed25519 has a passphrase" in locked.text
    keypair(tmp_path / "id_rsa")
    assert levels(doctor.keys(host, tmp_path, {})) == ["ok"]


def test_host_keys_that_are_not_known_are_named_with_the_command_to_add_them() -> None:
    hosts = [Host(f"n{i}", f"10.0.0.{i}", port=23) for i in range(4)]
    hosts[3] = Host("n3", "10.0.0.3", host_keys=("ssh-ed25519 A",))
    [found] = doctor.known(hosts, lambda host: ["line"] if host.name == "n0" else [])
    assert found.level == "warn" and found.text.endswith("n[1-2]")
    assert "ssh-keyscan -p 23 10.0.0.1" in found.remedy
    assert levels(doctor.known(hosts, lambda host: ["line"])) == ["ok"]


def test_many_machines_behind_one_jump_host_are_warned_of() -> None:
    hosts = [Host(f"n{i}", f"n{i}", jump="gate") for i in range(11)]
    [found] = doctor.jumps(hosts)
    assert found.level == "warn" and "11 machines" in found.text and "MaxStartups" in found.remedy
    assert doctor.jumps(hosts[:10]) == []


def answer(**options: Any) -> dict[str, Any]:
    limits = {"maxstartups": "10:30:100", "maxsessions": "10"}
    return {"python": "3.11.2", "base": "/tmp", "free": 5 << 30, "skew": 0.001, "sshd": limits, **options}


def test_what_machines_say_is_folded() -> None:
    answers: dict[str, dict[str, Any] | str] = {f"n{i}": answer() for i in range(20)}
    assert levels(doctor.survey(answers)) == ["ok"] * 4
    assert all("n[0-19]" in finding.text for finding in doctor.survey(answers))
    answers["n3"] = answer(free=1 << 20, python="3.8.1")
    answers["n4"] = answer(skew=-7.25, sshd={"maxstartups": "2:50:3", "maxsessions": "1"})
    answers["n5"] = answer(skew=None, sshd={})
    answers["n6"] = "it did not answer"
    bad = [finding for finding in doctor.survey(answers) if finding.level is not Level.OK]
    assert [(str(one.level), one.topic, one.text.rpartition(": ")[2]) for one in bad] == [
        ("fail", "command", "it did not answer"), ("fail", "space", "n3"), ("warn", "clock", "n4"),
        ("warn", "clock", "n5"), ("warn", "sshd", "n4"),
    ]  # fmt: skip
    assert all(one.remedy for one in bad) and "7.2 s" in bad[2].text


async def test_each_machine_is_visited_and_the_fleet_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fleet = Given([*local(2), Host("broken", "127.0.0.1", local=True, python="/no/such/python3")])
    findings = await doctor.visit(fleet, None, tmp_path, 20.0)
    visited = [(one.topic, str(one.level)) for one in findings if "local-[0-1]" in one.text]
    assert ("reach", "ok") in visited and ("python", "ok") in visited and ("clock", "ok") in visited
    [broken] = [one for one in findings if "broken" in one.text]
    assert broken.level == "fail" and "no python" in broken.text and "/no/such/python3" in broken.remedy
    assert fleet.released == 1 and left(tmp_path) == []


@pytest.mark.sshd
async def test_over_ssh_the_clock_and_the_limits_are_told(sshd: LoopbackSshd, tmp_path: Path) -> None:
    findings = await doctor.visit(Given(through(sshd, 2)), None, tmp_path, 20.0)
    told = {one.topic: one for one in findings if "host-[0-1]" in one.text}
    assert told["reach"].level == told["clock"].level == "ok" and "sshd" in told
    if os.geteuid() == 0:
        assert "MaxStartups" in told["sshd"].text


async def test_a_fleet_that_breaks_is_a_finding_and_is_released(tmp_path: Path) -> None:
    class Broken(Given):
        async def provision(self, request: Request, progress: Progress) -> list[Host]:
            raise ZeroDivisionError

        async def release(self) -> None:
            await super().release()
            raise OSError("no way back")

    broken = Broken([])
    with pytest.raises(ZeroDivisionError):
        await doctor.visit(broken, None, tmp_path, 5.0)
    assert broken.released == 1
    empty = Given([])
    findings = await doctor.visit(empty, None, tmp_path, 5.0)
    assert findings[-1].level == "fail" and "it has no machines" in findings[-1].text and empty.released == 1


# The command.


def fanout_doctor(*args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args])


def test_a_line_a_finding_and_the_exit_code_tells_whether_any_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = fanout_doctor()
    assert done.exit_code == 0, done.output
    assert all(line[:6] in ("ok    ", "warn  ", "      ") for line in done.stdout.splitlines())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    done = fanout_doctor()
    assert done.exit_code == 1 and "\nfail  state " in done.stdout and "-> " in done.stdout
    found = json.loads(fanout_doctor("--json").stdout)
    assert {"fail"} <= {one["level"] for one in found} and found[0].keys() == {"level", "topic", "text", "remedy"}


def test_a_fleet_that_cannot_be_meant_is_a_usage_error() -> None:
    assert fanout_doctor("--fleet", "nowhere:x").exit_code == 2


def test_a_program_that_makes_no_machines_is_a_failure(tmp_path: Path) -> None:
    program = tmp_path / "make"
    program.write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/calls.txt; echo no rights >&2; [ $1 = down ]\n")
    program.chmod(0o755)
    done = fanout_doctor("--fleet", f"exec:{program}")
    assert done.exit_code == 1 and "failed with exit code 1" in done.stdout and "note: make: no rights" in done.stderr
    assert (tmp_path / "calls.txt").read_text() == "up\ndown\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_doctor_that_is_interrupted_removes_what_was_made(number: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "make"
    program.write_text(f"#!/bin/sh\n[ $1 = down ] && exec touch {tmp_path}/down\necho up >&2; sleep 100\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "fanout.cli", "doctor", "--fleet", f"exec:{program}"]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "note: make: up\n"
        process.send_signal(number)
        assert process.wait(30) == 130
        assert process.stderr.read() == "fanout: interrupted\n"
    assert (tmp_path / "down").exists()
