"""From the launch of machines until enough of them can be logged in to.

Enough are all that live, or the quorum once the last ones have had their time.  Fewer are an error that says of each
machine what it lacks; nothing is ended here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math

from fanout.durations import show
from fanout.errors import FleetError
from fanout.fleets.aws import instances
from fanout.fleets.aws.api import Api, passes
from fanout.fleets.aws.instances import Instance
from fanout.fleets.aws.launch import Launcher
from fanout.fleets.aws.ready import Readiness
from fanout.fleets.aws.spec import Spec
from fanout.fleets.aws.userdata import mark
from fanout.fleets.base import Progress, Say

STRAGGLING = 30.0  # s that the last machines get once there are enough for the quorum
POLL, POLL_MOST = 1.0, 5.0  # s between looks at the machines that boot
TOLD = 5  # reasons that an error lists


class Boot:
    """One run's machines, from their launch on.  Whoever made it stops it."""

    def __init__(
        self, spec: Spec, api: Api, run: str, launcher: Launcher, machines: int, say: Say, progress: Progress
    ) -> None:
        self._spec = spec
        self._api = api
        self._run = run
        self._launcher = launcher
        self._machines = machines
        self._needed = math.ceil(spec.quorum * machines - 1e-9)
        self._say = say
        self._progress = progress
        self._readiness = Readiness(mark(run), self._more)
        self._all = asyncio.Event()
        self._seen: dict[str, Instance] = {}

    async def living(self, launching: asyncio.Future[None]) -> list[tuple[int, Instance, bool]]:
        """(number, machine, whether it is a relay) of those that live; FleetError when too few come up in time."""
        loop = asyncio.get_running_loop()
        deadline = math.inf
        wait = POLL
        enough: float | None = None
        while True:
            await self._look()
            launched = len(self._launcher.machines)
            ready = len(self._readiness.ready)
            if launching.done():
                launching.result()
                if deadline == math.inf:
                    deadline = loop.time() + self._spec.ready_timeout
                left = launched - sum(each.ending for each in self._shown())
                if left < self._needed:
                    raise self._too_few(f"{left} of {self._machines} machines were to be had")
                if ready >= left:
                    break
                if ready >= self._needed and enough is None:
                    enough = loop.time() + STRAGGLING
            now = loop.time()
            if now > min(deadline, enough or math.inf):
                if ready < self._needed:
                    spent = show(self._spec.ready_timeout)
                    raise self._too_few(f"{ready} of {self._machines} machines were ready within {spent}")
                self._say(f"going on with {ready} of {self._machines} machines ready{self._reasons()}")
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all.wait(), wait)
                self._all.clear()
            wait = min(POLL_MOST, wait * 1.2)
        living = [
            (number, self._seen[id], batch.relay)
            for number, (id, batch) in enumerate(self._launcher.machines.items(), 1)
            if id in self._seen and not self._seen[id].ending
        ]
        self._progress(len(living), len(living))
        return living

    async def stop(self) -> None:
        await self._readiness.stop()

    def _shown(self) -> list[Instance]:
        """Those launched that EC2 has shown, as it last did."""
        return [self._seen[id] for id in self._launcher.machines if id in self._seen]

    async def _look(self) -> None:
        public = self._spec.address == "public"
        try:
            self._seen |= {each.id: each for each in await instances.of_run(self._api, self._run)}
        except FleetError as error:
            if not passes(error):
                raise
        for each in self._shown():
            address = each.public if public else each.private
            if each.ending:
                self._readiness.forget(each.id)
            elif each.state == "running" and address:
                self._readiness.watch(each.id, address)

    def _more(self) -> None:
        ready = len(self._readiness.ready)
        self._progress(ready, self._machines)
        if ready >= self._machines:
            self._all.set()

    def _too_few(self, text: str) -> FleetError:
        quorum = self._spec.quorum
        needed = f"; {self._needed} are needed (quorum {quorum:g})" if quorum < 1 else ""
        return FleetError(f"{text}{needed}{self._reasons()}")

    def _reasons(self) -> str:
        reasons = list(self._launcher.lacking)
        for id in self._launcher.machines:
            seen = self._seen.get(id)
            if seen is not None and seen.ending:
                reasons.append(f"{id} has ended: {seen.why or seen.state}")
            elif id in self._readiness.said:
                reasons.append(f"{id}: {self._readiness.said[id]}")
            elif id not in self._readiness.ready:
                reasons.append(f"{id}: {'no address yet' if seen is not None else 'EC2 does not show it yet'}")
        more = f"\n  and {len(reasons) - TOLD} more" if len(reasons) > TOLD else ""
        return "".join(f"\n  {reason}" for reason in reasons[:TOLD]) + more
