"""From the launch of machines until enough of them can be logged in to.

Enough are all that live, or the quorum once the last ones have had their time; a run that connects machines as they
come goes on with fewer, and is told of the others.  Fewer than the quorum are an error that says of each machine what
it lacks; nothing is ended here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

from fanout.durations import show
from fanout.errors import FleetError
from fanout.fleets.aws import instances
from fanout.fleets.aws.api import Api, passes
from fanout.fleets.aws.instances import Instance
from fanout.fleets.aws.launch import Launcher
from fanout.fleets.aws.ready import Readiness
from fanout.fleets.aws.spec import Spec
from fanout.fleets.aws.userdata import mark
from fanout.fleets.base import Arrivals, Progress, Say

STRAGGLING = 30.0  # s that the last machines get once there are enough for the quorum
POLL, POLL_MOST = 1.0, 5.0  # s between looks at the machines that boot
GATHER = 0.1  # s from news until it is acted on: machines that are launched together are ready together
TOLD = 5  # reasons that an error lists


class Boot:
    """One run's machines, from their launch on.  Whoever made it stops it."""

    def __init__(
        self, spec: Spec, api: Api, run: str, launcher: Launcher, machines: int, say: Say, progress: Progress
    ) -> None:
        self.booting: frozenset[int] = frozenset()
        """The places in what `living` returned of machines that were not ready."""
        self._spec = spec
        self._api = api
        self._run = run
        self._launcher = launcher
        self._machines = machines
        self._needed = math.ceil(spec.quorum * machines - 1e-9)
        self._say = say
        self._progress = progress
        self._readiness = Readiness(mark(run), self._more)
        self._news = asyncio.Event()
        """More are ready."""
        self._seen: dict[str, Instance] = {}
        self._wait = POLL
        self._look_at = 0.0
        self._deadline: float | None = None
        """When all must be ready: known once all are launched."""
        self._enough: float | None = None
        """When the last ones must be ready: known once the quorum is."""
        self._closed = False
        """Nobody is waited for any more."""
        self._given: list[str] = []

    async def living(
        self, launching: asyncio.Future[None], heads: int | None = None
    ) -> list[tuple[int, Instance, bool]]:
        """(number, machine, whether it is a relay) of those that live; FleetError when too few come up in time.

        `heads`: how many have to be ready, relays first, where the others may be so later; None: all.
        """
        while not (await self._over(launching) or (heads is not None and self._led(launching, heads))):
            await self._pause()
        living = [
            (number, self._seen[id], batch.relay)
            for number, (id, batch) in enumerate(self._launcher.machines.items(), 1)
            if id in self._seen and not self._seen[id].ending
        ]
        self._given = [instance.id for _, instance, _ in living]
        self.booting = frozenset(place for place, id in enumerate(self._given) if id not in self._readiness.ready)
        return living

    async def arrivals(self, launching: asyncio.Future[None]) -> AsyncIterator[Arrivals]:
        """What becomes of those that were not ready, as it happens; FleetError when too few come up in time."""
        waiting = {self._given[place]: place for place in self.booting}
        while waiting:
            over = await self._over(launching)
            ready = {id for id in waiting if id in self._readiness.ready}
            gone = {id: self._reason(id) for id in waiting if id not in ready and (over or self._seen[id].ending)}
            if ready or gone:
                yield Arrivals([waiting[id] for id in ready], {waiting[id]: why for id, why in gone.items()})
            waiting = {id: place for id, place in waiting.items() if id not in ready and id not in gone}
            if waiting:
                await self._pause()

    async def stop(self) -> None:
        await self._readiness.stop()

    async def _over(self, launching: asyncio.Future[None]) -> bool:
        """Whether nobody is waited for any more; FleetError when fewer than the quorum are there, or can be."""
        if self._closed:
            return True
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            await self._look()
            self._look_at = now + self._wait
            self._wait = min(POLL_MOST, self._wait * 1.2)
        if not launching.done():
            return False
        launching.result()
        if self._deadline is None:
            self._deadline = now + self._spec.ready_timeout
        left = len(self._launcher.machines) - sum(each.ending for each in self._shown())
        ready = len(self._readiness.ready)
        if left < self._needed:
            raise self._too_few(f"{left} of {self._machines} machines were to be had")
        if ready >= left:
            self._closed = True
        elif now > min(self._deadline, self._enough or math.inf):
            if ready < self._needed:
                spent = show(self._spec.ready_timeout)
                raise self._too_few(f"{ready} of {self._machines} machines were ready within {spent}")
            self._say(f"going on with {ready} of {self._machines} machines ready{self._reasons()}")
            self._closed = True
        elif ready >= self._needed and self._enough is None:
            self._enough = now + STRAGGLING
        return self._closed

    def _led(self, launching: asyncio.Future[None], heads: int) -> bool:
        """Whether all machines are known, and so many are ready, those launched as relays among them."""
        left = [id for id in self._launcher.machines if id not in self._seen or not self._seen[id].ending]
        if not launching.done() or not all(id in self._seen and self._address(self._seen[id]) for id in left):
            return False
        relays = [id for id in left if self._launcher.machines[id].relay]
        ready = self._readiness.ready
        return len(ready) >= min(heads, len(left)) and ready.issuperset(relays[:heads])

    async def _pause(self) -> None:
        """Until more are ready, or it is time to look at the machines again."""
        left = self._look_at - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(self._news.wait(), max(0.0, left))
        except TimeoutError:
            return
        if len(self._readiness.ready) < self._machines:
            await asyncio.sleep(GATHER)
        self._news.clear()

    def _address(self, instance: Instance) -> str | None:
        return instance.public if self._spec.address == "public" else instance.private

    def _shown(self) -> list[Instance]:
        """Those launched that EC2 has shown, as it last did."""
        return [self._seen[id] for id in self._launcher.machines if id in self._seen]

    async def _look(self) -> None:
        try:
            self._seen |= {each.id: each for each in await instances.of_run(self._api, self._run)}
        except FleetError as error:
            if not passes(error):
                raise
        for each in self._shown():
            address = self._address(each)
            if each.ending:
                self._readiness.forget(each.id)
            elif each.state == "running" and address:
                self._readiness.watch(each.id, address)

    def _more(self) -> None:
        if not self._given:
            self._progress(len(self._readiness.ready), self._machines)
        self._news.set()

    def _too_few(self, text: str) -> FleetError:
        quorum = self._spec.quorum
        needed = f"; {self._needed} are needed (quorum {quorum:g})" if quorum < 1 else ""
        return FleetError(f"{text}{needed}{self._reasons()}")

    def _reasons(self) -> str:
        lacking = [id for id in self._launcher.machines if id not in self._readiness.ready or self._seen[id].ending]
        reasons = [*self._launcher.lacking, *(f"{id}: {self._reason(id)}" for id in lacking)]
        more = f"\n  and {len(reasons) - TOLD} more" if len(reasons) > TOLD else ""
        return "".join(f"\n  {reason}" for reason in reasons[:TOLD]) + more

    def _reason(self, id: str) -> str:
        """Why a machine is not ready."""
        seen = self._seen.get(id)
        if seen is None:
            return "EC2 does not show it yet"
        if seen.ending:
            return f"it has ended: {seen.why or seen.state}"
        return self._readiness.said.get(id, "it has no address yet")
