"""One fault at a time, on local machines: who is lost, what goes on, and that nothing is left."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core import node as tree
from fanout.root.outcomes import Outcome, Report
from fanout.root.session import Session
from tests.agent.parent import gone
from tests.root.trees import chain, left, local, outputs, run, session, until

FIRST = (1).to_bytes(4, "big")
NOTICED = 10.0  # s; 6 on an idle machine


async def agents(up: Session) -> dict[int, int]:
    return {machine: int(out) for machine, out in outputs(await run(up, up.up, shell="echo $PPID")).items()}


@pytest.mark.parametrize("parents", [chain(2, 2), chain(1, 1, 2)], ids=["width 2", "width 1, depth 3"])
async def test_a_killed_relay_costs_only_itself(parents: list[int | None], tmp_path: Path) -> None:
    """Each of the others delivers every byte, each report once, and its exit code, and runs a command once."""
    async with session(local(len(parents)), parents, folder=str(tmp_path)) as up:
        relay = max(parent for parent in parents if parent is not None)
        reports: dict[int, list[int]] = {}
        logs: dict[int, bytes] = {}
        up.on_report = lambda report: reports.setdefault(report.machine or 0, []).append(report.seq)
        up.on_log = lambda machine, call, data, when: logs.update({machine: logs.get(machine, b"") + data})
        pids = await agents(up)
        work = up.call(frames.SPAWN, up.up, {
            "shell": "for i in 1 2 3 4; do seq 2000; fanout report $i; sleep 0.2; done; exit 3",
            "name": "p", "logs": "all", "ready": "^1$"})
        assert await work.wait(tree.READY, timeout=20.0, extra=FIRST)
        os.kill(pids[relay], signal.SIGKILL)
        once = up.call(frames.RUN, up.up | up.detached, {"shell": "echo x >> {id}; wc -l < {id}"})
        assert await once.wait(tree.DONE, timeout=20.0) and await work.wait(tree.EXITED, timeout=30.0, extra=FIRST)
        others = set(range(len(parents))) - {relay}
        assert set(up.down) == {relay} and up.down[relay][0] == Outcome.LOST
        assert {m: out for m, out in outputs(once).items() if m != relay} == dict.fromkeys(others, b"1\n")
        exits = work.groups(tree.EXITED, FIRST)
        assert [value[:2] for _, value in exits] == [[3, False]]
        assert set(machineset.members(exits[0][0])) == others
    want = b"".join(b"%d\n" % i for i in range(1, 2001)) * 4
    assert all(logs[m] == want and reports[m] == [1, 2, 3, 4] for m in others)
    assert up.problems == [] and left(tmp_path) == []


async def test_a_killed_leaf_is_lost_with_all_that_it_had_started(tmp_path: Path) -> None:
    async with session(local(3), [None, 0, 0], folder=str(tmp_path)) as up:
        pids = await agents(up)
        shell = "setsid sh -c 'echo $$; exec sleep 500' > escaped & until [ -s escaped ]; do :; done; echo up; wait"
        work = up.call(frames.SPAWN, 0b010, {"shell": shell, "name": "p", "ready": "up"})
        assert await work.wait(tree.READY, timeout=20.0, extra=FIRST)
        escaped = int(outputs(await run(up, 0b010, shell="cat escaped"))[1])
        os.kill(pids[1], signal.SIGKILL)
        await until(lambda: 1 in up.down, NOTICED)
        assert up.down[1][0] == Outcome.LOST and gone(escaped)
        assert set(outputs(await run(up, up.up, argv=["true"]))) == {0, 2}
    assert left(tmp_path) == []


async def test_paths_longer_than_a_sockets_may_be_keep_nobody_from_attaching_or_reporting(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ("long" * 30) / ("longer" * 20)
    place.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(place))
    async with session(local(3), [None, 0, 0]) as up:
        said: list[str] = []
        up.on_report = lambda report: said.append(report.text)
        assert up.down == {}
        relay = (await agents(up))[0]
        assert (place / f"fanout-{up.settings.run}-1").is_dir()
        work = up.call(frames.SPAWN, 0b110, {"shell": "sleep 1000", "name": "p"})
        assert await work.wait(tree.STARTED, timeout=20.0, extra=FIRST)
        os.kill(relay, signal.SIGKILL)
        await until(lambda: 0 in up.down and not up.detached, NOTICED)
        assert up.up == 0b110 and not work.heard(tree.EXITED, FIRST), "the same agents, attached again"
        assert set(outputs(await run(up, up.up, shell="fanout report well"))) == {1, 2}
        await until(lambda: said == ["well", "well"])
    assert up.problems == [] and left(place) == []


async def test_without_the_root_everything_ends_with_the_lease(tmp_path: Path) -> None:
    """The root reads and says nothing; a relay that still talks to its child does not keep it alive."""
    async with session(local(3), [None, 0, 1], folder=str(tmp_path), lease=6.0) as up:
        pids = await agents(up)
        up.node.tick = lambda now: None  # type: ignore[method-assign]  # no heartbeat leaves any more
        for pid in pids.values():
            assert await asyncio.to_thread(gone, pid)
        assert left(tmp_path) == []
        up.detached = up.up = 0


async def test_that_a_machine_has_come_counts_once_however_often_it_is_told(tmp_path: Path) -> None:
    """A relay tells its new parent again what the old one had not acknowledged: no agent has been replaced."""
    async with session(local(3), [None, 0, 0], folder=str(tmp_path)) as up:
        for machine in (0, 1, 2):
            number = up.topology.calls[machine]
            up.node.inbox.append((tree.EVENT, number, tree.UP, b"", codec.pack({"python": "3"}), 1 << machine))
        up.kick()
        await until(lambda: not up.node.inbox)
        assert set(outputs(await run(up, up.up, argv=["true"]))) == {0, 1, 2}
    assert up.problems == [] and up.down == {}


async def test_what_machines_say_is_not_believed_blindly() -> None:
    async with session(local(1), [None]) as up:
        seen: list[Report] = []
        up.on_report = seen.append
        call = up.call(frames.RUN, 1, {"shell": "sleep 500"})
        for value in (b"\xc1", codec.pack(7), codec.pack(["ok"]), codec.pack(["splendid", 0, b"", b"", 0])):
            up.node.inbox.append((tree.EVENT, call.number, tree.DONE, b"", value, 1))
            up.node.inbox.append((tree.EVENT, 0, tree.DOWN, b"", value, 1))
            up.node.inbox.append((tree.EVENT, 0, tree.SYNC, b"\0", value, 1))
            up.node.inbox.append((tree.RECORD, frames.REPORTS, 0, value))
            up.node.inbox.append((tree.RECORD, frames.LOGS, 0, value))
        up.node.inbox.append((tree.RECORD, frames.REPORTS, 0, codec.pack([3, 0.0, "third", {}, None])))
        up.kick()
        await until(lambda: seen)
        assert call.refused and up.problems and up.up == 1
        assert any("2 reports before its 3." in problem for _, problem in up.problems)
