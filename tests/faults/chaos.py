"""A campaign of random faults on a lab: `python -m tests.faults.chaos --seed 1 --runs 5 --hosts 40`.

Each run has a tree of three levels.  Every machine runs a process with numbered log lines, numbered reports and
barriers, while faults strike random machines at random moments; commands are run meanwhile.  At the end each
machine is either lost because a fault took it, or has delivered every byte, every report once and in order, and
its exit code.  A seed repeats the faults of a run: kinds, machines and moments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.base import Host
from fanout.fleets.lab import Lab
from fanout.root.machine import Machine
from fanout.root.outcomes import Report
from fanout.root.session import Session
from fanout.root.settings import Settings
from tests.faults import worker
from tests.faults.strikes import Ground, Undo, pick

SOURCE = Path(worker.__file__).read_text()
FIRST = (1).to_bytes(4, "big")
RECOVER = 25.0  # s that a machine may be away; faults that pass last up to 9 s
LASTS = (2.0, 9.0)  # s
CALM = 60.0  # s after the last fault within which everything has caught up
FATAL = 0.2  # share of the machines that a run may lose


def three_levels(hosts: int) -> list[int | None]:
    """About a tenth of the hosts at the top, twice as many below them, the rest are leaves."""
    tops = max(1, hosts // 10)
    relays = tops + 2 * tops
    return [None if i < tops else i % tops if i < relays else tops + i % (relays - tops) for i in range(hosts)]


@dataclass
class Figures:
    """Of any number of runs."""

    faults: Counter[str] = field(default_factory=Counter)
    noticed: dict[str, list[float]] = field(default_factory=dict)
    recovered: list[float] = field(default_factory=list)
    runs: int = 0
    machines_lost: int = 0
    reports: int = 0
    log_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    """What was lost, doubled, out of order or left behind: must be empty."""

    def text(self) -> str:
        lines = [f"{self.runs} runs, {sum(self.faults.values())} faults: "
                 + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))]
        for name, values in sorted(self.noticed.items()):
            lines.append(f"  noticed, {name}: {spread(values)}")
        lines.append(f"  recovered (from the loss of the link): {spread(self.recovered)}")
        lines.append(f"  {self.machines_lost} machines lost by fate; {self.reports} reports and {self.log_bytes} "
                     f"bytes of logs arrived; wrong: {len(self.wrong)}")
        return "\n".join([*lines, *(f"  WRONG: {wrong}" for wrong in self.wrong)])


def spread(values: list[float]) -> str:
    if not values:
        return "never"
    values = sorted(values)
    at = lambda share: values[min(len(values) - 1, int(len(values) * share))]  # noqa: E731
    return f"{len(values)} times, median {at(0.5):.2f} s, p99 {at(0.99):.2f} s, most {values[-1]:.2f} s"


class Run:
    def __init__(self, lab: Lab, seed: int, figures: Figures, say: Callable[[str], None]) -> None:
        self.lab = lab
        self.rng = Random(seed)
        self.figures = figures
        self.say = say
        self.count = len(lab.hosts)
        machines = [
            Machine(i, Host(h.name, h.address, user=h.user, port=h.port, key=str(lab.key), host_keys=h.host_keys), "")
            for i, h in enumerate(lab.hosts)]
        settings = Settings(uuid.uuid4().hex[:8], lease=40.0, recover=RECOVER)
        self.session = Session(machines, three_levels(self.count), settings, relay_key=lab.key.read_text())
        self.session.on_report = self._report
        self.session.on_log = self._log
        self.reports: dict[int, list[Report]] = {}
        self.logs: dict[int, bytearray] = {}
        self.fated: set[int] = set()
        """Machines that a fault has taken."""
        self.busy: set[int] = set()
        """Machines under a fault that lasts."""
        self.away: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _report(self, report: Report) -> None:
        assert report.machine is not None
        self.reports.setdefault(report.machine, []).append(report)

    def _log(self, machine: int, call: int, data: bytes, when: float) -> None:
        self.logs.setdefault(machine, bytearray()).extend(data)

    def wrong(self, what: str) -> None:
        self.figures.wrong.append(what)
        self.say(f"WRONG: {what}")

    async def play(self, faults: int, over: float) -> None:
        """So many faults, spread over so many seconds."""
        session = self.session
        await session.connect()
        if session.down:
            self.wrong(f"not connected: {session.down}")
        everyone = session.up
        who = session.call(frames.RUN, everyone, {"shell": "echo $PPID"})
        await who.wait(tree.DONE, timeout=30.0)
        agents = {m: int(answer[2]) for ms, answer in who.groups(tree.DONE) for m in machineset.members(ms)}
        ground = Ground(self.lab, agents)
        source = SOURCE
        quorum = self.count - int(self.count * FATAL)
        tail = f"\nsys.exit(main({{id}}, {quorum}, 0.4))\n"
        work = session.call(frames.SPAWN, everyone, {
            "argv": ["python3", "-c", source + tail], "name": "work", "logs": "all"})
        await work.wait(tree.STARTED, timeout=30.0, extra=FIRST)
        commands: list[Any] = []
        moments = sorted(self.rng.random() * over for _ in range(faults))
        began = session.now()
        for number, moment in enumerate(moments):
            await asyncio.sleep(max(0.0, began + moment - session.now()))
            self._strike(ground)
            if number % 3 == 0:
                shell = f"echo {number} >> once; wc -l < once; exit {number % 7}"
                commands.append((number, session.call(frames.RUN, session.up | session.detached, {"shell": shell})))
        while self._tasks:
            await asyncio.gather(*self._tasks)
        await self._calm()
        stop = session.call(frames.PROCESS, session.up, [work.number, "write", b"stop\n", True])
        await stop.wait(tree.DONE, timeout=CALM)
        if not await work.wait(tree.EXITED, timeout=CALM, extra=FIRST):
            self.wrong(f"no exit of {machineset.members(work.targets & ~work.settled(tree.EXITED, FIRST))}")
        for number, call in commands:
            await self._settled(f"command {number}", call, ["failed" if number % 7 else "ok", number % 7])
        await session.end(grace=1.0)
        self._judge(work)
        await self._leftovers(ground)
        self.figures.runs += 1
        self.figures.recovered += session.recovery.recovered
        self.figures.machines_lost += len(self.fated)

    async def _calm(self) -> None:
        until = self.session.now() + CALM
        while self.session.detached and self.session.now() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if self.session.detached:
            self.wrong(f"still detached: {machineset.members(self.session.detached)}")

    def _strike(self, ground: Ground) -> None:
        fatal = self.rng.random() < 0.25 and len(self.fated) < int(self.count * FATAL)
        kind = pick(self.rng, fatal)
        relays = [m for m in range(self.count) if m < self.count * 3 // 10]
        among = relays if self.rng.random() < 0.6 or kind.name == "kill_ssh" else range(self.count)
        machine = self.rng.choice(list(among))
        lasts = self.rng.uniform(*LASTS)
        if machine in self.fated or machine in self.busy:
            self.say(f"  ({kind.name} would strike {machine}, which is struck already)")
            return
        self.say(f"  {kind.name} {machine}" + (f" for {lasts:.1f} s" if kind.lasting else ""))
        self.figures.faults[kind.name] += 1
        if fatal:
            self.fated.add(machine)
        struck = self.session.now()
        undo = kind.strike(ground, machine)
        if kind.lasting:
            self.busy.add(machine)
        for work in [self._notice(kind.name, machine, struck, kind.fatal),
                     *([self._undo(undo, machine, lasts)] if kind.lasting else [])]:
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _notice(self, name: str, machine: int, struck: float, must: bool) -> None:
        session = self.session
        if session.detached >> machine & 1 or machine in session.down or name == "kill_ssh":
            return  # noticed for another reason already; or it strikes links below the machine, and not its own
        while session.now() - struck < 12.0:
            if session.detached >> machine & 1 or machine in session.down:
                self.figures.noticed.setdefault(name, []).append(session.now() - struck)
                return
            await asyncio.sleep(0.02)
        if must:
            self.wrong(f"{name} of {machine} was not noticed within 12 s")

    async def _undo(self, undo: Undo, machine: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        undo()
        self.busy.discard(machine)

    async def _settled(self, what: str, call: Any, want: list[Any]) -> None:
        if not await call.wait(tree.DONE, timeout=CALM):
            self.wrong(f"{what}: no answer of {machineset.members(call.targets & ~call.settled(tree.DONE))}")
        for machines, (outcome, status, out, err, _) in call.groups(tree.DONE):
            if [outcome, status] != want:
                self.wrong(f"{what} on {machineset.members(machines)}: {outcome} {status} {out!r} {err!r}")
        stray = call.lost & ~machineset.of(self.fated)
        if stray:
            self.wrong(f"{what} was lost on {machineset.members(stray)}")

    def _judge(self, work: Any) -> None:
        session = self.session
        stray = set(session.down) - self.fated
        for machine in stray:
            self.wrong(f"{machine} is down without a fate: {session.down[machine]}")
        for machine in self.fated - set(session.down):
            self.wrong(f"{machine} was taken by a fault, and is not lost")
        for machines, problem in session.problems:
            if set(machineset.members(machines)) - self.fated:
                self.wrong(f"{machineset.members(machines)}: {problem}")
        codes = {m: value for ms, value in work.groups(tree.EXITED, FIRST) for m in machineset.members(ms)}
        for machine in range(self.count):
            numbers = [report.seq for report in self.reports.get(machine, [])]
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
            reports = self.reports.get(machine, [])
            if machine in stray or not reports or reports[-1].text != "the end":
                self.wrong(f"last report of {machine}: {reports[-1:]}")
                continue
            lines = reports[-1].fields["lines"]
            want = b"".join(worker.line(machine, i) for i in range(1, lines + 1)) + b"end %d\n" % lines
            if log != want:
                self.wrong(f"log of {machine}: {len(log)} bytes of {len(want)}")
            if codes.get(machine) != [worker.code(machine), False, codes.get(machine, [0, 0, b""])[2]]:
                self.wrong(f"exit of {machine}: {codes.get(machine)}")

    async def _leftovers(self, ground: Ground) -> None:
        """On hosts with power no process and no file; an sshd whose client went without a word is not ours."""
        until = time.monotonic() + 15.0
        while True:
            left = [f"{host.name}: {text}" for i, host in enumerate(self.lab.hosts) if i not in ground.dead
                    for text in [*(t for t in self.lab.processes(host).values() if "sshd" not in t),
                                 *self.lab.changed_files(host)]]
            if not left or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        for what in left:
            self.wrong(f"left behind: {what}")


async def campaign(hosts: int, seed: int, runs: int, faults: int, over: float, say: Callable[[str], None],
                   minutes: float = 60.0) -> Figures:
    figures = Figures()
    until = time.monotonic() + minutes * 60
    for number in range(runs):
        if time.monotonic() > until:
            break
        say(f"run {number + 1} of {runs}, seed {seed + number}, {hosts} hosts, {faults} faults in {over:g} s")
        before = len(figures.wrong)
        with await asyncio.to_thread(Lab.up, hosts, isolated_hosts=True) as lab:
            run = Run(lab, seed + number, figures, say)
            try:
                await run.play(faults, over)
            finally:
                await run.session.abort()
        if len(figures.wrong) > before:
            say(f"repeat it with: --seed {seed + number} --runs 1")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="no run is begun after that")
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--faults", type=int, default=25, help="in each run")
    parser.add_argument("--over", type=float, default=30.0, help="seconds over which they are spread")
    options = parser.parse_args()
    say = lambda text: print(text, flush=True)  # noqa: E731
    figures = asyncio.run(campaign(options.hosts, options.seed, options.runs, options.faults, options.over, say,
                                   options.minutes))
    say(figures.text())
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
