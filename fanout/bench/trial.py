"""One tree, brought up once and measured: a process of its own, so that its CPU, memory and descriptors are its own.

What is to be done comes as JSON on standard input, and what was found goes out as JSON: `Trial` and its findings, a
flat table of numbers.  Seconds, bytes and counts; what was not measured is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.bench.bed import PATIENCE, memory_now, memory_peak, run, settled
from fanout.bench.choreography import barriers
from fanout.bench.figure import median
from fanout.bench.logs import LINE, program
from fanout.fleets.base import Host
from fanout.root.machine import Machine
from fanout.root.session import Session
from fanout.root.settings import Settings
from fanout.root.shipping import Source
from fanout.root.ssh_options import Shared

COMMANDS = 5  # later commands, of which the median is told
TRIPS = 10  # commands on one machine
BARRIERS = 3
LOGS = 10e6  # bytes of logs in all, at most LOG from each machine
LOG = 1e6
FILES = 40e6  # bytes of files in all, at most FILE for each machine
FILE = 4 << 20


@dataclass(frozen=True)
class Trial:
    run: str
    hosts: list[Host]
    parents: list[int | None]
    relay_key: str | None = None
    connect_timeout: float = 120.0
    skip: list[str] = field(default_factory=list)
    """Of barrier, logs, files."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def busy() -> float:
    """CPU seconds that this host has spent so far, all its processes; 0 where the system does not tell."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft = map(int, first.split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Wall and CPU seconds of a stretch of work: of this process, and of all else on this host."""

    def __init__(self) -> None:
        self._began, self._own, self._busy = time.monotonic(), time.process_time(), busy()

    def read(self) -> tuple[float, float, float]:
        """(wall, own CPU, CPU of other processes here) since the beginning."""
        own = time.process_time() - self._own
        return time.monotonic() - self._began, own, max(0.0, busy() - self._busy - own)


async def measure(trial: Trial) -> dict[str, float]:
    """RuntimeError when a machine is missing: figures of a part of the fleet would mislead."""
    hosts = [Host(**{**asdict(host), "host_keys": tuple(host.host_keys)}) for host in trial.hosts]
    machines = [Machine(i, host, "") for i, host in enumerate(hosts)]
    settings = Settings(trial.run, connect_timeout=trial.connect_timeout, lease=PATIENCE)
    if not hosts[0].local:
        Shared(settings).options(hosts[0])  # what is imported and read once is no part of a tree
    empty = memory_now()
    session = Session(machines, trial.parents, settings, relay_key=trial.relay_key)
    found: dict[str, float] = {}
    try:
        await _connect(session, found)
        found["memory"] = max(0.0, memory_now() - empty) * 1e6
        found["descriptors"] = len(os.listdir("/dev/fd"))  # noqa: PTH208
        await _commands(session, found)
        await _trips(session, found)
        if "barrier" not in trial.skip:
            rounds = await barriers(session, "bench", BARRIERS)
            # Each machine has its own clock; who came last waited least.
            found["barrier"] = median([min(went - came for came, went in pairs) for pairs in rounds])
        if "logs" not in trial.skip:
            await _logs(session, found)
        if "files" not in trial.skip:
            await _files(session, found)
        found["memory_peak"] = memory_peak() * 1e6
    finally:
        await session.end(grace=0.2, timeout=60.0)
    return found


async def _connect(session: Session, found: dict[str, float]) -> None:
    began = time.monotonic()

    def up(machine: int) -> None:
        found.setdefault("first", time.monotonic() - began)

    session.on_up = up
    meter = Meter()
    await session.connect()
    found["ready"], found["connect_cpu"], found["connect_here"] = meter.read()
    if session.down:
        machine, (outcome, reason) = next(iter(session.down.items()))
        raise RuntimeError(f"{len(session.down)} machines did not come up; {session.machines[machine].name}:"
                           f" {outcome}: {reason}")
    statistics = session.statistics()
    found["connect_messages"] = statistics["messages_in"] + statistics["messages_out"]
    found["connect_bytes"] = statistics["bytes_in"] + statistics["bytes_out"]
    found["connections"] = statistics["connections"]
    gc.freeze()


async def _commands(session: Session, found: dict[str, float]) -> None:
    meter = Meter()
    await run(session, session.up, argv=["true"])
    found["first_command"] = meter.read()[0]
    before = session.statistics()
    whole = Meter()
    taken = []
    for _ in range(COMMANDS):
        meter = Meter()
        await run(session, session.up, argv=["true"])
        taken.append(meter.read()[0])
    _, cpu, here = whole.read()
    after = session.statistics()
    found["command"] = median(taken)
    found["command_cpu"], found["command_here"] = cpu / COMMANDS, here / COMMANDS
    for what in ("messages", "bytes"):
        both = (f"{what}_in", f"{what}_out")
        found[f"command_{what}"] = sum(after[key] - before[key] for key in both) / COMMANDS


async def _trips(session: Session, found: dict[str, float]) -> None:
    """A command on the deepest machine, and on the relay at its top: what lies between is hops."""
    deepest = max((list(session.topology.way(machine)) for machine in range(len(session.machines))), key=len)
    times = []
    for machine in (deepest[0], deepest[-1]):
        taken = []
        for _ in range(TRIPS):
            meter = Meter()
            await run(session, machineset.single(machine), argv=["true"])
            taken.append(meter.read()[0])
        times.append(median(taken))
    found["trip"] = times[0]
    if len(deepest) > 1:
        found["hop"] = max(0.0, times[0] - times[1]) / (len(deepest) - 1)


async def _logs(session: Session, found: dict[str, float]) -> None:
    count = len(session.machines)
    lines = max(1, int(min(LOG, LOGS / count) / (len(LINE) + 10)))
    expected = session.forwarded + count * lines * (len(LINE) + 10)
    meter = Meter()
    call = session.call(frames.SPAWN, session.up, {"shell": program(lines), "name": "load", "logs": "all"})
    await settled(call, tree.EXITED, (1).to_bytes(4, "big"))
    async with asyncio.timeout(PATIENCE):
        while session.forwarded < expected:  # noqa: ASYNC110  logs have no event of their own
            await asyncio.sleep(0.005)
    wall, cpu, _ = meter.read()
    size = count * lines * (len(LINE) + 10)
    found["logs_rate"], found["logs_cpu"] = size / wall, cpu / size * 1e8


@contextlib.asynccontextmanager
async def _source(size: int) -> AsyncIterator[Source]:
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(os.urandom(size))
        source = Source(path)
        try:
            yield source
        finally:
            source.close()


async def _files(session: Session, found: dict[str, float]) -> None:
    count = len(session.machines)
    size = int(min(FILE, FILES / count))
    async with _source(size) as source:
        meter = Meter()
        call = session.shipping.ship(source, session.up, "fanout-bench-file", None)
        session.kick()
        await settled(call, tree.DONE)
        session.shipping.over(call)
        wall, cpu, here = meter.read()
    for _, (outcome, reason) in call.groups(tree.DONE):
        if outcome != "ok":
            raise RuntimeError(f"a file did not arrive: {reason}")
    found["files_rate"], found["files_cpu"] = size * count / wall, cpu
    found["files_here"] = (here + cpu) / (size * count)  # CPU of this host, for a byte at a machine


def main() -> int:
    job = json.load(sys.stdin)
    trial = Trial(**{**job, "hosts": [Host(**host) for host in job["hosts"]]})
    try:
        found = asyncio.run(measure(trial))
    except (RuntimeError, TimeoutError) as error:
        print(error or "not done in time", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
