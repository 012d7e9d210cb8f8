"""Files of machines home to the root, through one relay: how fast, and what it costs the root and each agent."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from fanout.agent.core import machineset
from fanout.bench.bed import PATIENCE, agents_peak, bed, connected, memory_peak, run
from fanout.bench.choreography import beside
from fanout.bench.figure import Figure, Size
from fanout.root.fetching import Fetch
from fanout.root.session import Session

LEAVES = 4  # machines behind the relay
SMALL = 500  # files, for each MB of the large one
CAP = 1 << 40


async def _fetch(session: Session, here: Path, machines: int, pattern: str) -> tuple[float, float, float]:
    """(seconds, root CPU seconds, MB as the root has received them) until all is there.

    RuntimeError unless all has come.
    """
    began, cpu, before = time.monotonic(), time.process_time(), session.statistics()["bytes_in"]
    fetch = Fetch(session, lambda machine: here / str(machine), CAP, CAP)
    fetch.begin(machines, pattern)
    good = await fetch.wait(PATIENCE)
    fetch.close()
    if not good or any(not intake.over or intake.left for intake in fetch.intakes.values()):
        raise RuntimeError("not all files came")
    wire = (session.statistics()["bytes_in"] - before) / 1e6
    return time.monotonic() - began, time.process_time() - cpu, wire


async def _flow(session: Session, here: Path, machines: int) -> None:
    """One fetch after the other."""
    while True:
        await _fetch(session, here, machines, "noise")


def measure_fetch(size: Size) -> list[Figure]:
    async def fetches(folder: Path) -> list[Figure]:
        async with place.session(LEAVES + 1, 1) as session:
            await connected(session)
            small = SMALL * size.megabytes
            leaves = session.up & ~session.topology.relays
            one = machineset.single(machineset.first(leaves))
            await run(session, leaves, argv=["sh", "-c", f"head -c {size.megabytes << 20} /dev/urandom > noise"])
            await run(session, one, argv=["sh", "-c", f"mkdir many && cd many && seq {small} | split -l 1 -a 4"])
            await run(session, leaves, argv=["sh", "-c", f"seq 100000000 | head -c {size.megabytes << 20} > text"])
            total = size.megabytes * 1.048576 * LEAVES
            noise, noise_cpu, _ = await _fetch(session, folder / "noise", leaves, "noise")
            text, text_cpu, wire = await _fetch(session, folder / "text", leaves, "text")
            many, many_cpu, _ = await _fetch(session, folder / "many", one, "many")
            barriers = await beside(session, "while files come", lambda: _flow(session, folder / "again", leaves))
            agents = await agents_peak(session)
        return [
            Figure("files up through a relay, noise", total / noise, "MB/s"),
            Figure("root CPU for each 100 MB of noise", noise_cpu / total * 100, "s"),
            Figure("files up through a relay, text", total / text, "MB/s"),
            Figure("root CPU for each 100 MB of text", text_cpu / total * 100, "s"),
            Figure("text on the wire, of its size", wire / total, ""),
            Figure(f"{small} small files of one machine", many, "s"),
            Figure("root CPU for them", many_cpu, "s"),
            *barriers,
            Figure("memory of an agent at most", agents, "MB", 24.0),
            Figure("memory of the root at most", memory_peak(), "MB"),
        ]

    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as base, bed() as place:
        return asyncio.run(fetches(Path(base)))
