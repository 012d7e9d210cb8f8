"""Machines that break the protocol on a real link: cut off by name, and nobody else is touched."""

import asyncio
import os
import stat
import sys
from pathlib import Path

import pytest

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.root.outcomes import Outcome
from fanout.root.payload import payload
from tests.agent.parent import gone
from tests.faults import impostor
from tests.root.trees import left, local, outputs, run, session, until

UNDER_ROOT, UNDER_RELAY = [None, None, 0, None], [None, None, 0, 0]
CASES = [
    (kind, parents) for kind in [*impostor.HARM, "another build"] for parents in (UNDER_ROOT, UNDER_RELAY)
    if kind != impostor.FLOOD or parents is UNDER_RELAY]  # the root has no window: what comes is settled at once


def disguised(folder: Path, kind: str) -> str:
    """A `python3` that is the impostor; its number is in `folder/pid`."""
    program = folder / "python3"
    here = Path(impostor.__file__).parents[2]
    program.write_text(f"#!/bin/sh\necho $$ > '{folder}/pid'\ncd '{here}' && "
                       f"exec '{sys.executable}' -m tests.faults.impostor '{kind}' {payload().build}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize(("kind", "parents"), CASES, ids=[
    f"{kind}, under {'a relay' if parents is UNDER_RELAY else 'the root'}" for kind, parents in CASES])
async def test_who_breaks_the_protocol_is_cut_off_by_name_and_alone(
    kind: str, parents: list[int | None], tmp_path: Path
) -> None:
    hosts = local(3) + local(1, python=disguised(tmp_path, kind))
    folder = tmp_path / "machines"
    folder.mkdir()
    before = set(os.listdir("/tmp"))
    async with session(hosts, parents, folder=str(folder), recover=3.0) as up:
        heard: list[object] = []
        up.on_log = lambda machine, call, data, when: heard.append((machine, data))
        sleeper = up.call(frames.RUN, 0b0111, {"shell": "exec sleep 500"})
        if kind == impostor.FLOOD:
            up.call(frames.RUN, machineset.single(impostor.OWN), {"shell": kind})
            await asyncio.sleep(0.005)
            # The root stands still until its relay has cut it off: what the relay has is not settled.
            assert gone(int((tmp_path / "pid").read_text()))
        await until(lambda: impostor.OWN in up.down)
        assert up.down[impostor.OWN][0] in (Outcome.FAILED, Outcome.LOST)
        assert "refused: " in up.down[impostor.OWN][1]
        assert [machines for machines, what in up.problems if "refused: " in what] == [
            machineset.single(impostor.OWN)]
        assert set(up.down) == {impostor.OWN}
        assert outputs(await run(up, 0b0111, shell="echo {id}")) == {i: b"%d\n" % i for i in range(3)}
        assert not sleeper.heard(tree.DONE) and not heard
    assert left(folder) == [] and "harm" not in set(os.listdir("/tmp")) - before


async def test_nonsense_is_told_of_and_not_hoarded(tmp_path: Path) -> None:
    """What the root takes at once and cannot read: 100 records here, and a bound on what is kept of any number."""
    hosts = local(3) + local(1, python=disguised(tmp_path, impostor.FLOOD))
    async with session(hosts, UNDER_ROOT, recover=1.0) as up:
        up.call(frames.RUN, machineset.single(impostor.OWN), {"shell": impostor.FLOOD})
        await until(lambda: len(up.problems) >= 100)
        assert {machines for machines, _ in up.problems} == {machineset.single(impostor.OWN)}
        up.problems += up.problems * 10
        before = len(up.problems)
        for _ in range(10):
            up.node.inbox.append((tree.RECORD, frames.LOGS, 0, b"\xc1"))
        up.kick()
        await until(lambda: not up.node.inbox)
        assert len(up.problems) - before <= 1
        up.lose(machineset.single(impostor.OWN), Outcome.LOST, "it does not end by itself")
