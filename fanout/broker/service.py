"""One broker, put together: its store, its offers, and the tasks that make and remove machines while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fanout.broker import leases
from fanout.broker.limits import Rates
from fanout.broker.metrics import Metrics
from fanout.broker.offers import Offer
from fanout.broker.provisioner import Clock, Provisioner
from fanout.broker.reaper import Reaper
from fanout.broker.store import Store

IDLE = 120.0
"""Seconds without a heartbeat after which a lease ends."""
KEEP = 90 * 86400.0
"""Seconds that ended leases and audit entries are kept."""
STOP = 45.0
"""Seconds that machines which are just being made or removed are waited for when the broker stops."""


class Broker:
    def __init__(
        self, store: Store, offers: Mapping[str, Offer], *, idle: float = IDLE, keep: float = KEEP,
        clock: Clock = time.time,
    ) -> None:  # fmt: skip
        """`clock` gives seconds since 1970; leases are measured by it."""
        self.store = store
        self.offers = offers
        self.idle = idle
        self.clock = clock
        self.metrics = Metrics()
        self.rates = Rates(time.monotonic)
        self.provisioner = Provisioner(store, self.metrics, clock)
        self._reaper = Reaper(store, self.provisioner, clock, keep)
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Leases live while this is open; those that are ready outlive it, and are the next broker's."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._recover)
        reaping = asyncio.create_task(self._reaper.run())
        try:
            yield
        finally:
            reaping.cancel()
            await asyncio.wait({reaping})
            await self.provisioner.stop(STOP)

    def make(self, lease_id: str) -> None:
        """From any thread."""
        self._soon(self.provisioner.make, lease_id)

    def nudge(self) -> None:
        """A lease is ending; from any thread."""
        self._soon(self._reaper.nudge)

    def _soon(self, what: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what, *args)

    def _recover(self) -> None:
        with self.store.begin() as session:
            leases.recover(session, self.clock(), self.idle)
