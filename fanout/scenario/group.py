"""Machines, and groups of them: what a scenario gives its commands to.

A group is a bitmap; taking parts of one, or joining two, costs nothing whatever its size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from fanout.agent.core import machineset
from fanout.errors import UsageError
from fanout.scenario.command import Command, Place

if TYPE_CHECKING:
    from pathlib import Path

    from fanout.root.machine import Machine as RootMachine
    from fanout.scenario.code import Member
    from fanout.scenario.context import Context
    from fanout.scenario.fetching import Fetched, When
    from fanout.scenario.processes import Process, Processes
    from fanout.scenario.results import Result, Results
    from fanout.scenario.spawned import Collect
    from fanout.scenario.trigger import On

RUN_TIMEOUT = "60s"
READY_TIMEOUT = "60s"
CAPTURE = "1MB"
CAP = "64MB"
FETCH_CAP = "1GB"
FETCH_TOTAL = "16GB"


class Group:
    """A set of machines, in the order of their ids."""

    def __init__(self, context: Context, bits: int) -> None:
        self._context = context
        self.bits = bits
        """Bit `i` stands for the machine with id `i`."""

    # What is in it.

    def __len__(self) -> int:
        return machineset.count(self.bits)

    def __iter__(self) -> Iterator[Machine]:
        return (self._context.machines[machine] for machine in machineset.members(self.bits))

    def __contains__(self, machine: object) -> bool:
        if not isinstance(machine, Machine) or machine._context is not self._context:
            return False
        return bool(self.bits & machine.bits)

    @overload
    def __getitem__(self, key: int) -> Machine: ...

    @overload
    def __getitem__(self, key: slice) -> Group: ...

    @overload
    def __getitem__(self, key: str) -> Group: ...

    def __getitem__(self, key: int | slice | str) -> Group | Machine:
        """By position (`[17]`, `[-1]`), slice (`[2:5]`), or role (`["peer"]`); UsageError when there is none."""
        if isinstance(key, str):
            return self._role(key)
        ids = machineset.members(self.bits)
        if isinstance(key, slice):
            return Group(self._context, machineset.of(ids[key]))
        try:
            return self._context.machines[ids[operator.index(key)]]
        except IndexError:
            there = f"0 to {len(ids) - 1} ({self})" if ids else "it is empty"
            raise UsageError(f"there is no machine {key} in this group of {len(ids)}: {there}") from None
        except TypeError:
            raise UsageError(f"a group is asked by position, slice or role, not by {key!r}") from None

    def _role(self, role: str) -> Group:
        found = self.where(lambda machine: machine.role == role)
        if not found.bits:
            roles = sorted({machine.role for machine in self if machine.role})
            named = any(machine.name == role for machine in self)
            there = f"it has {', '.join(roles)}" if roles else "it has no roles"
            hint = f"; for the machine of that name use .named({role!r})" if named else ""
            raise UsageError(f"there is no role {role!r} in this group: {there}{hint}")
        return found

    def named(self, name: str) -> Machine:
        """The machine of that name; UsageError when it is not in the group."""
        for machine in self:
            if machine.name == name:
                return machine
        raise UsageError(f"there is no machine {name!r} in this group: {self or 'it is empty'}")

    def where(self, test: Callable[[Machine], object]) -> Group:
        """Those for which the test holds."""
        return Group(self._context, machineset.of(machine.id for machine in self if test(machine)))

    @property
    def up(self) -> Group:
        """Those that can be reached now."""
        return Group(self._context, self.bits & self._context.session.up)

    @property
    def names(self) -> list[str]:
        return [machine.name for machine in self]

    @property
    def folded(self) -> str:
        """The names as one text, such as `peer-[0-199]`."""
        return self._context.fold(self.bits)

    def __or__(self, other: Group | Machine) -> Group:
        return Group(self._context, self.bits | bits_of(self._context, other))

    def __and__(self, other: Group | Machine) -> Group:
        return Group(self._context, self.bits & bits_of(self._context, other))

    def __sub__(self, other: Group | Machine) -> Group:
        return Group(self._context, self.bits & ~bits_of(self._context, other))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and other._context is self._context and other.bits == self.bits

    def __hash__(self) -> int:
        return hash((id(self._context), self.bits))

    def __str__(self) -> str:
        return self._context.names(self.bits)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    # What can be done with it.

    async def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: str | float = RUN_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: Place | None = None,
        stdin: str | bytes | None = None,
        capture: str | int = CAPTURE,
    ) -> Results:
        """Run a command on every machine, and wait for all.

        A list of words, or text for `sh -c`; `{id}`, `{name}`, `{address}`, `{role}` are each machine's own.
        `cwd`: the run's private folder on the machine unless given.  `timeout`: then the machine kills it.
        `capture`: bytes of stdout and of stderr that are kept, each; what is beyond is counted.

        CommandFailed when it does not succeed everywhere, unless `check` is False.
        """
        from fanout.scenario.running import run

        return await run(
            self._context,
            self.bits,
            command,
            check=check,
            timeout=timeout,
            env=env,
            cwd=cwd,
            stdin=stdin,
            capture=capture,
        )

    async def ship(
        self,
        path: str | Path,
        to: Place | None = None,
        *,
        mode: int | None = None,
        timeout: str | float = "10m",
        cache: bool = True,
    ) -> str:
        """Bring a file or a folder to every machine, through the tree, checked by its hash; returns where it is.

        `path` is at the root.  `to` is a path on the machines (`~`, `{id}`, `{name}`, `{address}`, `{role}` are
        filled in there); without it, the name of `path` in the folder where commands start, so that `./name` runs
        it.  A folder that is there already is replaced.  `mode` replaces the file's own permission bits.
        A machine that keeps the same content from before does not get it again, unless `cache` is False; then it
        does not keep it either.
        Raises UsageError when it cannot be read, ShipFailed naming the machines where it could not be put.
        """
        from fanout.scenario.shipping import ship

        return await ship(self._context, self.bits, path, to, mode=mode, timeout=timeout, cache=cache)

    async def fetch(
        self,
        pattern: Place,
        into: str | Path = "files",
        *,
        when: When = "always",
        cap: str | int = FETCH_CAP,
        total: str | int = FETCH_TOTAL,
        timeout: str | float = "10m",
    ) -> Fetched:
        """Bring what a pattern names from every machine, through the tree, each file checked by its hash.

        `pattern`: a path on the machines, from where commands start unless it begins with `/` or `~`; `*`, `?`,
        `[...]` and `**` are filled in there, `{id}` and the like too.  A folder comes with all below it.  Files keep
        the names that they have below the last folder of the pattern without a wildcard.

        `into`: a folder below the machine's own in the run's folder; a whole path stands for itself, with a folder
        for each machine in it.  `when="on_failure"`: not now, but at the end of the run, if it fails.  `cap`: bytes
        of each machine, `total`: of all.

        What is beyond a cap, cannot be read, is no file, or has a name that leads elsewhere is left out, and said:
        see `Fetched`.  FetchFailed when a machine is lost or too slow, or the root cannot write.
        """
        from fanout.scenario.fetching import fetch

        return await fetch(
            self._context, self.bits, pattern, into=into, when=when, cap=cap, total=total, timeout=timeout)

    async def spawn(
        self,
        command: Command,
        *,
        name: str | None = None,
        ready: str | None = None,
        ready_timeout: str | float = READY_TIMEOUT,
        logs: str = "file",
        collect: Collect = "never",
        cap: str | int = CAP,
        env: Mapping[str, str] | None = None,
        cwd: Place | None = None,
        stdin: str | bytes | None = None,
        on: On | None = None,
        at: str | None = None,
    ) -> Processes:
        """Start a process on every machine, and wait until it runs; until it is ready, when `ready` is given.

        `ready`: a regular expression that some line of its output matches.  `logs`: what of its output comes to
        the root: `none` (nor is it kept in a file there), `file`, `tail:N`, `match:REGEX`, `all`.  `cap`: size of
        that file, the oldest is dropped.  `collect`: bring that file at the end of the run, `always`, `never` or
        `on_failure` (of the run, or of the process there), into `collected/` of the machine's part of its folder.
         `stdin`: given once and closed; without it, `write` can be used.

        `on={r"ERROR (.*)": signal("trouble")}`: log triggers; each line that matches gives the signal, from the
        machine, whatever `logs` says (see `fanout.signal`).  `at="+3s"`: start at one instant, as `Processes.start`.

        ProcessFailed when it cannot be started or ends before it is ready; Timeout when it is not ready in time.
        """
        from fanout.scenario.processes import Processes
        from fanout.scenario.spawned import spawn

        spawned = await spawn(
            self._context,
            self.bits,
            command,
            name=name,
            ready=ready,
            ready_timeout=ready_timeout,
            logs=logs,
            collect=collect,
            cap=cap,
            env=env,
            cwd=cwd,
            stdin=stdin,
            on=on,
            at=at,
        )
        return Processes(spawned, self.bits)

    async def each(
        self, member: Member, *args: Any, timeout: str | float = RUN_TIMEOUT, check: bool = True, **kwargs: Any
    ) -> Results:
        """Call `member(me, *args, **kwargs)` on every machine, in a Python process of its own, and wait for all.

        `member` is a plain function at the top of the scenario's file, or of a module beside it; the Python files
        of the scenario's folder travel with it, once per machine.  `me` says who it is and synchronises it with the
        others (see docs/choreography.md).  Arguments and results are plain data: None, bool, int, float, str,
        bytes, lists and dicts; `results.values` has them by machine.

        MemberFailed, with the remote tracebacks, when it does not return everywhere, unless `check` is False.
        """
        from fanout.scenario.each import each

        return await each(self._context, self.bits, member, args, kwargs, timeout=timeout, check=check)


class Machine:
    """One machine of the fleet."""

    def __init__(self, context: Context, machine: RootMachine) -> None:
        self._context = context
        self.id = machine.id
        self.name = machine.name
        self.role = machine.role
        """Empty for a machine without one."""
        self.address = machine.address
        """What other machines reach it by."""

    @property
    def bits(self) -> int:
        return machineset.single(self.id)

    @property
    def up(self) -> bool:
        """Whether it can be reached now."""
        return bool(self._context.session.up & self.bits)

    def __or__(self, other: Group | Machine) -> Group:
        return Group(self._context, self.bits) | other

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Machine {self.id} {self.name}>"

    async def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: str | float = RUN_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: Place | None = None,
        stdin: str | bytes | None = None,
        capture: str | int = CAPTURE,
    ) -> Result:
        """As `Group.run`, with the one result."""
        results = await Group(self._context, self.bits).run(
            command, check=check, timeout=timeout, env=env, cwd=cwd, stdin=stdin, capture=capture
        )
        return results[self]

    async def ship(
        self, path: str | Path, to: Place | None = None, *, mode: int | None = None, timeout: str | float = "10m",
        cache: bool = True,
    ) -> str:
        """As `Group.ship`, to this machine."""
        return await Group(self._context, self.bits).ship(path, to, mode=mode, timeout=timeout, cache=cache)

    async def fetch(
        self,
        pattern: Place,
        into: str | Path = "files",
        *,
        when: When = "always",
        cap: str | int = FETCH_CAP,
        total: str | int = FETCH_TOTAL,
        timeout: str | float = "10m",
    ) -> Fetched:
        """As `Group.fetch`, from this machine."""
        return await Group(self._context, self.bits).fetch(
            pattern, into, when=when, cap=cap, total=total, timeout=timeout)

    async def spawn(
        self,
        command: Command,
        *,
        name: str | None = None,
        ready: str | None = None,
        ready_timeout: str | float = READY_TIMEOUT,
        logs: str = "file",
        collect: Collect = "never",
        cap: str | int = CAP,
        env: Mapping[str, str] | None = None,
        cwd: Place | None = None,
        stdin: str | bytes | None = None,
        on: On | None = None,
        at: str | None = None,
    ) -> Process:
        """As `Group.spawn`, with the one process."""
        processes = await Group(self._context, self.bits).spawn(
            command,
            name=name,
            ready=ready,
            ready_timeout=ready_timeout,
            logs=logs,
            collect=collect,
            cap=cap,
            env=env,
            cwd=cwd,
            stdin=stdin,
            on=on,
            at=at,
        )
        return processes[self]

    async def each(
        self, member: Member, *args: Any, timeout: str | float = RUN_TIMEOUT, check: bool = True, **kwargs: Any
    ) -> Result:
        """As `Group.each`, with the one result."""
        results = await Group(self._context, self.bits).each(member, *args, timeout=timeout, check=check, **kwargs)
        return results[self]


def bits_of(context: Context, machines: Group | Machine) -> int:
    """UsageError for what is not of this run."""
    if not isinstance(machines, Group | Machine) or machines._context is not context:
        raise UsageError(f"{machines!r} is no group and no machine of this run")
    return machines.bits
