"""Trees of real agents for tests: a session over local machines, or over any hosts, that must leave nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.call import Call
from fanout.root.machine import Machine
from fanout.root.session import Session
from fanout.root.settings import Settings

TIMEOUT = 30.0  # s for one command


def local(count: int, **options: Any) -> list[Host]:
    return [Host(f"local-{i}", "127.0.0.1", local=True, **options) for i in range(count)]


def through(sshd: LoopbackSshd, count: int, **options: Any) -> list[Host]:
    """Hosts behind one sshd, each with an address of its own."""
    return [
        Host(**{"name": f"host-{i}", "address": f"127.1.{i // 250}.{i % 250 + 1}", "port": sshd.port,
                "user": sshd.user, "key": str(sshd.key), "host_keys": sshd.host_keys, **options})
        for i in range(count)]


def chain(*widths: int) -> list[int | None]:
    """Parents of a tree with so many children per node at each level: chain(1, 2) is a relay with two leaves."""
    parents: list[int | None] = []
    level: list[int | None] = [None]
    for width in widths:
        following: list[int | None] = []
        for parent in level:
            for _ in range(width):
                following.append(len(parents))
                parents.append(parent)
        level = following
    return parents


@asynccontextmanager
async def session(hosts: Sequence[Host], parents: Sequence[int | None], *, relay_key: str | None = None,
                  **settings: Any) -> AsyncIterator[Session]:
    """Connected on entering; ended on leaving, unless the test has done so."""
    machines = [Machine(i, host, "peer") for i, host in enumerate(hosts)]
    options = {"run": uuid.uuid4().hex[:8], "connect_timeout": 40.0, "lease": 10.0, **settings}
    one = Session(machines, parents, Settings(**options), relay_key=relay_key)
    try:
        await one.connect()
        yield one
    finally:
        await one.end(grace=0.2)


async def run(session: Session, machines: int, timeout: float = TIMEOUT, **spec: Any) -> Call:
    call = session.call(frames.RUN, machines, spec)
    assert await call.wait(tree.DONE, timeout=timeout), f"no answer from {machineset.members(call.targets)}"
    return call


async def until(done: Callable[[], Any], timeout: float = TIMEOUT) -> None:
    """Wait for what no call waits for."""
    async with asyncio.timeout(timeout):
        while not done():  # noqa: ASYNC110  what is looked at has no event of its own
            await asyncio.sleep(0.01)


def outputs(call: Call) -> dict[int, bytes]:
    """Machine -> standard output, of commands that went well."""
    found = {}
    for machines, (outcome, _, out, err, _) in call.groups(tree.DONE):
        assert outcome == "ok", err
        found.update(dict.fromkeys(machineset.members(machines), out))
    return found


def everyone(session: Session) -> int:
    return (1 << len(session.machines)) - 1


def left(folder: Path) -> list[Path]:
    return list(folder.glob("fanout-*"))
