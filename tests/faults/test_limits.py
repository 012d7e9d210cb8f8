"""Machines at their limits: no descriptors, processes, time that is right.  A clear outcome there, and only there."""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fanout.agent.core import frames
from fanout.agent.core import node as tree
from tests.agent.parent import Parent
from tests.faults.test_losses import agents
from tests.root.trees import left, local, run, session

FIRST = (1).to_bytes(4, "big")
SOMEONE = 64_906  # a user that has nothing else running
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def wrapper(folder: Path, text: str) -> str:
    """A `python3` that does something first."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{text} {sys.executable} \"$@\"\n")
    program.chmod(0o755)
    return str(program)


async def test_a_machine_without_descriptors_says_so_and_works_again_once_it_has_some(tmp_path: Path) -> None:
    async with session(local(3), [None, 0, 0], folder=str(tmp_path)) as up:
        pid = (await agents(up))[1]
        spawned = up.call(frames.SPAWN, up.up, {"shell": "echo up; sleep 500", "name": "p", "ready": "up"})
        assert await spawned.wait(tree.READY, timeout=20.0, extra=FIRST)
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        call = await run(up, up.up, argv=["true"])
        assert {machines: value[0] for machines, value in call.groups(tree.DONE)} == {0b101: "ok", 0b010: "failed"}
        refusal = next(value for machines, value in call.groups(tree.DONE) if machines == 0b010)
        assert b"Too many open files" in refusal[3]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert (await run(up, up.up, argv=["true"])).groups(tree.DONE)[0][0] == 0b111
        assert up.down == {} and not spawned.heard(tree.EXITED, FIRST)
    assert up.problems == [] and left(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: a user of its own, whose processes are limited")
async def test_a_machine_without_processes_says_so_and_works_again_once_it_has_some(tmp_path: Path) -> None:
    folder = tmp_path
    while folder != Path(tempfile.gettempdir()):  # that user has to get there
        folder.chmod(0o777)
        folder = folder.parent
    python = wrapper(tmp_path, f"exec prlimit --nproc=5 setpriv --reuid {SOMEONE} --regid {SOMEONE} --clear-groups")
    async with session(local(1) + local(1, python=python), [None, None], folder=str(tmp_path)) as up:
        shell = "sleep 500 & sleep 500 & sleep 500 & echo up; wait"
        full = up.call(frames.SPAWN, 0b10, {"shell": shell, "name": "p", "ready": "up"})
        assert await full.wait(tree.READY, timeout=20.0, extra=FIRST)
        call = await run(up, up.up, argv=["true"])
        assert {machines: value[0] for machines, value in call.groups(tree.DONE)} == {0b01: "ok", 0b10: "failed"}
        refusal = next(value for machines, value in call.groups(tree.DONE) if machines == 0b10)
        assert b"Resource temporarily unavailable" in refusal[3]
        stop = up.call(frames.PROCESS, 0b10, [full.number, "stop", 1.0])
        assert await stop.wait(tree.DONE, timeout=20.0)
        assert (await run(up, up.up, argv=["true"])).groups(tree.DONE)[0][0] == 0b11
    assert up.problems == [] and left(tmp_path) == []


@pytest.mark.skipif(FAKETIME is None and "CI" not in os.environ, reason="needs faketime")
@pytest.mark.parametrize("jump", ["+30d", "-30d"])
def test_a_clock_that_jumps_changes_time_stamps_and_nothing_else(jump: str, tmp_path: Path) -> None:
    """Neither leases, nor heartbeats, nor grace periods are by the wall's clock."""
    clock, folder = tmp_path / "clock", tmp_path / "machine"
    clock.write_text("+0")
    folder.mkdir()
    python = wrapper(tmp_path, f"export LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE={clock} FAKETIME_NO_CACHE=1 "
                     "FAKETIME_DONT_FAKE_MONOTONIC=1; exec")
    with Parent(folder, python, lease=5.0) as agent:
        call = agent.spawn(shell="fanout report before; echo up; read x; fanout report after; sleep 500", ready="up")
        agent.answer(call, tree.READY, 1)
        agent.until(lambda: len(agent.reports) == 1)
        (tmp_path / "jump").write_text(jump)
        (tmp_path / "jump").rename(clock)  # nobody reads half of it
        since = time.monotonic()
        agent.until(lambda: time.monotonic() - since > 6.0)  # longer than the lease
        assert agent.run(shell="echo {id}")[:3] == ["ok", 0, b"0\n"]
        agent.tell(call, "write", b"go on\n", False)
        agent.until(lambda: len(agent.reports) == 2)
        before, after = (report[1] for report in agent.reports)
        days = 30 if jump[0] == "+" else -30
        assert abs(after - before - days * 86_400) < 60.0
        assert agent.tell(call, "stop", 0.5) == ""
        assert agent.end()[2] == []
    assert list(folder.iterdir()) == []
