"""A root that is killed, for real: `fanout ls` tells it, and `fanout down` leaves nothing, well before the lease."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fanout.cli.main import main
from fanout.fleets.lab import Lab
from fanout.fleets.openssh import LoopbackSshd
from tests.sshd import need_isolation, need_sshd

REPO = Path(__file__).parents[2]
PATIENCE = 90.0  # s; a bound: a second on an idle machine
LEASE = "300s"  # none of these tests is saved by it

SCENARIO = """\
import asyncio
from fanout import Fleet, scenario

@scenario
async def holds(fleet: Fleet):
    await fleet.spawn("setsid sleep 1000 & sleep 1000", name="p")
    agents = await fleet.run("echo $PPID")
    fleet.report("holding", agents=[agents[machine].stdout.strip() for machine in fleet])
    await asyncio.sleep(1000)

@scenario
async def fails(fleet: Fleet):
    assert False, "as it should"

@scenario
async def passes(fleet: Fleet):
    pass
"""

Left = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are kept, with a scenario in it."""
    (tmp_path / "s.py").write_text(SCENARIO)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fanout(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def listed() -> list[dict[str, Any]]:
    return list(json.loads(fanout("ls", "--json").stdout))


def start(*args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fanout.cli", "run", "s.py", "holds", "--lease", LEASE, *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def await_report(name: str = "holding") -> dict[str, Any]:
    """The report of the newest run, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for path in Path("state/fanout/runs/latest").glob("reports.jsonl"):
            found = [json.loads(line) for line in path.read_text().splitlines()]
            if found and found[0]["text"] == name:
                return dict(found[0]["fields"])
        time.sleep(0.02)
    raise AssertionError("the scenario did not begin")


@contextmanager
def killed(*args: str) -> Iterator[tuple[str, list[int]]]:
    """A run that is under way, and whose root is then gone: its id, and its agents."""
    root = start(*args)
    try:
        agents = [int(pid) for pid in await_report()["agents"]]
    finally:
        root.kill()
        root.wait()
    [run] = listed()
    assert run["state"] == "died" and run["outcome"] is None and run["holds"]
    yield run["run"], agents
    assert listed()[0]["holds"] == ""
    again = fanout("down", "last")
    assert again.exit_code == 0 and "nothing is left" in again.stdout


def of_run(run: str) -> list[str]:
    """Processes that carry the run's mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FANOUT_PROCESS={run}/".encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def assert_nothing_left(run: str, agents: list[int]) -> None:
    assert of_run(run) == [] and list(Path(tempfile.gettempdir()).glob(f"fanout-{run}-*")) == []
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}/stat").exists() for pid in agents):
        assert time.monotonic() < deadline, "agents that do not end"
        time.sleep(0.02)


def test_what_a_killed_root_left_on_local_machines_is_ended_by_its_agents_or_swept_after_them() -> None:
    with killed("-n", "4", "--relays", "1") as (run, agents):
        os.kill(agents[0], signal.SIGKILL)  # the relay; and what it had started in a session of its own is left
        os.kill(agents[3], signal.SIGKILL)
        assert of_run(run)
        done = fanout("down", run[:-2], "--yes")
        assert done.exit_code == 0, done.output
        assert done.stdout == "cleaned: 4 machines: local-[0-3]\n"
        assert_nothing_left(run, agents)


def test_without_a_terminal_it_wants_a_yes() -> None:
    with killed("-n", "1") as (run, agents):
        done = fanout("down", "last")
        assert done.exit_code == 2 and "--yes" in done.stderr and of_run(run)
        assert fanout("down", "last", "-y").exit_code == 0
        assert_nothing_left(run, agents)


def test_a_run_that_is_under_way_is_left_alone() -> None:
    root = start("-n", "1")
    try:
        await_report()
        [run] = listed()
        assert (run["state"], run["pid"]) == ("running", root.pid)
        done = fanout("down", "last", "--yes")
        assert done.exit_code == 1 and f"kill {root.pid}" in done.stderr
        assert listed()[0]["state"] == "running"
    finally:
        root.send_signal(signal.SIGINT)
        root.wait()
    [run] = listed()
    assert (run["state"], run["outcome"], run["holds"]) == ("ended", "interrupted", "")


@pytest.mark.sshd
def test_over_ssh_what_cannot_be_reached_is_told_and_tried_again(sshd: LoopbackSshd, home: Path) -> None:
    line = f'{sshd.user}@127.1.9.{{}}:{sshd.port} name=n{{}} key={sshd.key} host_key="{sshd.host_keys[0]}"\n'
    (home / "nodes.txt").write_text("".join(line.format(i, i) for i in (1, 2, 3)))
    with killed("--fleet", "hosts:nodes.txt") as (run, _):
        path = Path("state/fanout/runs", run, "machines.json")
        assert path.stat().st_mode & 0o777 == 0o600 and "PRIVATE" not in path.read_text()
        right = path.read_text()
        path.write_text(right.replace('"127.1.9.2"', '"no-such-host.invalid"'))
        done = fanout("down", "last", "--yes", "--connect-timeout", "2s")
        assert done.exit_code == 1
        assert "cleaned: 2 machines: n[1,3]\nnot cleaned: n2: unreachable: " in done.stdout
        assert listed()[0]["left"] == ["n2"] and len(listed()[0]["machines"]) == 3
        path.write_text(path.read_text().replace('"no-such-host.invalid"', '"127.1.9.2"'))
        done = fanout("down", "last", "--yes")
        assert (done.exit_code, done.stdout) == (0, "cleaned: 1 machine: n2\n")
    deadline = time.monotonic() + PATIENCE
    while sshd.processes():
        assert time.monotonic() < deadline, "left behind"
        time.sleep(0.05)
    assert_nothing_left(run, [])


@pytest.mark.lab
def test_a_lab_that_was_made_for_the_run_goes_with_it() -> None:
    need_sshd()
    need_isolation()
    with killed("--fleet", "lab", "-n", "5", "--relays", "2") as (_, _):
        [name] = Lab.names()
        assert f"lab {name}" in listed()[0]["holds"]
        done = fanout("down", "last", "--yes")
        assert (done.exit_code, done.stdout) == (0, f"released: lab {name} removed\n")
        assert Lab.names() == []


@pytest.mark.lab
def test_a_lab_that_was_there_before_is_cleaned_and_stays(lab: Callable[..., Lab]) -> None:
    here = lab(3)
    with killed("--fleet", f"lab:name={here.name}", "--relays", "1"):
        done = fanout("down", "last", "--yes")
        assert (done.exit_code, done.stdout) == (0, "cleaned: 3 machines: lab-[001-003]\n")
        assert all(here.changed_files(host) == [] for host in here.hosts)
    deadline = time.monotonic() + PATIENCE
    while any("sshd" not in title for host in here.hosts for title in here.processes(host).values()):
        assert time.monotonic() < deadline, "processes are left on its hosts"
        time.sleep(0.05)


@pytest.mark.lab
def test_a_lab_of_the_same_name_that_was_made_since_is_not_touched() -> None:
    need_sshd()
    need_isolation()
    with killed("--fleet", "lab:new=down-test", "-n", "1"):
        Lab.open("down-test").down()
        with Lab.up(1, name="down-test"):
            assert listed()[0]["holds"] == ""
            done = fanout("down", "last", "--yes")
            assert (done.exit_code, done.stdout) == (0, "released: lab down-test is gone\n")
            assert Lab.names() == ["down-test"]


MAKER = """#!/bin/sh
case $1 in
up) echo $$ > pid; echo '{"address": "127.1.9.9"}'; exec sleep 1000 ;;
down) cat > down; [ -e may ] || exit 5 ;;
esac
"""


def test_a_program_that_had_made_machines_is_called_to_remove_them_until_it_has(home: Path) -> None:
    """The root is killed while `up` is at work: what it had printed until then is what `down` gets."""
    (home / "maker").write_text(MAKER)
    (home / "maker").chmod(0o755)
    root = start("--fleet", "exec:./maker")
    deadline = time.monotonic() + PATIENCE
    record = Path("state/fanout/runs/latest/machines.json")
    while not (record.exists() and "127.1.9.9" in record.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    root.kill()
    root.wait()
    os.kill(int((home / "pid").read_text()), signal.SIGTERM)
    assert listed()[0]["holds"] == "machines of maker"
    done = fanout("down", "last", "--yes")
    assert done.exit_code == 1 and "not released: " in done.stdout and "exit code 5" in done.stdout
    assert listed()[0]["holds"] == "machines of maker"
    (home / "may").touch()
    done = fanout("down", "last", "--yes")
    assert (done.exit_code, done.stdout) == (0, "released: maker down was called\n")
    assert (home / "down").read_text() == '{"address": "127.1.9.9"}\n'
    assert listed()[0]["holds"] == ""


# Machines that are kept.


@pytest.mark.lab
def test_after_a_failure_a_lab_is_kept_and_lets_its_user_in_until_it_is_taken_down(home: Path) -> None:
    need_sshd()
    need_isolation()
    done = fanout("run", "s.py", "fails", "--fleet", "lab", "-n", "2", "--keep", "1ms")
    try:
        assert done.exit_code == 1 and "kept until" in done.stderr and "fanout down" in done.stderr
        command = next(line.strip() for line in done.stderr.splitlines() if line.startswith("  ssh "))
        assert subprocess.check_output([*command.split(), "-o", "BatchMode=yes", "hostname"], text=True) == "lab-001\n"
        [run] = listed()
        key = Path(run["folder"], "key")
        assert key.stat().st_mode & 0o777 == 0o600
        assert run["overdue"] > 0 and "OVERDUE" in fanout("ls").stderr
    finally:
        done = fanout("down", "last", "--yes")
    assert done.exit_code == 0 and Lab.names() == []
    assert not key.exists() and not key.with_name("known_hosts").exists()
    assert "OVERDUE" not in fanout("ls").stderr


@pytest.mark.lab
def test_only_a_failure_keeps_machines() -> None:
    need_sshd()
    need_isolation()
    assert fanout("run", "s.py", "passes", "--fleet", "lab", "-n", "1", "--keep", "1h").exit_code == 0
    assert Lab.names() == [] and listed()[0]["holds"] == ""


def test_where_nothing_was_made_nothing_is_kept_and_that_is_said() -> None:
    done = fanout("run", "s.py", "fails", "-n", "1", "--keep", "1h")
    assert done.exit_code == 1 and "has made no machines that could be kept" in done.stderr
    assert listed()[0]["holds"] == ""


# What is asked for.


def test_a_run_that_is_not_there_is_named() -> None:
    assert fanout("ls").stderr == "there is no run yet\n" and listed() == []
    done = fanout("down", "20250101")
    assert done.exit_code == 2 and "there is no run '20250101'" in done.stderr


def test_a_damaged_record_is_no_reason_to_guess() -> None:
    with killed("-n", "1") as (run, agents):
        path = Path("state/fanout/runs", run, "machines.json")
        right = path.read_text()
        path.write_text('{"run": "x"}')
        assert "damaged" in listed()[0]["holds"]
        done = fanout("down", "last", "--yes")
        assert done.exit_code == 2 and str(path) in done.stderr and of_run(run)
        path.write_text(right)
        assert fanout("down", "last", "--yes").exit_code == 0
        assert_nothing_left(run, agents)
