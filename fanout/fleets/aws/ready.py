"""Whether machines can be logged in to: their sshd shows the run's mark in its banner.

Only the banner is read.  A login that fails, or a handshake that is broken off, counts against the root where sshd
keeps penalties (PerSourcePenalties); a machine that is not prepared yet would soon refuse it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

PROBES = 64  # at a time
PROBE = 5.0  # s for one
WAIT, WAIT_MOST = 1.0, 8.0  # s between probes of a machine, doubled each time and stretched by a random half
BANNER = 255  # bytes at most: RFC 4253, 4.2


class Readiness:
    """Probes machines until each is ready; `ready` grows."""

    def __init__(self, mark: str, on_ready: Callable[[], None]) -> None:
        self.ready: set[str] = set()
        self.said: dict[str, str] = {}
        """What was wrong with a machine the last time."""
        self._mark = mark.encode()
        self._on_ready = on_ready
        self._slots = asyncio.Semaphore(PROBES)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, machine: str, address: str, port: int = 22) -> None:
        if machine not in self._tasks:
            self._tasks[machine] = asyncio.ensure_future(self._until_ready(machine, address, port))

    def forget(self, machine: str) -> None:
        """It is gone."""
        self.ready.discard(machine)
        if machine in self._tasks:
            self._tasks[machine].cancel()

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _until_ready(self, machine: str, address: str, port: int) -> None:
        wait = WAIT
        while True:
            async with self._slots:
                problem = await self._probe(address, port)
            if not problem:
                break
            self.said[machine] = problem
            await asyncio.sleep(wait * (1 + random.random() / 2))  # noqa: S311  jitter
            wait = min(WAIT_MOST, wait * 2)
        self.said.pop(machine, None)
        self.ready.add(machine)
        self._on_ready()

    async def _probe(self, address: str, port: int) -> str:
        """What is wrong; empty when nothing is."""
        try:
            async with asyncio.timeout(PROBE):
                reader, writer = await asyncio.open_connection(address, port, limit=BANNER)
                try:
                    banner = await reader.readline()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except TimeoutError:
            return f"nothing answers at {address}"
        except (OSError, ValueError) as error:
            return f"{address}: {error}"
        if self._mark not in banner.split():
            return "its sshd answers, and it is not prepared yet (does the image run user data by cloud-init?)"
        return ""
