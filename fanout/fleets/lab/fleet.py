"""The fleet `lab`: a lab made for one run, or one that is already up.

`--fleet lab`, `--fleet lab:name=big`, or `--fleet lab:new=big,rate=100mbit,cpu=0.5,python=/usr/bin/python3.8`, where

- `name`: the lab of that name (`fanout lab up`) is used, and stays; it is an error if there is none;
- `new`: the lab that is made has this name; it is an error if there is one;
- `rate`: the speed of each host's link, each way (`100mbit`); only for a lab made here;
- `cpu`: how many cores each host may use (`0.5`); only for a lab made here;
- `python`: the interpreter on the hosts (`python3`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from fanout.errors import FanoutError, FleetError, UsageError
from fanout.fleets import roles
from fanout.fleets.base import Fleet, Host, Progress, Request, Say
from fanout.fleets.lab import state
from fanout.fleets.lab.lab import Lab
from fanout.fleets.lab.switch import shape
from fanout.fleets.options import parse

DEFAULT_MACHINES = 5
OPTIONS = ("name", "new", "rate", "cpu", "python")


class LabFleet(Fleet):
    name: ClassVar[str] = "lab"
    here: ClassVar[bool] = True

    def __init__(self, spec: str = "") -> None:
        options = parse(filter(None, spec.split(",")), OPTIONS, f"lab:{spec}")
        self._existing = options.get("name")
        self._new = options.get("new")
        self._rate = options.get("rate")
        self._cpu = _cores(options["cpu"]) if "cpu" in options else None
        self._python = options.get("python", "python3")
        shape(self._rate)
        for name in filter(None, (self._existing, self._new)):
            state.check_name(name)
        if self._existing is not None and (made := ", ".join(f"{one}=" for one in OPTIONS[1:4] if one in options)):
            raise UsageError(f"--fleet lab:{spec}: {made} is for a lab that is made, and name= for one that is up: "
                             "leave one of them out")
        self._making: asyncio.Future[Lab] | None = None
        self.lab: Lab | None = None
        """The lab that the run is on, from `provision` to `release`."""

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        wanted = roles.total(request.machines, request.roles, default=0) or None
        if self._existing is not None:
            self.lab = await asyncio.to_thread(_open, self._existing, wanted)
        else:
            loop = asyncio.get_running_loop()
            machines = wanted or DEFAULT_MACHINES
            name = self._new or state.free_name()
            self.record({"lab": name, "state": str(state.root())})

            def ready(count: int) -> None:
                loop.call_soon_threadsafe(progress, count, machines)

            self._making = asyncio.ensure_future(asyncio.to_thread(self._make, name, request.run, machines, ready))
            # Shielded: a thread cannot be cancelled, so `release` waits for it and undoes what it made.
            self.lab = await asyncio.shield(self._making)
        if self.lab.limits:
            self.say(self.lab.limits)
        hosts = self.lab.hosts[:wanted]
        progress(len(hosts), len(hosts))
        return [
            Host(
                name=host.name,
                address=host.address,
                user=host.user,
                port=host.port,
                key=str(self.lab.key),
                host_keys=host.host_keys,
                python=self._python,
            )
            for host in hosts
        ]

    async def release(self) -> None:
        making, self._making, self.lab = self._making, None, None
        if making is None:
            return
        try:
            lab = await making
        except FanoutError:
            return  # `Lab.up` has left nothing, and `provision` has told why
        await asyncio.to_thread(lab.down)

    async def keep(self, seconds: float) -> float | None:
        """Nothing but `fanout down` ends it: a lab is a part of this machine, and costs next to nothing."""
        if self._making is None:
            return None
        self._making = None
        return time.time() + seconds

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        lab = await asyncio.to_thread(_left_by, run, made)
        if lab is None:
            return f"lab {made['lab']} is gone"
        await asyncio.to_thread(lab.down)
        return f"lab {lab.name} removed"

    @classmethod
    async def holds(cls, run: str, made: Mapping[str, Any], probe: bool) -> str:
        lab = await asyncio.to_thread(_left_by, run, made)
        return f"lab {lab.name}" if lab is not None else ""

    @property
    def relay_key(self) -> str | None:
        """The text of the lab's own private key, while there is a lab."""
        return self.lab.key.read_text() if self.lab is not None else None

    @property
    def limits(self) -> str:
        """What the lab in use cannot do, for the user to read; empty when its hosts are isolated."""
        return self.lab.limits if self.lab is not None else ""

    def _make(self, name: str, run: str, machines: int, ready: Callable[[int], None]) -> Lab:
        return Lab.up(machines, name=name, owner=run, rate=self._rate, cpu=self._cpu, ready=ready)


def _open(name: str, machines: int | None) -> Lab:
    """A lab that is up, and has so many machines."""
    if name not in Lab.names():
        there = ", ".join(Lab.names()) or "none at all"
        raise UsageError(
            f"there is no lab named {name} (there is {there}): make it by fanout lab up --name {name}, or have it made "
            f"for this run by --fleet lab:new={name}")
    lab = Lab.open(name)
    if not lab.hosts:
        raise FleetError(f"the lab {lab.name} was never finished: fanout lab down {lab.name}")
    if machines is not None and machines > len(lab.hosts):
        raise FleetError(f"the lab {lab.name} has only {len(lab.hosts)} hosts of {machines}: make a larger one")
    return lab


def _left_by(run: str, made: Mapping[str, Any]) -> Lab | None:
    """The lab that was made for a run; not one that has its name since."""
    name, there = made["lab"], str(state.root())
    if there != made["state"]:
        raise FleetError(
            f"lab {name} was made in {made['state']}, and labs are now in {there}: be the user who made it,"
            " with the same FANOUT_LAB_STATE"
        )
    if name not in Lab.names():
        return None
    lab = Lab.open(name)
    return lab if lab.owner == run else None


def _cores(text: str) -> float:
    try:
        cores = float(text)
    except ValueError:
        cores = 0.0
    if not 0 < cores < 1e4:
        raise UsageError(f"cpu={text} is not a share of a core: write it like 0.5")
    return cores
