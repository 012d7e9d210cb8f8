"""Machines that go in the middle of things: lost in time, others unharmed, and nothing left on any of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from fanout.fleets.lab import Lab
from fanout.root.outcomes import Outcome
from fanout.root.session import Session
from tests.agent.parent import gone
from tests.root.trees import everyone, outputs, run, session, until

pytestmark = pytest.mark.lab

Labs = Callable[..., Lab]
LOST_WITHIN = 25.0  # s; silence is noticed in 6, then come 2 of recovery


@asynccontextmanager
async def on(lab: Lab, parents: Sequence[int | None], **settings: Any) -> AsyncIterator[Session]:
    hosts = [Host(h.name, h.address, user=h.user, port=h.port, key=str(lab.key), host_keys=h.host_keys)
             for h in lab.hosts]
    async with session(hosts, parents, relay_key=lab.key.read_text(), **settings) as up:
        yield up


async def settle(lab: Lab, machines: Sequence[int]) -> None:
    """Wait for all but sshd to end on these hosts, and see that they are as they were.

    An sshd whose client lost its power keeps the session until TCP gives up: that is not ours to end.
    """
    for machine in machines:
        host = lab.hosts[machine]
        for pid, title in lab.processes(host).items():
            if "sshd" not in title:
                assert await asyncio.to_thread(gone, pid), title
        assert lab.changed_files(host) == []


async def test_machines_that_go_in_the_middle_of_a_command_are_lost_and_the_others_are_not(lab: Labs) -> None:
    """A leaf and a relay each lose their power, or their link."""
    here = lab(8)
    parents = [None, None, None, 0, 0, 1, 2, None]
    for_ever = (1, 2, 3, 4)
    rest = machineset.of([0, 5, 6, 7])  # 5 and 6 lose their relays, and are attached elsewhere
    async with on(here, parents, lease=12.0, recover=3.0) as up:  # a lease longer than what a loss takes to be seen
        assert up.down == {}
        spawned = up.call(frames.SPAWN, up.up, {"shell": "echo up; sleep 500", "name": "p", "ready": "up"})
        assert await spawned.wait(tree.READY, timeout=20.0, extra=(1).to_bytes(4, "big"))
        call = up.call(frames.RUN, up.up, {"shell": "case {id} in [1-4]) exec sleep 60; esac; echo {id}"})
        await call.wait(tree.DONE, timeout=20.0, enough=4)
        for machine in for_ever:
            (here.power_cut if machine % 2 else here.link_down)(here.hosts[machine])
        assert await call.wait(tree.DONE, timeout=LOST_WITHIN)
        await until(lambda: up.up == rest)
        assert set(up.down) == set(for_ever) and spawned.lost == everyone(up) & ~rest
        assert {outcome for outcome, _ in up.down.values()} == {Outcome.LOST}
        assert all("no sign of life" in reason for _, reason in up.down.values())
        assert outputs(await run(up, rest, shell="echo {id}")) == {
            m: b"%d\n" % m for m in machineset.members(rest)}
        assert not spawned.heard(tree.EXITED, (1).to_bytes(4, "big"))
    assert up.problems == []
    for machine in (2, 4):
        here.link_up(here.hosts[machine])
    await settle(here, [0, 2, 4, 5, 6, 7])


async def test_a_run_leaves_nothing_on_any_host(lab: Labs) -> None:
    here = lab(3)
    async with on(here, [None, 0, 1]) as up:
        assert up.down == {}
        await run(up, up.up, shell="echo kept > file; mkdir -p a/b")
        shell = "setsid sleep 500 & seq 1000; sleep 500"
        call = up.call(frames.SPAWN, up.up, {"shell": shell, "name": "p", "ready": "1000"})
        assert await call.wait(tree.READY, timeout=20.0, extra=(1).to_bytes(4, "big"))
        assert all(here.changed_files(host) for host in here.hosts)
    assert up.problems == []
    await settle(here, range(3))


async def test_a_full_disk_costs_logs_that_are_counted_and_nothing_else(lab: Labs) -> None:
    here = lab(3)
    full, small, ample = here.hosts
    here.run_in(full, ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=2", "tmpfs", "/mnt"])
    here.run_in(small, ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"])
    here.run_in(ample, ["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    # Machine 0 can make one folder, but no second one in it.
    async with on(here, [None, None, None], folder="/mnt") as up:
        await until(lambda: 0 in up.down)
        assert up.down[0][0] in (Outcome.FAILED, Outcome.LOST) and "No space left" in up.down[0][1]
        call = up.call(frames.SPAWN, 0b010, {"shell": "seq 500000; read x", "name": "p", "ready": "^500000$"})
        assert await call.wait(tree.READY, timeout=20.0, extra=(1).to_bytes(4, "big"))
        assert outputs(await run(up, 0b110, argv=["echo", "well"])) == {1: b"well\n", 2: b"well\n"}
    assert [(m, "No space left" in problem) for m, problem in up.problems] == [(0b010, True)]
    assert up.rotated > 2_000_000
    for host in here.hosts:
        assert here.run_in(host, ["ls", "-A", "/mnt"]).stdout == ""


async def test_below_a_relay_without_room_for_what_ssh_needs_the_root_reaches_all_itself(lab: Labs) -> None:
    here = lab(3)
    here.run_in(here.hosts[0], ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "tmpfs", "/mnt"])
    async with on(here, [None, 0, 0], folder="/mnt", connect_timeout=10.0) as up:
        assert up.up == 0b111 and up.topology.parents == [None] * 3
        assert ["No space left" in note for note in up.unaided_notes()] == [True]
    assert here.run_in(here.hosts[0], ["ls", "-A", "/mnt"]).stdout == ""
