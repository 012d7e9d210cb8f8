"""Trees over a real sshd: every shape comes up, one connection serves all commands, and nothing is left behind."""

from pathlib import Path

import pytest

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.planner import plan
from fanout.root.session import Session
from tests.root.trees import chain, everyone, left, outputs, run, session, through, until

pytestmark = pytest.mark.sshd


async def check_left(server: LoopbackSshd, folder: Path) -> None:
    assert left(folder) == []
    await until(lambda: not server.processes())  # sshd ends its sessions in its own time


async def check_commands(up: Session) -> None:
    """Twice, so that the second is known to need no connection."""
    assert up.down == {} and up.up == everyone(up)
    connections = up.statistics()["connections"]
    for _ in range(2):
        assert len(set(outputs(await run(up, up.up, shell="echo {id} {address}")).values())) == len(up.machines)
    assert up.statistics()["connections"] == connections


SHAPES = {"flat": chain(3), "1 relay": chain(1, 3), "3 relays": chain(3, 1), "depth 3": chain(2, 2, 1),
          "depth 4": chain(1, 1, 1, 1), "wide in the middle": chain(1, 2, 1)}


@pytest.mark.parametrize("parents", SHAPES.values(), ids=SHAPES)
async def test_any_tree_comes_up_and_goes(parents: list[int | None], sshd: LoopbackSshd, tmp_path: Path) -> None:
    hosts = through(sshd, len(parents))
    async with session(hosts, parents, relay_key=sshd.key.read_text(), folder=str(tmp_path)) as up:
        await check_commands(up)
        assert up.statistics()["connections"] == parents.count(None)
    assert up.problems == []
    await check_left(sshd, tmp_path)


@pytest.mark.parametrize("relays", [0, 3])
async def test_sixty_hosts_behind_one_sshd_with_default_limits(
        relays: int, sshd: LoopbackSshd, tmp_path: Path) -> None:
    parents = plan(60, relays=relays, depth=None, width=None).parents
    async with session(through(sshd, 60), parents, relay_key=sshd.key.read_text(), folder=str(tmp_path)) as up:
        await check_commands(up)
        call = up.call(frames.SPAWN, up.up, {"shell": "echo up; sleep 500", "name": "p", "ready": "up"})
        assert await call.wait(tree.READY, timeout=20.0, extra=(1).to_bytes(4, "big"))
        assert call.groups(tree.READY, (1).to_bytes(4, "big")) == [(everyone(up), ["up"])]
        stop = up.call(frames.PROCESS, up.up, [call.number, "stop", 5.0])
        assert await stop.wait(tree.DONE, timeout=20.0)
        assert machineset.count(call.heard(tree.EXITED, (1).to_bytes(4, "big"))) == 60
    assert up.problems == []
    await check_left(sshd, tmp_path)
