"""What trees are measured on: hosts behind one real sshd on loopback, and a session over them."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanout.agent.core import frames
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.call import Call
from fanout.root.machine import Machine
from fanout.root.planner import plan
from fanout.root.session import Session
from fanout.root.settings import Settings

PATIENCE = 120.0  # s for anything that is measured


@dataclass(frozen=True)
class Bed:
    sshd: LoopbackSshd
    folder: str

    def hosts(self, count: int) -> list[Host]:
        """Each with an address of its own."""
        return [
            Host(f"host-{i}", f"127.1.{i // 250}.{i % 250 + 1}", port=self.sshd.port, user=self.sshd.user,
                 key=str(self.sshd.key), host_keys=self.sshd.host_keys)
            for i in range(count)]

    @asynccontextmanager
    async def session(self, machines: int, relays: int, depth: int | None = None, **sinks: Any
                      ) -> AsyncIterator[Session]:
        """Not connected yet; ended on leaving.  `sinks` become attributes: on_log, on_report."""
        hosts = [Machine(i, host, "") for i, host in enumerate(self.hosts(machines))]
        parents = plan(machines, relays=relays, depth=depth, width=None).parents
        settings = Settings(uuid.uuid4().hex[:8], connect_timeout=PATIENCE, lease=PATIENCE, folder=self.folder)
        session = Session(hosts, parents, settings, relay_key=self.sshd.key.read_text())
        for name, sink in sinks.items():
            setattr(session, name, sink)
        try:
            yield session
        finally:
            await session.end(grace=0.2, timeout=60.0)


@contextmanager
def bed() -> Iterator[Bed]:
    """Without sshd's brake on new connections: it is fanout that is measured."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fanout-bench-"))
        sshd = stack.enter_context(LoopbackSshd({"MaxStartups": "1000", "LogLevel": "ERROR"}))
        yield Bed(sshd, folder)


async def connected(session: Session) -> None:
    """RuntimeError when a machine is missing: figures of a part of the fleet would mislead."""
    await session.connect()
    if session.down:
        raise RuntimeError(f"machines did not come up: {session.down}")


async def settled(call: Call, phase: int, extra: bytes = b"") -> Call:
    """RuntimeError unless every machine answers."""
    if not await call.wait(phase, timeout=PATIENCE, extra=extra) or call.targets & ~call.heard(phase, extra):
        raise RuntimeError(f"a command was not answered by all: {call.refused}")
    return call


async def run(session: Session, machines: int, **spec: Any) -> Call:
    call = await settled(session.call(frames.RUN, machines, spec), tree.DONE)
    for _, (outcome, _, _, err, _) in call.groups(tree.DONE):
        if outcome != "ok":
            raise RuntimeError(f"a command failed: {err.decode('utf-8', 'replace')}")
    return call


async def agents_peak(session: Session) -> float:
    """MB that the largest agent has had at most."""
    call = await run(session, session.up, argv=["sh", "-c", "exec grep VmHWM /proc/$PPID/status"])
    return max(int(answer[2].split()[1]) for _, answer in call.groups(tree.DONE)) / 1024


def memory_peak() -> float:
    """MB that this process has had at most."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # macOS, which tells it in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def memory_now() -> float:
    """MB that this process has; where nobody tells, that it has had at most."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return memory_peak()
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
