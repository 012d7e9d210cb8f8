"""A file to all machines: how long, what it costs the root and each agent, and what it does to a barrier meanwhile."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from fanout.agent.core.node import DONE
from fanout.bench.bed import agents_peak, bed, connected, memory_peak, run, settled
from fanout.bench.choreography import beside
from fanout.bench.figure import Figure, Size
from fanout.root.session import Session
from fanout.root.shipping import Source

GAP = 0.05  # s between two files of a long transfer


def _file(folder: str, megabytes: int) -> Path:
    """Bytes that nothing compresses."""
    path = Path(folder) / "file"
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))
    return path


async def _ship(session: Session, source: Source, to: str, cache: bool) -> float:
    """Seconds until every machine has it."""
    began = time.monotonic()
    call = session.shipping.ship(source, session.up, to, None, cache)
    try:
        await settled(call, DONE)
        bad = [answer for _, answer in call.groups(DONE) if answer[0] != "ok"]
        if bad:
            raise RuntimeError(f"a machine could not take the file: {bad[0][1]}")
    finally:
        session.shipping.over(call)
    return time.monotonic() - began


def measure_copy(size: Size) -> list[Figure]:
    """The machines share one disk, so the first ship is without their caches; the second is with what they keep."""

    async def copies(folder: str) -> list[Figure]:
        source = Source(_file(folder, size.megabytes))
        to = f"{folder}/there-{{id}}"
        async with place.session(size.machines // 2, max(1, size.relays // 2)) as session:
            await connected(session)
            await run(session, session.up, argv=["/bin/true"])
            cpu = time.process_time()
            first = await _ship(session, source, to, False)
            cpu = time.process_time() - cpu
            sent = session.shipping.sent
            await _ship(session, source, to, True)
            again = await _ship(session, source, to, True)
            agents = await agents_peak(session)
        source.close()
        total = size.megabytes * (size.machines // 2)
        return [
            Figure(f"{size.megabytes} MB to {size.machines // 2} machines, cache off", first, "s"),
            Figure("all machines together", total / first, "MB/s"),
            Figure("root CPU for each 100 MB it sends", cpu / (sent / 1e8), "s"),
            Figure("copies that the root sends", sent / source.size, "", max(1, size.relays // 2) * 1.05),
            Figure("the same again, cache on", again, "s", 1.0),
            Figure("memory of an agent at most", agents, "MB", 24.0),
            Figure("memory of the root at most", memory_peak(), "MB"),
        ]

    with bed() as place, tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        return asyncio.run(copies(folder))


def measure_copy_barrier(size: Size) -> list[Figure]:
    """Barriers while one file after the other goes to all."""

    async def both(folder: str) -> list[Figure]:
        source = Source(_file(folder, size.megabytes))
        sent = 0

        async def ship_on(session: Session) -> None:
            nonlocal sent
            while True:
                await _ship(session, source, f"{folder}/there-{{id}}", False)
                sent += 1
                await asyncio.sleep(GAP)

        async with place.session(size.machines // 2, max(1, size.relays // 2)) as session:
            await connected(session)
            figures = await beside(session, "while files are shipped", lambda: ship_on(session))
        source.close()
        return figures

    with bed() as place, tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        return asyncio.run(both(folder))
