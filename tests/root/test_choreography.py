"""The helper and members on real agents of every Python, and machines that lie, end or are killed."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core import node as tree
from tests.root.trees import chain, local, outputs, run, session, until

SCRIPT = """
fanout report "hello there" id={id} && fanout metric m {id}.5 --unit ms && fanout barrier all --timeout 20s || exit 9
fanout signal s "{id}" >/dev/null; fanout wait s --count 2 | wc -l
fanout publish t "value {id}"; fanout collect t --count 2 | sort
fanout barrier x --role nobody 2>&1; echo $?
fanout barrier 2>/dev/null; echo $?
fanout wait never --timeout 50ms 2>&1; echo $?
FANOUT_FOLDER=/nowhere fanout report x 2>/dev/null; echo $?
"""
MEMBER = b"""
from fanout import scenario, Fleet
def member(me, x):
    return [x, me.barrier("members", group="peer"), [m.id for m in me.network]]
@scenario(machines=2)
async def go(fleet: Fleet) -> None: pass
"""


async def test_the_helper_and_members_under_every_python(each_python: str, tmp_path: Path) -> None:
    async with session(local(2, python=each_python), [None, 0], folder=str(tmp_path)) as up:
        said = outputs(await run(up, up.up, shell=SCRIPT))[0].decode().splitlines()
        assert [said[0].strip(), *said[1:3]] == ["2", "value 0", "value 1"]
        assert said[3:] == ["fanout: there is no role nobody; there are: peer", "1", "2",
                            "fanout: wait never: 0 of 1 at the timeout", "1", "3"]
        body = {"code_id": "c", "files": {"sc.py": MEMBER}, "module": "sc", "function": "member", "args": [7],
                "kwargs": {}, "origin": "/x", "timeout": 20.0}
        call = up.call(frames.EACH, up.up, body)
        assert await call.wait(tree.DONE, timeout=30.0)
        [(machines, (outcome, _, _, err, _, value))] = call.groups(tree.DONE)
        assert (machines, outcome) == (0b11, "ok"), err
        assert codec.unpack(value) == [7, 2, [0, 1]]
    assert up.metrics["m", "ms", ""].total == 2.0 and not up.problems


@pytest.mark.parametrize("parents", [chain(3), chain(1, 2), chain(1, 1, 1)])
async def test_who_is_killed_in_a_barrier_is_told_by_name_within_a_second(
        parents: list[int | None], tmp_path: Path) -> None:
    async with session(local(3), parents, folder=str(tmp_path)) as up:
        call = up.call(frames.RUN, up.up, {"shell": "[ {id} = 2 ] && exec sleep 99; fanout barrier b --timeout 60"})
        await until(lambda: [b for b in up.sync._barriers.values() if b.arrived == 0b011])
        killed = time.monotonic()
        await run(up, 0b100, shell="until pkill -9 -P $PPID sleep; do :; done")  # its shell may not be there yet
        assert await call.wait(tree.DONE, timeout=20.0)
        assert time.monotonic() - killed < 5.0  # within one second when the machine is idle
        said = {m: err for s, (_, _, _, err, _) in call.groups(tree.DONE) for m in machineset.members(s)}
        assert b"2 of 3 arrived; ended before arriving: local-2" in said[0] and said[0] == said[1]


async def test_a_machine_that_lies_about_its_id_is_refused_and_named(tmp_path: Path) -> None:
    async with session(local(2), [None, None], folder=str(tmp_path)) as up:
        lie = codec.pack([[merge.key(1, tree.DONE), codec.pack("x"), machineset.pack(0b01)]])
        number = up.node.children[1]._received[frames.CONTROL] + 1
        up.node.receive(1, frames.encode(frames.CONTROL, frames.EVENTS, number, b"", lie), up.now())
        up.kick()
        await until(lambda: 1 in up.down)
        assert up.problems == [(0b10, "refused: speaks for machines that are not its own")]


async def test_a_program_that_calls_after_its_run_ended_hears_so(tmp_path: Path) -> None:
    async with session(local(1), [None], folder=str(tmp_path)) as up:
        shell = 'cd "$FANOUT_FOLDER"; pwd; cat "$(command -v fanout)"; cp library.zip ../kept'
        out = outputs(await run(up, up.up, shell=shell))[0].decode()
        folder, _, script = out.partition("\n")
    kept = str(tmp_path / "kept")
    command = script.splitlines()[1].replace(folder + "/library.zip", kept).replace('"$@"', "report late")
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", command], env={"FANOUT_FOLDER": folder, "PATH": "/bin:/usr/bin"}, check=False,
        capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and "its run has ended" in done.stderr
