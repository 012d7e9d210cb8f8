"""Members, barriers, signals, topics, triggers, instants and invariants: real runs on local machines."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from fanout.scenario.code import SIZE_MOST, collect
from tests.scenario import play

MEMBERS = """
import os, signal as signals
from fanout import *

def member(me, x, y=2):
    me.metric("number", me.id, "ms", per="role")
    arrived = me.barrier("all", timeout="20s")
    me.publish("ids", me.id)
    return [arrived, beside.double(x) + y]

def one_fails(me):
    if me.id == 2:
        raise KeyError("two")
    try:
        me.barrier("never", timeout=20)
    except SyncFailed as error:
        return str(error)

def one_is_killed(me):
    if me.id == 1:
        os.kill(os.getpid(), signals.SIGKILL)
    me.barrier("killed", timeout=20)

def odd(me):
    said = []
    for what in (lambda: me.signal("s", bytes(70000)), lambda: me.signal("a\\nb"),
                 lambda: me.barrier("b", group="zz"), lambda: me.barrier("b", count=99),
                 lambda: me.barrier("b", count=0), lambda: me.barrier("b", quorum=0), lambda: me.wait("s", count="2")):
        try:
            what()
        except SyncFailed as error:
            said.append(str(error))
    return [me.signal("\\u00fc \\U0001f600"), said]

def strange(me):
    return {"it": object()}

def talks(me, much, *, dies=False):
    import sys
    print("on stdout", "x" * much)
    print("on stderr", file=sys.stderr)
    if dies:
        os.kill(os.getpid(), signals.SIGKILL)

import beside

@scenario(machines={"a": 2, "b": 2})
async def tested(fleet):
    import asyncio, pytest
"""


async def passes(folder: Path, body: str, **options: Any) -> tuple[Any, play.Recorder]:
    (folder / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    path = folder / "tested.py"
    path.write_text(MEMBERS + indent(dedent(body), "    "))
    result, seen = await play.play(path, machines=None, **options)
    assert result.outcome == "passed", result.reason
    return result, seen


@pytest.mark.parametrize("relays", [0, 1, 2])
async def test_members_meet_and_return(relays: int, tmp_path: Path) -> None:
    result, _ = await passes(tmp_path, """
        results = await fleet.each(member, 20, timeout="30s")
        assert results.values == {machine: [4, 42] for machine in fleet} and len(results) == 1
        assert sorted(await fleet.collect("ids", 4)) == [0, 1, 2, 3]
        assert (await fleet[1:].each(odd)).values[fleet[1]][1][3:] == [
            "barrier b: 99 of 4 members can never arrive", "count 0: give a whole number, 1 or more",
            "quorum 0: it is a share of the members, above 0 and up to 1", "count '2': give a whole number, 1 or more"]
    """, relays=relays)
    number = result.metrics["number"]
    assert (number["count"], number["sum"], number["unit"]) == (4, 6, "ms")
    assert {role: figures["count"] for role, figures in number["by"].items()} == {"a": 2, "b": 2}


async def test_a_member_that_fails_or_is_killed_is_named_to_those_who_wait(tmp_path: Path) -> None:
    await passes(tmp_path, """
        with pytest.raises(MemberFailed) as caught:
            await fleet.each(one_fails)
        said = caught.value.results.values
        assert len(said) == 3 and all("ended before arriving: local-2" in text for text in said.values())
        assert "KeyError: 'two': local-2" in str(caught.value) and __file__ in str(caught.value)
        with pytest.raises(MemberFailed, match="ended before arriving: local-1"):
            await fleet.each(one_is_killed)
        for wrong in (lambda: fleet.each(member, {1}), lambda: fleet.each(member), lambda: fleet.each(len),
                      lambda: fleet.each(lambda me: 1), lambda: fleet.barrier("x", count=9),
                      lambda: fleet.barrier("x", count=0), lambda: fleet.wait("x", count="2"),
                      lambda: fleet.collect("x", count=0), lambda: fleet.barrier("x", quorum="half")):
            with pytest.raises(UsageError):
                await wrong()
    """)


async def test_what_no_member_can_return_is_named_by_its_type_once_for_all(tmp_path: Path) -> None:
    await passes(tmp_path, """
        with pytest.raises(MemberFailed, match=r"it holds a value of the type object: local-\\[0-3\\]"):
            await fleet.each(strange)
    """)


async def test_what_a_member_prints_comes_with_its_result_also_when_it_is_killed(tmp_path: Path) -> None:
    await passes(tmp_path, """
        results = await fleet.each(talks, 70000)
        assert len(results) == 1 and results.values == dict.fromkeys(fleet)
        assert results.stdout.startswith("on stdout xxx") and results.stderr == "on stderr\\n"
        [one] = results
        assert len(one.stdout) == 65536 and one.cut == len("on stdout ") + 70001 - 65536
        dead = await fleet[0].each(talks, 3, check=False, dies=True)
        assert (dead.stdout, dead.ok) == ("on stdout xxx\\n", False) and "on stderr" in dead.stderr
    """)


async def test_triggers_instants_and_invariants(tmp_path: Path) -> None:
    _, seen = await passes(tmp_path, """
        nodes = await fleet.spawn("echo ERROR {id}; exec sleep 100", on={r"ERROR (\\d)": signal("trouble")}, at="+1s")
        values = await fleet.wait("trouble", 4)
        assert sorted(value["groups"] for value in values) == [["0"], ["1"], ["2"], ["3"]]
        assert 0 <= nodes.skew < 5
        await nodes.stop()
        assert 0 <= await nodes.start(at="+500ms") < 5
        with pytest.raises(InvariantBroken, match="returned False"):
            async with fleet.always(lambda: len(nodes.running) == 4, every="50ms"):
                await nodes[0].stop()
                await asyncio.sleep(60)
        with pytest.raises(SyncFailed, match="wait nothing: 0 of 1 at the timeout"):
            await fleet.wait("nothing", timeout="100ms")
        late = await fleet[0].run("fanout barrier alone --timeout 200ms", check=False)
        assert late.code == 1 and "missing at the timeout: local-1" in late.stderr
    """)
    assert not seen.logs


def test_what_is_too_large_to_travel_is_named(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("pass")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "venv" / "large.py").write_bytes(bytes(SIZE_MOST))
    assert collect(tmp_path).files == {"small.py": b"pass"}
    (tmp_path / "large.py").write_bytes(bytes(SIZE_MOST))
    with pytest.raises(Exception, match=r"the largest: large\.py \(2097152 bytes\)"):
        collect(tmp_path)
