"""Calls the fleets: makes what leases were granted, removes what leases have ended.  On the event loop.

What always holds: the store knows of a lease before its fleet is called, and forgets it only when `release` has
returned.  A release is of the instance that provisioned, while there is one; later, after a failure or a restart, the
fleet takes back what it had noted in the store before it made it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from fanout.broker import leases
from fanout.broker.leases import Cause
from fanout.broker.metrics import Metrics
from fanout.broker.store import Store
from fanout.errors import FanoutError, FleetError
from fanout.fleets import open_fleet
from fanout.fleets.base import Fleet, Host

log = logging.getLogger("fanout.broker")
Clock = Callable[[], float]
UNWIND = 30.0  # s; for a fleet to stop making what nobody wants any more
P = ParamSpec("P")
T = TypeVar("T")


class Provisioner:
    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._making: dict[str, asyncio.Task[None]] = {}
        self._releasing: dict[str, asyncio.Task[None]] = {}
        self._fleets: dict[str, Fleet] = {}
        self._progress: dict[str, tuple[int, int]] = {}

    def progress(self, lease_id: str) -> tuple[int, int] | None:
        """(machines ready, machines wanted) of a lease that is being made; for any thread."""
        return self._progress.get(lease_id)

    def make(self, lease_id: str) -> None:
        """Begin to make what was granted; the lease is `ready` or `ending` when that is over."""
        _keep(self._making, lease_id, self._make(lease_id))

    def release(self, lease_id: str) -> None:
        """Begin to remove what a lease has, which is `ending`; nothing if that has begun."""
        if lease_id not in self._releasing:
            _keep(self._releasing, lease_id, self._release(lease_id))

    async def stop(self, timeout: float) -> None:
        """Make nothing more.  What is not removed in time is left to the next broker of this store."""
        for lease_id in list(self._making):
            await self._write(leases.end, lease_id, Cause.INTERRUPTED, self._clock())
            self.release(lease_id)
        if self._releasing:
            await asyncio.wait(set(self._releasing.values()), timeout=timeout)
        left = [*self._making.values(), *self._releasing.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _make(self, lease_id: str) -> None:
        try:
            await self._provision(lease_id)
        except Exception as error:
            if not isinstance(error, FanoutError):
                log.exception("%s: a fleet failed in a way that fleets should not", lease_id)
            log.warning("%s: not made: %s", lease_id, error)
            # Its first line is for the tenant.  What a program said may have what only the operator may see.
            first = f"{error}".partition("\n")[0] if isinstance(error, FanoutError) else "the fleet failed"
            reason = f"the machines could not be made: {first.rstrip(':')}; the broker's operator knows more"
            await self._write(leases.end, lease_id, Cause.FAILED, self._clock(), reason, error=f"{error}"[:4000])
        finally:
            self._progress.pop(lease_id, None)

    async def _provision(self, lease_id: str) -> None:
        order = await self._write(leases.order, lease_id)
        began = self._clock()
        fleet = self._fleets[lease_id] = open_fleet(order.spec)
        fleet.say = lambda text: log.info("%s: %s", lease_id, text)
        fleet.record = lambda made: self._remember(lease_id, made)
        hosts = await fleet.provision(order.request, lambda *counts: self._progress.update({lease_id: counts}))
        _check(hosts, order.request.machines or 0, order.request.relays)
        key = fleet.relay_key
        if await self._write(leases.ready, lease_id, hosts, key, self._clock()):
            self._metrics.making.labels(fleet.name).observe(self._clock() - began)
            log.info("%s: ready: %d machines", lease_id, len(hosts))

    async def _release(self, lease_id: str) -> None:
        try:
            if making := self._making.get(lease_id):
                making.cancel()
                await asyncio.wait({making}, timeout=UNWIND)
            fleet, order = self._fleets.pop(lease_id, None), await self._write(leases.order, lease_id)
            kind = fleet or open_fleet(order.spec)
            async with asyncio.timeout(kind.release_timeout):
                if fleet is not None:
                    await fleet.release()
                elif order.made is not None:
                    await kind.reclaim(order.request.run, order.made, lambda text: log.info("%s: %s", lease_id, text))
        except Exception as error:
            text = f"{error}" if isinstance(error, FanoutError) else f"{type(error).__name__} {error}"
            self._metrics.not_released.inc()
            wait = await self._write(leases.not_released, lease_id, self._clock(), text[:4000])
            log.error("%s: not released, again in %.0f s: %s", lease_id, wait, text)
        else:
            cause = await self._write(leases.ended, lease_id, self._clock())
            self._metrics.ended.labels(cause).inc()
            log.info("%s: ended: %s", lease_id, cause)

    def _remember(self, lease_id: str, made: Mapping[str, Any]) -> None:
        """At once, and not by a thread: the fleet goes on to make it when this returns."""
        with self._store.begin() as session:
            leases.remember(session, lease_id, made)

    async def _write(self, step: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A step of a lease, in a transaction of its own."""

        def work() -> T:
            with self._store.begin() as session:
                return step(session, *args, **kwargs)

        return await asyncio.to_thread(work)


def _keep(tasks: dict[str, asyncio.Task[None]], lease_id: str, work: Coroutine[Any, Any, None]) -> None:
    tasks[lease_id] = asyncio.get_running_loop().create_task(work, name=lease_id)
    tasks[lease_id].add_done_callback(lambda task: tasks.pop(lease_id, None))


def _check(hosts: list[Host], machines: int, relays: int) -> None:
    """FleetError for what no tenant may be given, or could not use."""
    if not 0 < len(hosts) <= machines + relays:
        raise FleetError(f"the fleet gave {len(hosts)} machines, and {machines + relays} were asked for")
    if any(host.local for host in hosts):
        raise FleetError("the fleet gave machines that only the broker itself can reach")
