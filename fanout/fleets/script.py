"""The exec fleet: machines that a program of the user's makes, and removes again.

`--fleet exec:PROGRAM` or `--fleet exec:PROGRAM,timeout=20m`.  The program is one file, never a command line: no
shell reads it.  It is called twice, in the folder that fanout was started in:

- `PROGRAM up N` makes N machines (0: as many as it sees fit) and prints each as a line of a hosts file, or as a
  JSON object on a line.  On its stdin, and in FANOUT_REQUEST, is what is wanted:
  `{"run": ..., "machines": N or null, "roles": {"peer": 3}, "relays": 0, "ttl": seconds or null}`.
- `PROGRAM down` has on its stdin, byte for byte, what `up` printed, and removes that.  When fanout itself was killed
  while `up` ran, another process may call it later, with what had been printed until then.

What always holds: once `up` was started, `down` is called, also when `up` failed, was interrupted, took too long
or made too few; each of them ends within the timeout, or is ended.  If fanout itself was killed, `fanout down`, or
the broker that comes after, ends an `up` that still runs, and calls it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from fanout.durations import parse_duration, show
from fanout.errors import FleetError, UsageError
from fanout.fleets import roles
from fanout.fleets.base import Fleet, Host, Progress, Request, Say
from fanout.fleets.hosts import parse
from fanout.fleets.openssh import send, wait_gone, with_environment
from fanout.fleets.program import GRACE, MAX_OUTPUT, SETTLE, Program

REQUEST = "FANOUT_REQUEST"
"""The variable that has what is wanted."""
TIMEOUT = 600.0
"""Seconds for `up`, and for `down`, when nobody says."""
NOTED = 0.2
"""Seconds until what `up` printed is written down: it may print machines one by one."""
KEPT = 300
"""Characters of what `up` printed that are told when `down` failed."""


class ScriptFleet(Fleet):
    name: ClassVar[str] = "exec"
    erases: ClassVar[bool] = False
    """The program may have taken them from a pool."""

    def __init__(self, spec: str) -> None:
        text, option, seconds = spec.rpartition(",timeout=")
        self._timeout = parse_duration(seconds) if option else TIMEOUT
        if not self._timeout:
            raise UsageError(f"--fleet exec:{spec}: a timeout is more than 0")
        self._path = _program(text if option else spec, spec)
        self._up: Program | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._environment: dict[str, str] = {}
        self._folder = str(Path.cwd())
        # `up`, if it still runs, is ended; then `down` has its time.
        self.release_timeout = self._timeout + 2 * (GRACE + SETTLE) + 5.0

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        wanted = roles.total(request.machines, request.roles, default=0)
        asked = self._ask(request)

        noting: asyncio.TimerHandle | None = None

        def note() -> None:
            nonlocal noting
            noting = None
            self._note(asked)

        def printed(lines: int) -> None:
            nonlocal noting
            noting = noting or asyncio.get_running_loop().call_later(NOTED, note)
            progress(min(lines, wanted or lines), wanted or lines)

        note()
        self._up = self._start(["up", str(wanted)], asked.encode() + b"\n", printed)
        try:
            code = await self._up.wait(self._timeout)
        finally:
            if noting is not None:
                noting.cancel()
            note()
        self._check("up", self._up, code)
        # What is wrong with the machines that were made is no mistake in the command line.
        try:
            hosts = parse(self._up.output.decode(), f"what {self._path.name} up printed", Path())
        except UsageError as error:
            raise FleetError(str(error)) from None
        except UnicodeDecodeError:
            raise FleetError(f"what {self._path.name} up printed is not UTF-8 text") from None
        chosen = roles.choose(hosts, request.machines, request.roles)
        progress(len(chosen), len(chosen))
        return chosen

    async def release(self) -> None:
        """Shielded: whoever stops waiting does not stop `down`, and may wait for it again."""
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.ensure_future(self._take_down())
        else:
            self.say(f"{self._path.name} down still removes machines: it has up to {show(self._timeout)} in all")
        await asyncio.shield(self._releasing)

    async def _take_down(self) -> None:
        up = self._up
        if up is None:
            return  # never started, or taken down
        await up.stop()
        await self._remove(bytes(up.output))
        self._up = None

    async def _remove(self, given: bytes) -> None:
        """`down`, with what `up` had printed."""
        try:
            down = self._start(["down"], given, lambda lines: None)
            self._check("down", down, await down.wait(self._timeout))
        except FleetError as error:
            printed = given.decode("utf-8", "replace").strip() or "nothing"
            raise FleetError(
                f"{error}\nthe machines may still be there: run it again by hand, with on its stdin what `up` had"
                f" printed: {printed[:KEPT]}{'...' if len(printed) > KEPT else ''}"
            ) from None

    async def keep(self, seconds: float) -> float | None:
        """Only `fanout down` ends them, unless the program has seen to it that they end by themselves."""
        if self._up is None:
            return None
        self._up = None
        return time.time() + seconds

    def _ask(self, request: Request) -> str:
        """What is wanted, as the program is told; from here on in its environment."""
        asked = json.dumps(
            {
                "run": request.run,
                "machines": roles.total(request.machines, request.roles, default=0) or None,
                "roles": dict(request.roles),
                "relays": request.relays,
                "ttl": request.ttl,
            }
        )
        self._environment = {REQUEST: asked}
        return asked

    def _note(self, asked: str) -> None:
        printed = b"" if self._up is None else bytes(self._up.output)
        self.record({
            "program": str(self._path),
            "timeout": self._timeout,
            "folder": self._folder,
            "request": asked,
            "printed": printed.decode("utf-8", "surrogateescape"),
        })  # fmt: skip

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        fleet = cls(f"{made['program']},timeout={made['timeout']}")
        fleet.say = say
        fleet._folder = made["folder"]
        fleet._environment = {REQUEST: made["request"]}
        await asyncio.to_thread(_end_orphans, fleet._environment)
        await fleet._remove(made["printed"].encode("utf-8", "surrogateescape"))
        return f"{fleet._path.name} down was called"

    @classmethod
    async def holds(cls, run: str, made: Mapping[str, Any], probe: bool) -> str:
        return f"machines of {Path(made['program']).name}"

    def _start(self, arguments: list[str], given: bytes, printed: Callable[[int], None]) -> Program:
        try:
            return Program(
                [str(self._path), *arguments],
                given,
                self._environment,
                lambda line: self.say(f"{self._path.name}: {line}"),
                printed,
                self._folder,
            )
        except OSError as error:
            remedy = " (it needs a first line such as #!/bin/sh)" if error.errno == errno.ENOEXEC else ""
            raise FleetError(f"{self._path} cannot be started: {error.strerror}{remedy}") from None

    def _check(self, verb: str, program: Program, code: int | None) -> None:
        """FleetError unless it ended well."""
        if code == 0 and not program.overflow:
            return
        if program.overflow:
            how = f"printed more than {MAX_OUTPUT >> 20} MiB, and was ended"
        elif code is None:
            how = f"did not end within {show(self._timeout)}, and was ended (exec:...,timeout= gives it longer)"
        elif code < 0:
            how = f"was ended by signal {-code}"
        else:
            how = f"failed with exit code {code}"
        said = "".join(f"\n  {line}" for line in program.tail)
        raise FleetError(f"{self._path} {verb} {how}{':' if said else ' and said nothing'}{said}")


def _program(text: str, spec: str) -> Path:
    if not text:
        raise UsageError("--fleet exec: which program? Write exec:./make-fleet.sh")
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"--fleet exec:{spec}: there is no file {path}; it is one program, without arguments")
    if not os.access(path, os.X_OK):
        raise UsageError(f"--fleet exec:{spec}: {path} is not executable: chmod +x it")
    return path


def _end_orphans(environment: dict[str, str]) -> None:
    """An `up` whose fanout was killed must not make anything after `down` has looked; found where there is /proc."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        orphans = with_environment(REQUEST, environment[REQUEST])
        for pid in orphans:
            send(pid, number)
        wait_gone(orphans, GRACE)
