"""One run on the hosts of a lab under faults: the work that is done there, who strikes it, and what must come of it.

Every machine may run a process with numbered log lines, numbered reports and barriers; commands are run meanwhile.
At the end each machine is either lost because a fault took it, or has delivered every byte, every report once and in
order, its exit code, and its answer to each command; and nothing is left on any host.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from fanout.fleets.lab import Lab
from fanout.root.call import Call
from fanout.root.machine import Machine
from fanout.root.outcomes import Report
from fanout.root.session import Session
from fanout.root.settings import Settings
from fanout.root.shipping import Source
from tests.faults import worker
from tests.faults.figures import Figures
from tests.faults.strikes import Ground, Kind, Undo

SOURCE = Path(worker.__file__).read_text()
FIRST = (1).to_bytes(4, "big")
RECOVER = 25.0  # s that a machine may be away; faults that pass last less
LEASE = 40.0  # s
CALM = 60.0  # s after the last fault within which everything has caught up
NOTICED = 12.0  # s; promised are 6 on an idle machine
FILE = 24 << 20  # bytes of a file that is shipped
PAUSE = 0.4  # s between what a worker says


class Play:
    def __init__(self, lab: Lab, parents: Sequence[int | None], figures: Figures, say: Callable[[str], None]) -> None:
        self.lab = lab
        self.figures = figures
        self.say = say
        self.count = len(lab.hosts)
        machines = [
            Machine(i, Host(h.name, h.address, user=h.user, port=h.port, key=str(lab.key), host_keys=h.host_keys), "")
            for i, h in enumerate(lab.hosts)]
        settings = Settings(uuid.uuid4().hex[:8], lease=LEASE, recover=RECOVER)
        self.session = Session(machines, parents, settings, relay_key=lab.key.read_text())
        self.session.on_report = self._report
        self.session.on_log = self._log
        self.ground = Ground(lab)
        self.fated: set[int] = set()
        """Machines that a fault has taken."""
        self.busy: set[int] = set()
        """Machines under a fault that lasts."""
        self.reports: dict[int, list[Report]] = {}
        self.logs: dict[int, bytearray] = {}
        self._commands: list[tuple[int, Call]] = []
        self._work: Call | None = None
        self._files = contextlib.ExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    def _report(self, report: Report) -> None:
        assert report.machine is not None
        self.reports.setdefault(report.machine, []).append(report)

    def _log(self, machine: int, call: int, data: bytes, when: float) -> None:
        self.logs.setdefault(machine, bytearray()).extend(data)

    def wrong(self, what: str) -> None:
        self.figures.wrong.append(what)
        self.say(f"WRONG: {what}")

    # What is done on the machines.

    async def connect(self) -> None:
        await self.session.connect()
        stray = set(self.session.down) - self.fated
        if stray:
            self.wrong(f"not connected: {[(m, self.session.down[m]) for m in stray]}")

    async def work(self, quorum: int, pause: float = PAUSE) -> None:
        """The process on all machines that are there; it goes on until `finish`.  Barriers let `quorum` through."""
        self._work = self.session.call(frames.SPAWN, self.session.up | self.session.detached, {
            "argv": ["python3", "-c", f"{SOURCE}\nsys.exit(main({{id}}, {quorum}, {pause}))\n"],
            "name": "work", "logs": "all"})
        if not await self._work.wait(tree.STARTED, timeout=CALM, extra=FIRST):
            self.wrong("the work did not start")

    def command(self) -> None:
        """On every machine that is there or may come back; what became of it is looked at in `finish`."""
        number = len(self._commands)
        shell = f"echo {number} >> once; wc -l < once; exit {number % 7}"
        self._commands.append((number, self.session.call(frames.RUN, self.session.up | self.session.detached,
                                                         {"shell": shell})))

    async def ship(self) -> None:
        """A file for all machines; returns when a part of it is on its way."""
        session = self.session
        path = Path(self._files.enter_context(tempfile.TemporaryDirectory())) / "file"
        path.write_bytes(os.urandom(FILE))
        self._sum = hashlib.sha256(path.read_bytes()).hexdigest()
        source = self._files.enter_context(contextlib.closing(Source(path)))
        self._shipped = session.shipping.ship(source, session.up, "file", None, cache=False)
        while session.shipping.sent < FILE // 4:  # noqa: ASYNC110  what is sent has no event
            await asyncio.sleep(0.01)
        if self._shipped.settled(tree.DONE):
            self.wrong("the file had arrived before the fault")

    async def shipped(self, machines: int) -> None:
        """All these get all of it."""
        call, session = self._shipped, self.session
        if not await call.until(lambda: not machines & ~call.heard(tree.DONE), CALM):
            self.wrong(f"{machineset.members(machines & ~call.heard(tree.DONE))} did not get the file")
        for group, answer in call.groups(tree.DONE):
            if answer != ["ok", ""]:
                self.wrong(f"the file on {machineset.members(group)}: {answer}")
        there = session.call(frames.RUN, machines, {"argv": ["sha256sum", "file"]})
        await there.wait(tree.DONE, timeout=CALM)
        for group, (_, _, out, err, _) in there.groups(tree.DONE):
            if out.decode() != f"{self._sum}  file\n":
                self.wrong(f"the file on {machineset.members(group)} is not what was sent: {out!r} {err!r}")

    # What strikes them.

    def strike(self, kind: Kind, machine: int, lasts: float) -> None:
        """A fault, which is undone after so many seconds if it is one that lasts."""
        self.say(f"  {kind.name} {machine}" + (f" for {lasts:.1f} s" if kind.lasting else ""))
        self.figures.faults[kind.name] += 1
        if kind.fatal:
            self.fated.add(machine)
        struck = self.session.now()
        undo = kind.strike(self.ground, machine)
        if kind.lasting:
            self.busy.add(machine)
            self._start(self._undo(undo, machine, lasts))
        self._start(self._notice(kind, machine, struck))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notice(self, kind: Kind, machine: int, struck: float) -> None:
        session = self.session
        if not session.up >> machine & 1 or kind.name == "kill_ssh":
            return  # noticed for another reason already; or it strikes links below the machine, and not its own
        while session.now() - struck < NOTICED:
            if session.detached >> machine & 1 or machine in session.down:
                self.figures.noticed.setdefault(kind.name, []).append(session.now() - struck)
                return
            await asyncio.sleep(0.02)
        if kind.fatal:
            self.wrong(f"{kind.name} of {machine} was not noticed within {NOTICED:g} s")

    async def _undo(self, undo: Undo, machine: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        undo()
        self.busy.discard(machine)

    async def calm(self) -> None:
        """All faults have passed, and every machine is there or lost."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        session = self.session
        until = session.now() + CALM
        while (session.detached or self.fated - set(session.down)) and session.now() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if session.detached:
            self.wrong(f"still detached: {machineset.members(session.detached)}")

    # What comes of it.

    async def finish(self) -> None:
        """The work is told to stop, the run ends, and what came of both is compared with what must."""
        session = self.session
        work = self._work
        if work is not None:
            stop = session.call(frames.PROCESS, session.up, [work.number, "write", b"stop\n", True])
            await stop.wait(tree.DONE, timeout=CALM)
            if not await work.wait(tree.EXITED, timeout=CALM, extra=FIRST):
                self.wrong(f"no exit of {machineset.members(work.targets & ~work.settled(tree.EXITED, FIRST))}")
        for number, call in self._commands:
            await self._settled(f"command {number}", call, ["failed" if number % 7 else "ok", number % 7])
        for machine in self.fated - set(session.down):
            self.wrong(f"{machine} was taken by a fault, and is not lost")
        await self.end()
        if work is not None:
            self._delivered(work)

    async def end(self) -> None:
        """The run ends now, whatever goes on."""
        session = self.session
        self._files.close()
        began = time.monotonic()
        await session.end(grace=1.0)
        while self._tasks:
            await asyncio.gather(*self._tasks)
        self.figures.ended.append(time.monotonic() - began)
        for machine in set(session.down) - self.fated:
            self.wrong(f"{machine} is down without a fate: {session.down[machine]}")
        for machines, problem in session.problems:
            if set(machineset.members(machines)) - self.fated:
                self.wrong(f"{machineset.members(machines)}: {problem}")
        await self._leftovers()
        self.figures.runs += 1
        self.figures.recovered += session.recovery.recovered
        self.figures.machines_lost += len(self.fated)

    async def _settled(self, what: str, call: Call, want: list[Any]) -> None:
        if not await call.wait(tree.DONE, timeout=CALM):
            self.wrong(f"{what}: no answer of {machineset.members(call.targets & ~call.settled(tree.DONE))}")
        for machines, (outcome, status, out, err, _) in call.groups(tree.DONE):
            if [outcome, status] != want:
                self.wrong(f"{what} on {machineset.members(machines)}: {outcome} {status} {out!r} {err!r}")
        stray = call.lost & ~machineset.of(self.fated)
        if stray:
            self.wrong(f"{what} was lost on {machineset.members(stray)}")

    def _delivered(self, work: Call) -> None:
        codes = {m: value for ms, value in work.groups(tree.EXITED, FIRST) for m in machineset.members(ms)}
        for machine in range(self.count):
            reports = self.reports.get(machine, [])
            numbers = [report.seq for report in reports]
            if numbers != list(range(1, len(numbers) + 1)):
                self.wrong(f"reports of {machine}: {numbers}")
            self.figures.reports += len(numbers)
            log = bytes(self.logs.get(machine, b""))
            self.figures.log_bytes += len(log)
            if machine in self.fated:
                whole = log.rpartition(b"\n")[0].count(b"\n") + 1
                if not b"".join(worker.line(machine, i) for i in range(1, whole + 3)).startswith(log):
                    self.wrong(f"log of {machine}, which was lost, is not a beginning")
                continue
            if not reports or reports[-1].text != "the end":
                self.wrong(f"last report of {machine}: {reports[-1:]}")
                continue
            lines = reports[-1].fields["lines"]
            want = b"".join(worker.line(machine, i) for i in range(1, lines + 1)) + b"end %d\n" % lines
            if log != want:
                self.wrong(f"log of {machine}: {len(log)} bytes of {len(want)}")
            if codes.get(machine) != [worker.code(machine), False, codes.get(machine, [0, 0, b""])[2]]:
                self.wrong(f"exit of {machine}: {codes.get(machine)}")

    async def _leftovers(self) -> None:
        """On hosts with power no process and no file; an sshd whose client went without a word is not ours."""
        until = time.monotonic() + 15.0
        while True:
            left = [f"{host.name}: {text}" for i, host in enumerate(self.lab.hosts) if i not in self.ground.dead
                    for text in [*(t for t in self.lab.processes(host).values() if "sshd" not in t),
                                 *self.lab.changed_files(host)]]
            if not left or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        for what in left:
            self.wrong(f"left behind: {what}")
