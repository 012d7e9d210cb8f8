"""Handles to what `spawn` started: the processes of a group, or the process of one machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Literal, overload

from fanout.agent.core import machineset
from fanout.durations import parse_duration
from fanout.errors import UsageError
from fanout.scenario.command import check_pattern, data, signal_number
from fanout.scenario.group import Group, Machine, bits_of
from fanout.scenario.matches import Match, Matches
from fanout.scenario.results import Result, Results
from fanout.scenario.spawned import Spawned, parse_delay

Since = Literal["now", "start", "last start"]

GRACE = "10s"
TIMEOUT = "60s"


class Processes:
    """One process on each machine of a group.  All waits have a deadline, 60 s unless given."""

    def __init__(self, spawned: Spawned, bits: int) -> None:
        self._spawned = spawned
        self._bits = bits

    @property
    def name(self) -> str:
        """The name of its log files, without `.log`."""
        return self._spawned.name

    @property
    def machines(self) -> Group:
        return Group(self._spawned.context, self._bits)

    @property
    def running(self) -> Group:
        """The machines on which it runs, as far as they have told."""
        return Group(self._spawned.context, self._spawned.state(self._bits).running)

    @property
    def ready(self) -> dict[Machine, list[str]]:
        """What the groups of `ready` matched on each machine (the whole match where it has none)."""
        machines = self._spawned.context.machines
        return {machines[machine]: groups for machine, groups in self._spawned.ready(self._bits).items()}

    def __len__(self) -> int:
        return machineset.count(self._bits)

    def __iter__(self) -> Iterator[Process]:
        return (Process(self._spawned, machine) for machine in self.machines)

    @overload
    def __getitem__(self, key: Machine | int) -> Process: ...

    @overload
    def __getitem__(self, key: Group | slice | str) -> Processes: ...

    def __getitem__(self, key: Group | Machine | slice | int | str) -> Processes | Process:
        """Those of a machine or group, or by position, slice or role as in a group."""
        if isinstance(key, slice | int | str):
            key = self.machines[key]
        bits = bits_of(self._spawned.context, key)
        if bits & ~self._bits:
            outside = self._spawned.context.names(bits & ~self._bits)
            raise UsageError(f"{self.name} was not spawned on {outside}")
        return Process(self._spawned, key) if isinstance(key, Machine) else Processes(self._spawned, bits)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.machines}>"

    async def stop(self, grace: str | float = GRACE) -> None:
        """TERM, `grace`, KILL, to the whole process group and what has left it; until all have ended.

        Those that have ended before, and lost machines, are passed over.
        """
        await self._spawned.stop(self._bits, parse_duration(grace))

    @overload
    async def start(self, ready_timeout: str | float = TIMEOUT) -> None: ...

    @overload
    async def start(self, ready_timeout: str | float = TIMEOUT, *, at: str) -> float: ...

    async def start(self, ready_timeout: str | float = TIMEOUT, *, at: str | None = None) -> float | None:
        """Start again what has ended, as `spawn` did; until it runs, and is ready when `ready` was given.

        `at="+3s"`: at one instant on all machines, 3 s from now, by their own clocks, compared with the root's over
        the links.  Returns the skew that was achieved: the seconds from the first start to the last.
        """
        await self._spawned.start(self._bits, parse_duration(ready_timeout), parse_delay(at))
        return None if at is None else self.skew

    @property
    def skew(self) -> float | None:
        """Seconds from the first start to the last, of the latest with `at=`; None without one.

        As the machines saw it; how far their clocks are known adds to that (see docs/choreography.md, "Time").
        """
        return self._spawned.skew(self._bits)

    async def kill(self) -> None:
        """KILL at once, as a crash would; until all have ended."""
        await self._spawned.kill(self._bits)

    async def signal(self, number: int | str | signal.Signals) -> None:
        """Send a signal (`"HUP"`, `signal.SIGUSR1`, 15) to the whole process group."""
        await self._spawned.signal(self._bits, signal_number(number))

    async def write(self, text: str | bytes, eof: bool = False) -> None:
        """Write to standard input; `eof` closes it afterwards."""
        await self._spawned.write(self._bits, data(text) or b"", eof)

    async def wait(self, timeout: str | float = TIMEOUT) -> Results:
        """Until all have ended: their exit codes, folded.  One that was stopped counts as ok.

        `stderr` of a result that failed has the last lines of its output.  Timeout when some still run.
        """
        return await self._spawned.wait(self._bits, parse_duration(timeout))

    async def wait_log(
        self, pattern: str, timeout: str | float = TIMEOUT, *, quorum: float = 1.0, since: Since = "now"
    ) -> Matches:
        """Until a line matches on each machine, or on a share of them (`quorum`).

        `since`: "now" for lines from here on, "start" for those that are in its file already as well, "last start"
        for those in its file since it was last started.
        Timeout when too few printed it in time; ProcessFailed as soon as too few can, because they have ended.
        """
        if since not in ("now", "start", "last start"):
            raise UsageError(f"wait_log(since={since!r}): write 'now', 'start' or 'last start'")
        if not 0 < quorum <= 1:
            raise UsageError(f"wait_log(quorum={quorum!r}): it is a share of the machines, above 0 and up to 1")
        seconds = parse_duration(timeout)
        return await self._spawned.wait_log(self._bits, check_pattern(pattern), seconds, quorum, since)


class Process:
    """The process of one machine."""

    def __init__(self, spawned: Spawned, machine: Machine) -> None:
        self._all = Processes(spawned, machine.bits)
        self._spawned = spawned
        self.machine = machine

    @property
    def name(self) -> str:
        return self._all.name

    @property
    def running(self) -> bool:
        return bool(self._all.running)

    @property
    def ready(self) -> list[str]:
        """What the groups of `ready` matched (the whole match where it has none); empty before that."""
        return self._all.ready.get(self.machine, [])

    def __repr__(self) -> str:
        return f"<Process {self.name}: {self.machine}>"

    async def stop(self, grace: str | float = GRACE) -> None:
        """As `Processes.stop`."""
        await self._all.stop(grace)

    async def start(self, ready_timeout: str | float = TIMEOUT) -> None:
        """As `Processes.start`."""
        await self._all.start(ready_timeout)

    async def kill(self) -> None:
        """As `Processes.kill`."""
        await self._all.kill()

    async def signal(self, number: int | str | signal.Signals) -> None:
        """As `Processes.signal`."""
        await self._all.signal(number)

    async def write(self, text: str | bytes, eof: bool = False) -> None:
        """As `Processes.write`."""
        await self._all.write(text, eof)

    async def wait(self, timeout: str | float = TIMEOUT) -> Result:
        """As `Processes.wait`, with the one result."""
        return (await self._all.wait(timeout))[self.machine]

    async def wait_log(self, pattern: str, timeout: str | float = TIMEOUT, *, since: Since = "now") -> Match:
        """As `Processes.wait_log`, with the one match."""
        return (await self._all.wait_log(pattern, timeout, since=since))[self.machine]
