"""The tree of a root that was killed is taken over: every machine is cleaned, by the way that the run had to it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fanout.agent import proctree
from fanout.errors import UsageError
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.holdings import Holdings
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome
from fanout.root.reclaim import sweep
from tests.agent.parent import gone
from tests.root.trees import chain, left, through, until

REPO = Path(__file__).parents[2]

ROOT = """
import asyncio, json, sys
from fanout.agent.core import frames
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from tests.agent.parent import gone
from tests.root.trees import outputs, run, session

async def main():
    told = json.load(sys.stdin)
    hosts = [Host(**{**host, "host_keys": tuple(host["host_keys"])}) for host in told["hosts"]]
    async with session(hosts, told["parents"], relay_key=told["key"], run=told["run"], lease=300.0) as up:
        shell = "setsid sleep 500 & echo up; sleep 500"
        call = up.call(frames.SPAWN, up.up, {"shell": shell, "name": "p", "ready": "up"})
        assert await call.wait(tree.READY, timeout=30.0, extra=(1).to_bytes(4, "big"))
        print(json.dumps({m: int(out) for m, out in outputs(await run(up, up.up, shell="echo $PPID")).items()}))
        sys.stdout.flush()
        await asyncio.sleep(500)

asyncio.run(main())
"""


def root_that_dies(told: dict[str, object]) -> dict[str, int]:
    """Start a root, hear from it, and kill it; its agents."""
    with subprocess.Popen([sys.executable, "-c", ROOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPO)}) as root:
        assert root.stdin is not None and root.stdout is not None
        root.stdin.write(json.dumps(told))
        root.stdin.close()
        try:
            return dict(json.loads(root.stdout.readline()))
        finally:
            root.kill()


@asynccontextmanager
async def orphans(sshd: LoopbackSshd, parents: list[int | None]) -> AsyncIterator[tuple[Holdings, list[int]]]:
    """What a root held that is killed by now, and its agents; at the end, nothing of it is left."""
    name = f"reclaim-{uuid.uuid4().hex[:8]}"
    hosts = through(sshd, len(parents))
    before = sshd.processes()  # what another test has left there is not asked about here
    told = {"hosts": [dataclasses.asdict(host) for host in hosts], "parents": parents, "key": sshd.key.read_text(),
            "run": name}
    agents = await asyncio.to_thread(root_that_dies, told)
    mark = f"FANOUT_PROCESS={name}/".encode()
    await until(lambda: len(proctree.marked(mark)) >= 2 * len(parents))  # one that is being loaded shows no mark
    machines = [Machine(i, host, "") for i, host in enumerate(hosts)]
    yield (Holdings(name, "hosts", machines, parents, range(len(machines)), lease=300.0),
           [agents[str(i)] for i in range(len(parents))])
    assert proctree.marked(mark) == []
    assert not [path for path in left(Path("/tmp")) if name in path.name]
    await until(lambda: not sshd.processes() - before)


pytestmark = pytest.mark.sshd


@pytest.mark.parametrize("parents", [[None, None], chain(2, 2), chain(1, 1, 2)], ids=["flat", "width 2", "depth 3"])
async def test_the_tree_as_it_is_ends_by_the_roots_own_links_alone(
        sshd: LoopbackSshd, parents: list[int | None]) -> None:
    async with orphans(sshd, parents) as (held, _):
        before = sshd.log.count("Accepted")
        swept = await sweep(held, 30.0)
        assert (len(swept.clean), swept.failures, swept.left) == (len(parents), [], [])
        assert sshd.log.count("Accepted") - before == parents.count(None)
        assert (await sweep(held, 30.0)).failures == [], "and again; relays have no key for it, and the root has"


async def test_where_agents_died_too_what_they_had_started_is_killed(sshd: LoopbackSshd) -> None:
    parents = chain(2, 2)
    async with orphans(sshd, parents) as (held, agents):
        os.kill(agents[0], signal.SIGKILL)  # a relay
        os.kill(agents[5], signal.SIGKILL)  # a leaf of the other
        swept = await sweep(held, 30.0)
        assert swept.failures == [] and len(swept.clean) == 6


async def test_a_relay_that_is_out_of_reach_is_named_and_costs_no_other_machine(sshd: LoopbackSshd) -> None:
    parents = chain(2, 2)
    async with orphans(sshd, parents) as (held, agents):
        away = dataclasses.replace(held.machines[0].host, address="no-such-host.invalid")
        machines = [dataclasses.replace(held.machines[0], host=away), *held.machines[1:]]
        swept = await sweep(dataclasses.replace(held, machines=machines), 3.0)
        assert [(f.machine, f.outcome) for f in swept.failures] == [("host-0", Outcome.UNREACHABLE)]
        assert swept.left == [0]
        for pid in agents[1:]:
            assert await asyncio.to_thread(gone, pid)
        swept = await sweep(dataclasses.replace(held, left=swept.left), 10.0)
        assert swept.clean == ["host-0"] and swept.failures == []


def test_what_is_written_down_comes_back(sshd: LoopbackSshd) -> None:
    machines = [Machine(i, host, "peer") for i, host in enumerate(through(sshd, 2))]
    held = Holdings("r", "hosts", machines, [None, 0], [0, 1], {"x": 1}, 5.0, {"kex": None}, 60.0, "here")
    assert Holdings.from_json(json.loads(json.dumps(held.as_json()))) == held
    assert held and not Holdings("r", "hosts", machines, [None, 0])
    for bad in ({}, [], None, {**held.as_json(), "left": [7]}, {**held.as_json(), "parents": []}):
        with pytest.raises(UsageError, match="damaged"):
            Holdings.from_json(bad)
