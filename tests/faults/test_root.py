"""The root itself goes, or stands still: `fanout run` as a process of its own, killed and stopped from outside."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fanout.fleets.openssh import LoopbackSshd
from tests.leftovers import title

SCENARIOS = Path(__file__).with_name("flood.py")
STOPPED = float(os.environ.get("FANOUT_TEST_STOPPED", "8"))  # s; `docs/reliability.md` has the figures of 30
LEASE = 6.0  # s
AGENT_MOST = 24 << 10  # kB, of one agent, relays too; what is promised in docs/reliability.md is less
PATIENCE = 60.0  # s for any one thing to come about, on a busy machine


@contextmanager
def run(tmp_path: Path, name: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`fanout run`, killed on leaving if it has not ended; what it says is in `tmp_path/out`."""
    argv = [sys.executable, "-m", "fanout.cli", "run", str(SCENARIOS), name, "--run-dir", str(tmp_path / "run"),
            *options]
    with (tmp_path / "out").open("w") as out, subprocess.Popen(
            argv, stdout=out, stderr=subprocess.STDOUT, text=True, env=dict(os.environ, TMPDIR=str(tmp_path)),
            start_new_session=True) as root:
        try:
            yield root
        finally:
            root.kill()


def until(done: Callable[[], object], said: Path) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < PATIENCE, said.read_text()[-2000:]
        time.sleep(0.02)
    return time.monotonic() - began


def of_run(run_id: str) -> dict[int, str]:
    """What runs on any of its machines: the agents by their folder, what they started by its mark."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                sockets = b"FANOUT_PROCESS=%s/" % run_id.encode() in environment
            except OSError:
                continue
            if sockets:
                found[int(entry.name)] = title(int(entry.name))
    return found


def agents(below: int) -> dict[int, int]:
    """pid -> kB of memory, of the agents below a process."""
    text = subprocess.run(["ps", "-eo", "pid=,ppid=,rss=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in text.splitlines()]
    family, grown = {below}, True
    while grown:
        more = {int(row[0]) for row in rows if int(row[1]) in family} - family
        family, grown = family | more, bool(more)
    return {int(row[0]): int(row[2]) for row in rows if int(row[0]) in family and " -I -S -c " in row[3]}


@pytest.mark.parametrize("fleet", ["local", "ssh"])
def test_a_killed_root_leaves_nothing_once_the_lease_is_over(
    fleet: str, tmp_path: Path, sshd: LoopbackSshd
) -> None:
    """Processes that ignore TERM, and those that have left their session, too."""
    options = ["--lease", f"{LEASE:g}s", "--relays", "0" if fleet == "ssh" else "2"]  # a relay has no key here
    if fleet == "ssh":
        hosts = tmp_path / "hosts"
        hosts.write_text("".join(
            f"{sshd.user}@127.3.0.{i + 1}:{sshd.port} key={sshd.key} host_key=\"{sshd.host_keys[0]}\"\n"
            for i in range(6)))
        options += ["--fleet", f"hosts:{hosts}"]
    with run(tmp_path, "stubborn", *options) as root:
        said = tmp_path / "out"
        until(lambda: "everything runs" in said.read_text() or root.poll() is not None, said)
        assert root.poll() is None, said.read_text()
        run_id = json.loads((tmp_path / "run" / "run.json").read_text())["run"]
        until(lambda: len(of_run(run_id)) >= 6 * 3, said)
        os.kill(root.pid, signal.SIGKILL)
        root.wait()
        assert until(lambda: not of_run(run_id), said) < LEASE + 20.0
    folders = [*tmp_path.glob(f"fanout-{run_id}-*"), *Path("/tmp").glob(f"fanout-{run_id}-*")]
    until(lambda: not [folder for folder in folders if folder.exists()], said)
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_root_that_stands_still_under_a_flood_costs_no_memory_and_loses_nothing(tmp_path: Path) -> None:
    lines = 20_000
    options = ["--relays", "2", "--lease", f"{STOPPED * 2 + 10:g}s", "--arg", f"lines={lines}"]
    with run(tmp_path, "flood", *options) as root:
        said = tmp_path / "out"
        logs = tmp_path / "run" / "machines"
        size = lambda: sum(log.stat().st_size for log in logs.glob("*/flood.log"))  # noqa: E731
        until(lambda: size() > 1 << 20 or root.poll() is not None, said)
        assert root.poll() is None, said.read_text()
        os.kill(root.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, root.pid, os.WSTOPPED | os.WNOWAIT)
        before, began, most = size(), time.monotonic(), 0
        try:
            while time.monotonic() - began < STOPPED:
                memory = agents(root.pid)
                assert len(memory) >= 6  # a fork of one that is about to start a program looks like it
                most = max(most, *memory.values())
                time.sleep(0.2)
            assert size() == before
        finally:
            os.kill(root.pid, signal.SIGCONT)
        print(f"stopped for {STOPPED:g} s: most {most} kB in one agent")
        assert most < AGENT_MOST
        until(lambda: root.poll() is not None, said)
    assert root.returncode == 0, said.read_text()
    reports: dict[str, list[str]] = {}
    for line in (tmp_path / "run" / "reports.jsonl").read_text().splitlines():
        report = json.loads(line)
        if report["machine"] is not None:
            reports.setdefault(report["name"], []).append(report["text"])
    assert len(reports) == 6
    for machine, texts in reports.items():
        assert texts[:-1] == [str(i + 1) for i in range(lines // 1000)]
        log = (logs / machine / "flood.log").read_bytes()
        assert re.fullmatch(rf"logged {len(log)} {hashlib.sha256(log).hexdigest()}", texts[-1])
