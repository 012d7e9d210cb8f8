"""Ends leases whose time is over or whose tenant is silent, and sees to it that their machines go.

It looks at the store, not at memory: what a broker that died has left is done by the first look of the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from fanout.broker import leases
from fanout.broker.provisioner import Clock, Provisioner
from fanout.broker.store import Store
from fanout.durations import show

log = logging.getLogger("fanout.broker")
PERIOD = 1.0  # s
PRUNE = 3600.0  # s


class Reaper:
    def __init__(self, store: Store, provisioner: Provisioner, clock: Clock, keep: float) -> None:
        """`keep` is for how many seconds ended leases and audit entries are kept."""
        self._store = store
        self._provisioner = provisioner
        self._clock = clock
        self._keep = keep
        self._pruned = 0.0
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """Look now: something has ended.  On the event loop."""
        self._nudge.set()

    async def run(self) -> None:
        """For ever; a store that does not answer is tried again."""
        while True:
            self._nudge.clear()
            try:
                for lease_id in await asyncio.to_thread(self._look):
                    self._provisioner.release(lease_id)
            except Exception:
                log.exception("the reaper will look again in %s", show(PERIOD))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), PERIOD)

    def _look(self) -> list[str]:
        """Which leases have to be released now."""
        now = self._clock()
        with self._store.begin() as session:
            for lease_id, cause in leases.overdue(session, now):
                leases.end(session, lease_id, cause, now)
            if now - self._pruned >= PRUNE:
                leases.prune(session, now - self._keep)
                self._pruned = now
            return leases.to_release(session, now)
