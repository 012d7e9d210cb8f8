"""How fast logs reach the root's folder, and whether all of them do."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

from fanout.agent.core import frames
from fanout.agent.core import node as tree
from fanout.bench.bed import PATIENCE, bed, connected, memory_peak, settled
from fanout.bench.figure import Figure, Size
from fanout.report.folder import RunFolder

LINE = "a line of log as programs print it, of about one hundred characters with its number at the end "


def program(lines: int) -> str:
    return f"awk 'BEGIN {{ for (i = 0; i < {lines}; i++) printf \"{LINE}%09d\\n\", i }}'"


def measure_logs(size: Size) -> list[Figure]:
    expected = size.loggers * size.lines * (len(LINE) + 10)

    async def forward(folder: RunFolder) -> list[Figure]:
        def keep(machine: int, process: int, data: bytes, when: float) -> None:
            folder.log(f"host-{machine}", "load", data, when)

        async with place.session(size.loggers, min(size.relays, size.loggers), on_log=keep) as session:
            await connected(session)
            began, cpu, before = time.monotonic(), time.process_time(), session.statistics()
            spec = {"shell": program(size.lines), "name": "load", "logs": "all"}
            call = session.call(frames.SPAWN, session.up, spec)
            await settled(call, tree.EXITED, (1).to_bytes(4, "big"))
            async with asyncio.timeout(PATIENCE):
                while session.forwarded < expected:  # noqa: ASYNC110  logs have no event of their own
                    await asyncio.sleep(0.01)
            taken, cpu = time.monotonic() - began, time.process_time() - cpu
            messages = session.statistics()["messages_in"] - before["messages_in"]
        kept = sum(path.stat().st_size for path in (folder.path / "machines").glob("*/load.log"))
        megabytes = expected / 1e6
        return [
            Figure("logs to the root's folder", taken, "s", None, _bare(size), "the programs alone"),
            Figure("logs: rate", megabytes / taken, "MB/s"),
            Figure("logs: root CPU, for each 100 MB", cpu / megabytes * 100, "s"),
            Figure("logs: messages to the root, for each MB", messages / megabytes, ""),
            Figure("logs: bytes lost", expected - kept, "", 0.0),
            Figure("logs: root memory at most", memory_peak(), "MB"),
        ]

    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as base, bed() as place:
        path = Path(base) / "run"
        with RunFolder("bench", scenario="bench", fleet="bench", path=path) as folder:
            return asyncio.run(forward(folder))


def _bare(size: Size) -> float:
    began = time.monotonic()
    programs = [subprocess.Popen(["/bin/sh", "-c", program(size.lines)], stdout=subprocess.DEVNULL)
                for _ in range(size.loggers)]
    for one in programs:
        one.wait(PATIENCE)
    return time.monotonic() - began
