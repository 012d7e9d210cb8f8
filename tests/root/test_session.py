"""A session over local machines: the whole path without SSH, in trees of several shapes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from fanout.root.links import _Peer
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome, Report
from fanout.root.session import Session
from fanout.root.settings import Settings
from fanout.root.transport import Connection
from tests.agent.parent import gone
from tests.pythons import pythons
from tests.root.trees import chain, everyone, left, local, outputs, run, session, until

SHAPES = {"flat": chain(4), "one relay": chain(1, 3), "narrow and deep": chain(1, 1, 1, 1), "width 2": chain(2, 2)}


@pytest.mark.parametrize("parents", SHAPES.values(), ids=SHAPES)
async def test_every_machine_answers_for_itself_in_any_tree(parents: list[int | None], tmp_path: Path) -> None:
    async with session(local(len(parents)), parents, folder=str(tmp_path)) as up:
        assert up.up == everyone(up) and up.down == {}
        assert up.statistics()["connections"] == parents.count(None)
        call = await run(up, up.up, shell="echo {id} {name} $FANOUT_ROLE")
        assert outputs(call) == {i: b"%d local-%d peer\n" % (i, i) for i in range(len(parents))}
        folded = await run(up, up.up, argv=["echo", "same"])
        assert folded.groups(tree.DONE) == [(up.up, ["ok", 0, b"same\n", b"", 0])]
        some = await run(up, 0b0110, argv=["echo", "some"])
        assert some.heard(tree.DONE) == 0b0110
    assert up.problems == [] and up.down == {} and left(tmp_path) == []


async def test_relays_and_children_may_run_different_pythons(tmp_path: Path) -> None:
    found = pythons()
    hosts = [Host(f"local-{i}", "127.0.0.1", local=True, python=python)
             for i, python in enumerate([found[0], found[-1], *found])]
    parents = [None, None, *(i % 2 for i in range(len(found)))]
    async with session(hosts, parents, folder=str(tmp_path)) as up:
        assert up.down == {}
        assert len(outputs(await run(up, up.up, argv=["true"]))) == len(hosts)
    assert up.problems == [] and left(tmp_path) == []


@pytest.mark.parametrize("parents", [chain(3), chain(1, 1, 2)], ids=["flat", "deep"])
async def test_logs_that_are_under_way_at_the_end_come_home(parents: list[int | None], tmp_path: Path) -> None:
    async with session(local(len(parents)), parents, folder=str(tmp_path)) as up:
        logs: dict[int, bytearray] = {i: bytearray() for i in range(len(parents))}
        up.on_log = lambda machine, call, data, when: logs[machine].extend(data)
        size = 3_000_000
        call = up.call(frames.SPAWN, up.up, {"shell": f"seq -w 9999999 | head -c {size}", "name": "p", "logs": "all"})
        assert await call.wait(tree.EXITED, timeout=30.0, extra=(1).to_bytes(4, "big"))
    expected = b"".join(b"%07d\n" % i for i in range(1, size // 8 + 1))
    assert {i: len(log) for i, log in logs.items()} == dict.fromkeys(logs, size)
    assert all(log == expected for log in logs.values()) and up.problems == []


async def test_what_is_forwarded_of_a_flood_that_is_killed_comes_home(tmp_path: Path) -> None:
    parents = chain(1, 1, 3)
    async with session(local(len(parents)), parents, folder=str(tmp_path)) as up:
        up.call(frames.SPAWN, up.up, {"argv": ["yes", "1234567"], "name": "p", "logs": "all"})
        await until(lambda: up.forwarded > 2_000_000)
        told: list[list[tuple[int, list[object]]]] = []
        ask = up.call

        def call(kind: int, targets: int, body: object) -> object:
            made = ask(kind, targets, body)
            told.append(made.groups)  # type: ignore[arg-type]
            return made

        up.call = call  # type: ignore[method-assign, assignment]
    ended = told[-1](tree.ENDED)  # type: ignore[operator]
    assert up.forwarded == sum(value[0] * machineset.count(machines) for machines, value in ended)


@pytest.mark.parametrize("victim", [0, 5], ids=["relay", "leaf"])
async def test_a_machine_whose_agent_dies_is_lost_and_no_other_is(victim: int, tmp_path: Path) -> None:
    parents = [None, None, 0, 0, 1, 1]
    rest = 0b111111 & ~(1 << victim)
    async with session(local(6), parents, folder=str(tmp_path), recover=10.0) as up:
        downs: list[tuple[int, Outcome]] = []
        up.on_down = lambda machines, outcome, reason: downs.append((machines, outcome))
        pid = int(outputs(await run(up, 1 << victim, shell="echo $PPID"))[victim])
        stays = up.call(frames.SPAWN, up.up, {"shell": "echo up; setsid sleep 500", "name": "p", "ready": "up"})
        assert await stays.wait(tree.READY, timeout=20.0, extra=(1).to_bytes(4, "big"))
        call = up.call(frames.RUN, up.up, {"shell": f"[ {{id}} = {victim} ] && exec sleep 60; echo {{id}}"})
        await call.wait(tree.DONE, timeout=10.0, enough=5)
        os.kill(pid, signal.SIGKILL)
        assert await call.wait(tree.DONE, timeout=20.0)
        await until(lambda: up.up == rest)
        assert downs == [(1 << victim, Outcome.LOST)] and set(up.down) == {victim}
        assert outputs(await run(up, rest, shell="echo {id}")) == {m: b"%d\n" % m for m in machineset.members(rest)}
        assert not stays.heard(tree.EXITED, (1).to_bytes(4, "big")) & rest
        later = await run(up, everyone(up), argv=["true"])
        assert later.lost == 1 << victim and later.heard(tree.DONE) == rest
    assert up.problems == [] and left(tmp_path) == []


ORPHANS = """
import asyncio, sys
from fanout.agent.core import frames, node as tree
from tests.root.trees import *

async def main():
    parents = chain(1, 1, 2)
    async with session(local(4), parents, folder=sys.argv[1], lease=6.0) as up:
        call = up.call(frames.SPAWN, up.up, {"name": "p", "ready": "up", "logs": "all", "shell":
            "(setsid sh -c 'trap \\"\\" TERM; echo $$; while :; do sleep 0.05; done' &); echo up; sleep 400"})
        up.on_log = lambda machine, call, data, when: print(data.decode(), end="", flush=True)
        await call.wait(tree.READY, timeout=20, extra=(1).to_bytes(4, "big"))
        await asyncio.sleep(100)

asyncio.run(main())
"""


def test_a_root_that_is_killed_leaves_nothing_after_the_lease(tmp_path: Path) -> None:
    root = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                            cwd=Path(__file__).parents[2])
    pids, ready = [], 0
    assert root.stdout is not None
    for line in root.stdout:
        if line.strip().isdigit():
            pids.append(int(line))
        ready += line == "up\n"
        if len(pids) == ready == 4:
            break
    agents = {int((Path(f"/proc/{pid}/stat").read_text()).rpartition(")")[2].split()[1]) for pid in pids}
    root.kill()
    root.wait()
    root.stdout.close()
    assert len(pids) == len(agents) == 4
    assert all(gone(pid) for pid in [*pids, *agents])
    assert left(tmp_path) == []


async def test_letting_go_leaves_nothing_after_the_lease(tmp_path: Path) -> None:
    async with session(local(3), chain(1, 2), folder=str(tmp_path), lease=4.0) as up:
        pids = [int(out) for out in outputs(await run(up, up.up, shell="echo $PPID")).values()]
        await up.abort()
    assert all([await asyncio.to_thread(gone, pid) for pid in pids]) and left(tmp_path) == []


# Trouble while connecting.

async def test_each_local_trouble_has_its_outcome_and_harms_no_other(tmp_path: Path) -> None:
    scripts = {
        "silent": "exec sleep 60",
        "deaf": "echo Welcome. Press any key.; trap '' TERM PIPE; while :; do sleep 1; done",
        "failing": "echo no such luck >&2; exit 9",
        "chatty": f"echo Welcome, friend.; echo mind the step >&2; exec {sys.executable} \"$@\"",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    old = [str(path) for path in (Path.home() / ".pyenv/versions").glob("3.[67].*/bin/python3")][:1]
    pythons_of = ["python3", "/no/such/python3", str(tmp_path / "silent"), str(tmp_path / "deaf"),
                  str(tmp_path / "failing"), str(tmp_path / "chatty"), *old]
    work = tmp_path / "work"
    work.mkdir()
    hosts = [Host(f"local-{i}", "127.0.0.1", local=True, python=python) for i, python in enumerate(pythons_of * 2)]
    count = len(pythons_of)
    parents = [None] * count + [0] * count
    async with session(hosts, parents, folder=str(work), connect_timeout=3.0) as up:
        for at in (0, count):
            assert up.up >> at & 1 and up.up >> at + 5 & 1, up.down
            expected = {
                1: (Outcome.NO_PYTHON, "/no/such/python3"),
                2: (Outcome.UNREACHABLE, "no agent within the connect timeout"),
                3: (Outcome.UNREACHABLE, "Press any key"),
                4: (Outcome.FAILED, "no such luck"),
            }
            if old:
                expected[6] = (Outcome.NO_PYTHON, "3.8 or newer is needed")
            for machine, (outcome, words) in expected.items():
                got, reason = up.down[at + machine]
                assert got is outcome and words in reason, (at, machine, got, reason)
        assert len(outputs(await run(up, up.up, argv=["true"]))) == 4
    assert up.problems == [] and left(work) == []


async def test_below_a_relay_that_does_not_come_up_another_way_is_found(tmp_path: Path) -> None:
    hosts = [*local(1), Host("broken", "127.0.0.1", local=True, python="/no/such/python3"), *local(2)]
    async with session(hosts, [None, None, 1, 2], folder=str(tmp_path)) as up:
        await until(lambda: up.up == 0b1101)
        assert set(up.down) == {1} and up.down[1][0] is Outcome.NO_PYTHON
    assert left(tmp_path) == []


async def test_hundreds_that_fail_at_once_are_told_one_by_one(tmp_path: Path) -> None:
    hosts = [*local(1), *local(500, python="/no/such/python3")]
    async with session(hosts, [None, *[0] * 500], folder=str(tmp_path)) as up:
        assert up.up == 1 and {outcome for outcome, _ in up.down.values()} == {Outcome.NO_PYTHON}
        assert len(up.down) == 500
    assert up.problems == [] and left(tmp_path) == []


async def test_a_folder_that_cannot_be_made_is_told_by_name(tmp_path: Path) -> None:
    async with session(local(3), [None, None, 0], folder=str(tmp_path / "nowhere")) as up:
        await until(lambda: len(up.down) == 3)
        assert "cannot make its folder" in up.down[0][1] and "No such file" in up.down[1][1]
    assert not (tmp_path / "nowhere").exists()


async def test_what_fails_in_who_takes_a_record_is_not_blamed_on_the_machine_and_the_rest_is_taken() -> None:
    taken: list[str] = []
    raised: list[object] = []

    def take(report: Report) -> None:
        if not taken and not raised:
            raise TypeError("a mistake of the user's")
        taken.append(report.text)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    async with session(local(1), [None]) as up:
        up.on_report = take
        await run(up, up.up, shell="fanout report one; fanout report two")
        await until(lambda: taken)
    assert taken == ["two"]
    assert [str(error) for error in raised] == ["a mistake of the user's"]
    assert up.problems == []


async def test_a_machine_that_is_wanted_anew_before_its_dial_began_is_dialled_once() -> None:
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: troubles.append(context))
    async with session(local(11, python="/no/such/python3"), [None] * 11) as up:
        for machine in (*range(11), 0):  # at one go: no dial has begun, and 0 is behind those that wait for room now
            up.connect_one(machine, 5.0)
        await until(lambda: not up.links._waiting)
        assert troubles == []


async def test_what_a_machine_says_of_its_silent_agent_holds_for_a_while_but_not_once_it_is_heard(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.root.links.SILENCE", 0.3)
    answers = [True, False, False, True]

    class Asked:
        async def also(self, command: str, wait: float) -> bool:
            return answers.pop(0)

    links = Session([Machine(0, local(1)[0], "")], [None], Settings("run")).links
    peer = links.peers[0] = _Peer(links, {"id": 0}, 1, 0.0, 0.0)
    peer.connection = cast(Connection, Asked())
    began = time.monotonic()
    await until(lambda: not links.starved(0, 7))
    assert len(answers) == 2 and time.monotonic() - began > 0.3
    assert links.starved(0, 7)
    await asyncio.sleep(0.05)
    peer.received(b"")  # the agent is back: what was found out is of no meaning for its next silence
    assert links.starved(0, 7)
    await asyncio.sleep(0.05)
    assert links.starved(0, 7) and answers == []


async def test_who_is_left_without_a_relay_is_asked_of_relays_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def astray(self: Session, relay: int) -> int:
        asked.append(relay)
        return 0

    monkeypatch.setattr(Session, "astray", astray)
    machines = [Machine(i, host, "") for i, host in enumerate(local(6))]
    Session(machines, chain(2, 2), Settings("run")).lose(0b111111, Outcome.LOST, "gone")
    assert asked == [0, 1], "each time all that are down are gone through: for thousands that takes seconds"


def test_what_was_left_of_a_time_is_told_in_a_figure_that_machines_share() -> None:
    links = Session([Machine(0, Host("a", "a"), "")], [None], Settings(run="r")).links
    for seconds, told in (1.97928, "2 s"), (1.96311, "2 s"), (60.0, "60 s (--connect-timeout)"):
        peer = _Peer(links, {"id": 0}, 1, seconds, seconds)
        peer.began = links.session.now() - seconds
        assert links._silent(peer) == f"it does not answer within {told}"
