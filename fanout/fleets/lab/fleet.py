"""The fleet `lab`: a lab made for one run, or one that is already up.

`--fleet lab`, or `--fleet lab:name=big,rate=100mbit,cpu=0.5,python=/usr/bin/python3.8`, where

- `name`: the lab of that name (`fanout lab up`) is used, and stays; without one, a lab of that name is made;
- `rate`: the speed of each host's link, each way (`100mbit`); only for a lab made here;
- `cpu`: how many cores each host may use (`0.5`); only for a lab made here;
- `python`: the interpreter on the hosts (`python3`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from fanout.errors import FanoutError, FleetError, UsageError
from fanout.fleets import roles
from fanout.fleets.base import Fleet, Host, Progress, Request
from fanout.fleets.lab.lab import Lab
from fanout.fleets.lab.state import MAX_NAME, check_name
from fanout.fleets.lab.switch import shape

DEFAULT_MACHINES = 5
OPTIONS = ("name", "rate", "cpu", "python")


class LabFleet(Fleet):
    name: ClassVar[str] = "lab"

    def __init__(self, spec: str = "") -> None:
        options = _parse(spec)
        self._lab_name = options.get("name")
        self._rate = options.get("rate")
        self._cpu = _cores(options["cpu"]) if "cpu" in options else None
        self._python = options.get("python", "python3")
        shape(self._rate)
        if self._lab_name is not None:
            check_name(self._lab_name)
        self._making: asyncio.Future[Lab] | None = None
        self._adopted = ""
        self.lab: Lab | None = None
        """The lab that the run is on, from `provision` to `release`."""

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        wanted = roles.total(request.machines, request.roles, default=0) or None
        if self._lab_name is not None and self._lab_name in await asyncio.to_thread(Lab.names):
            self.lab = await asyncio.to_thread(self._existing, wanted)
        else:
            loop = asyncio.get_running_loop()
            machines = wanted or DEFAULT_MACHINES

            def ready(count: int) -> None:
                loop.call_soon_threadsafe(progress, count, machines)

            name = self._lab_name or _name(request)
            self._making = asyncio.ensure_future(asyncio.to_thread(self._make, name, machines, ready))
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
        adopted, self._adopted = self._adopted, ""
        if adopted:
            await asyncio.to_thread(_remove, adopted)
        if making is None:
            return
        try:
            lab = await making
        except FanoutError:
            return  # `Lab.up` has left nothing, and `provision` has told why
        await asyncio.to_thread(lab.down)

    async def adopt(self, request: Request, state: str) -> None:
        """A lab with a name of its own is taken over only if `state` says that it was made for the run."""
        self._adopted = state or ("" if self._lab_name is not None else _name(request))

    @property
    def state(self) -> str:
        """The name of the lab that goes with the run."""
        return self.lab.name if self.lab is not None and self._making is not None else ""

    @property
    def relay_key(self) -> str | None:
        """The text of the lab's own private key, while there is a lab."""
        return self.lab.key.read_text() if self.lab is not None else None

    @property
    def limits(self) -> str:
        """What the lab in use cannot do, for the user to read; empty when its hosts are isolated."""
        return self.lab.limits if self.lab is not None else ""

    def _existing(self, machines: int | None) -> Lab:
        lab = Lab.open(self._lab_name or "")
        if self._rate is not None or self._cpu is not None:
            raise UsageError(f"rate= and cpu= are for a new lab, and {lab.name} is up: leave them out")
        if not lab.hosts:
            raise FleetError(f"the lab {lab.name} was never finished: fanout lab down {lab.name}")
        if machines is not None and machines > len(lab.hosts):
            raise FleetError(
                f"the lab {lab.name} has only {len(lab.hosts)} hosts of {machines}: make a larger one"
            )
        return lab

    def _make(self, name: str, machines: int, ready: Callable[[int], None]) -> Lab:
        return Lab.up(machines, name=name, rate=self._rate, cpu=self._cpu, ready=ready)


def _name(request: Request) -> str:
    """Of the lab that is made for a run, so that another process finds it."""
    return f"lab-{request.run}"[:MAX_NAME]


def _remove(name: str) -> None:
    if name in Lab.names():
        Lab.open(name).down()


def _parse(spec: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, spec.split(",")):
        name, equals, value = part.partition("=")
        if name not in OPTIONS or not equals or not value:
            raise UsageError(f"lab:{spec}: {part!r} is not one of {', '.join(f'{o}=' for o in OPTIONS)}")
        if name in options:
            raise UsageError(f"lab:{spec}: {name}= is given twice")
        options[name] = value
    return options


def _cores(text: str) -> float:
    try:
        cores = float(text)
    except ValueError:
        cores = 0.0
    if not 0 < cores < 1e4:
        raise UsageError(f"cpu={text} is not a share of a core: write it like 0.5")
    return cores
