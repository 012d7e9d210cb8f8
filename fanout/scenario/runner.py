"""One run, from the file to the result: provision, connect, scenario, tear-down.

What always holds: after `run` returns or raises, everything it started is down, or has been given up within a
bound and said so; agents that cannot be reached end with their lease.  UsageError and FleetError are raised;
everything else becomes the outcome of the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import os
import resource
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanout.agent.core import machineset
from fanout.durations import show as show_duration
from fanout.errors import FanoutError, FleetError, ScenarioFailure, UsageError
from fanout.fleets import open_fleet
from fanout.fleets.base import Fleet as FleetSource
from fanout.fleets.base import Host, Request
from fanout.fleets.roles import assign
from fanout.root import constants
from fanout.root.holdings import Holdings
from fanout.root.machine import Machine
from fanout.root.outcomes import Failure, Outcome, Report, RunOutcome, RunResult
from fanout.root.planner import Tree, plan
from fanout.root.session import Session
from fanout.root.settings import CIPHER, KEX, LEASE_LEAST, Settings
from fanout.root.transport import check_algorithms
from fanout.scenario.blocking import watched
from fanout.scenario.build import check as check_build
from fanout.scenario.collecting import end, last_fetches
from fanout.scenario.context import Context
from fanout.scenario.counts import resolve
from fanout.scenario.decorator import Scenario
from fanout.scenario.fleet import Fleet
from fanout.scenario.interrupts import Interrupts
from fanout.scenario.live import live
from fanout.scenario.loader import beside, load
from fanout.scenario.observer import Observer
from fanout.scenario.observers import Observers
from fanout.scenario.params import bind
from fanout.scenario.strays import Strays
from fanout.scenario.verdict import Verdict, judge
from fanout.scenario.workshop import Workshop

if TYPE_CHECKING:
    from fanout.scenario.builder import Builder

TIMEOUT = 3600.0
"""Seconds for a run that says nothing else."""
UNWIND = 5.0
"""Seconds that an interrupted scenario has for its own clean-up."""
GRACE = 2.0
"""Seconds between TERM and KILL for what still runs at the end."""
TEAR_DOWN = 15.0
"""Seconds for machines to end tidily."""
BUILDERS = 3
"""Machines that may be lost while they build: what ends so many may well be the build."""
CAUSES = 8
"""Different causes in a reason."""


def new_run_id() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class RunOptions:
    """What `fanout run` can be told; durations in seconds."""

    name: str | None = None
    """Which scenario of the file; None: its only one."""
    machines: int | None = None
    roles: dict[str, int] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    fleet: str = "local"
    relays: int | None = None
    """None: chosen; 0: the root reaches every machine itself."""
    depth: int | None = None
    width: int | None = None
    timeout: float | None = None
    """For the whole run; None: the scenario's ttl, or TIMEOUT."""
    connect_timeout: float = 60.0
    lease: float = 60.0
    kex: str | None = None
    """None: the default of Settings."""
    cipher: str | None = None
    forward_agent: bool = False
    keep: float | None = None
    """How long machines that the fleet made are kept after a failure; None: they are not."""
    yes: bool = False
    """Whatever it costs."""
    run: str = field(default_factory=new_run_id)
    place: Callable[[str], Path] | None = None
    """Where what is kept of a machine goes, by its name."""
    live: Path | None = None
    """Where `fanout logs -f` reaches this run: the path of a socket."""


async def run(path: Path, options: RunOptions, observers: Sequence[Observer] = ()) -> RunResult:
    """Run the scenario of a file on a fleet.

    With roles, -n shares the machines among them (see `counts`).  A run fails when fewer machines than the
    scenario's quorum connect (it is not started then), or when more than that are lost until its end, those that
    `fleet.may_lose` names excepted.  UsageError before anything is made; FleetError when no machine is to be had.
    """
    path = Path(path)
    with beside(path.parent):
        scenario = load(path, options.name)
        args = bind(scenario, options.args)
        machines, roles = resolve(scenario, options.machines, options.roles)
        if scenario.build is not None and (wrong := check_build(scenario.build, args)):
            raise UsageError(wrong[0])
        times = ("timeout", options.timeout), ("connect timeout", options.connect_timeout), ("keep", options.keep)
        for what, seconds in times:
            if seconds is not None and not seconds > 0:
                raise UsageError(f"a {what} of {seconds} s: it must be more than 0")
        check_algorithms(options.kex, options.cipher)
        source = open_fleet(options.fleet)
        source.unlimited = options.yes
        relays = options.relays or 0
        if machines is not None:  # what is wrong is told before it costs
            relays = plan(machines, relays=options.relays, depth=options.depth, width=options.width,
                          costs=constants.of(options.fleet), size=scenario.ships).relays
        request = Request(options.run, machines, roles, heads=max(1, relays))
        work = _Run(scenario, args, request, source, options, Observers(observers), path.resolve().parent)
        return await work.go()


class _Run:
    def __init__(
        self,
        scenario: Scenario,
        args: dict[str, Any],
        request: Request,
        source: FleetSource,
        options: RunOptions,
        observer: Observer,
        folder: Path,
    ) -> None:
        self.folder = folder
        self.scenario = scenario
        self.args = args
        self.request = request
        self.source = source
        source.say = observer.note
        source.record = lambda made: self._hold(made=made)
        self.options = options
        self.observer = observer
        self.result = RunResult(options.run, scenario.name)
        self.session: Session | None = None
        self.context: Context | None = None
        self._holdings = Holdings(
            options.run, source.name, lease=options.lease,
            ssh={"kex": options.kex or KEX, "cipher": options.cipher or CIPHER, "forward_agent": options.forward_agent})
        self._limit = options.timeout or scenario.ttl or TIMEOUT
        self._builder: Builder | None = None
        self._built: dict[str, Path] = {}
        self._building = False
        self._needed = 0
        self._playing = False
        self._reports = 0
        self._began = time.monotonic()
        self._cpu = _cpu_seconds()

    async def go(self) -> RunResult:
        raised: BaseException | None = None
        with Interrupts() as interrupts, watched(self.observer.warning, self.options.lease):
            work = asyncio.create_task(self._work())
            try:
                await _either(work, interrupts.first, self._limit)
            except asyncio.CancelledError as cancelled:  # by the caller: the run is torn down all the same
                raised = cancelled
            if not work.done():
                if raised or interrupts.first.is_set():
                    self._conclude(RunOutcome.INTERRUPTED, "interrupted")
                else:
                    self._conclude(RunOutcome.FAILED, self._too_long())
                work.cancel()
                await _either(work, interrupts.second, UNWIND)
            elif not work.cancelled():
                raised = work.exception()
            self._settle()
            down = asyncio.create_task(self._timed("teardown_s", self._tear_down()))
            with contextlib.suppress(asyncio.CancelledError):
                await _either(down, interrupts.second)
            if not down.done():
                self.observer.note("interrupted again: letting go at once")
                down.cancel()
                await asyncio.wait({down}, timeout=1.0)
                await self._let_go()
        if raised is not None:
            raise raised
        self._figures()
        self.observer.finished(self.result)
        return self.result

    def _conclude(self, outcome: RunOutcome, reason: str, failures: Sequence[Failure] = ()) -> None:
        """The first word is the last: what comes of an interrupted scenario's clean-up does not change it."""
        if not self.result.reason and self.result.outcome is RunOutcome.ERROR:
            self.result.outcome, self.result.reason = outcome, reason
            self.result.failures += failures

    async def _timed(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        began = time.monotonic()
        try:
            await work
        finally:
            self.result.timings[name] = self.result.timings.get(name, 0.0) + time.monotonic() - began

    # Up.

    async def _work(self) -> None:
        """UsageError and FleetError go to the caller; whatever the scenario does is concluded here."""
        try:
            await self._build()  # first: a build that fails costs no machines
            hosts = await self._provision()
            await self._timed("connect_s", self._connect(hosts))
            if not self._enough():
                return
            await self._build_there()
        except ScenarioFailure as failure:
            self._conclude(*judge(failure))
            return
        await self._timed("scenario_s", self._play())

    async def _build(self) -> None:
        build = self.scenario.build
        if build is None:
            return
        from fanout.scenario.builder import Builder

        def log(data: bytes) -> None:
            self.observer.log("root", "build", data, time.time())

        self._builder = Builder(build, build.filled(self.args), log, self.observer.note)
        await self._making(self._builder.find() if build.where == "machine" else self._make(self._builder, None))

    async def _build_there(self) -> None:
        """By one machine; by the next one where that is lost, as often as BUILDERS and the quorum allow."""
        if self._builder is None or self._built:
            return
        session, context = self.session, self.context
        assert session is not None and context is not None
        for left in reversed(range(BUILDERS)):
            machine = context.machines[machineset.first(session.up)]
            try:
                await self._making(self._make(self._builder, Workshop(machine)))
                return
            except ScenarioFailure:
                if machine.id not in session.down or not left or machineset.count(session.up) < self._needed:
                    raise
                self.observer.note(f"build: {machine} was lost while it built: the next machine builds")

    async def _make(self, builder: Builder, shop: Workshop | None) -> None:
        self._built = await builder.made(shop)

    async def _making(self, work: Coroutine[Any, Any, None]) -> None:
        self._building = True
        await self._timed("build_s", work)
        self._building = False

    def _too_long(self) -> str:
        text = f"the run took longer than {show_duration(self._limit)} (--timeout, or the scenario's ttl)"
        pending = "".join(f"\n  {doing}" for doing in self.context.pending()) if self.context is not None else ""
        if self._building:
            return f"{text}; it was building {self.scenario.build}{pending}"
        if self.context is None:
            return f"{text}; the fleet was still being provisioned"
        if not self._playing:
            boot = machineset.count(self.session.booting) if self.session is not None else 0
            return f"{text}; machines were still being connected{f', and {boot} had not booted' if boot else ''}"
        return f"{text}; it was{pending or ' in code of the scenario itself'}"

    async def _provision(self) -> list[Host]:
        wanted = self.request.machines or 1
        self.observer.phase("provision", 0, wanted)
        hosts: list[Host] = []

        async def provision() -> None:
            hosts.extend(
                await self.source.provision(
                    self.request, lambda done, total: self.observer.phase("provision", done, total)
                )
            )

        await self._timed("provision_s", provision())
        if not hosts:
            raise FleetError(f"the fleet {self.options.fleet} has no machines")
        self.observer.phase("provision", len(hosts), len(hosts))
        if booting := len(self.source.booting):
            self.observer.note(f"{len(hosts) - booting} of {len(hosts)} machines are ready: they are connected while "
                               "the others boot")
        return hosts

    def _tree(self, hosts: Sequence[Host]) -> Tree:
        options = self.options
        preferred = [i for i, host in enumerate(hosts) if host.relay]
        if booting := self.source.booting:  # a relay that still boots would hold up its whole subtree
            preferred = sorted(range(len(hosts)), key=lambda i: (i in booting, not hosts[i].relay))
        tree = plan(len(hosts), relays=options.relays, depth=options.depth, width=options.width, preferred=preferred,
                    costs=constants.of(options.fleet),
                    size=0 if all(host.here for host in hosts) else self.scenario.ships)
        if tree.relays and self.options.lease < LEASE_LEAST:
            self.observer.warning(
                f"a lease of {show_duration(self.options.lease)} is shorter than what it takes to notice a relay that "
                f"hangs and to find another way: machines below one would end; give --lease {LEASE_LEAST:g}s or more")
        self.result.tree = {"relays": tree.relays, "depth": tree.depth, "width": tree.width}
        return tree

    async def _connect(self, hosts: list[Host]) -> None:
        self.observer.phase("connect", 0, len(hosts))
        roles = assign(hosts, self.request.roles)
        machines = [Machine(i, host, role) for i, (host, role) in enumerate(zip(hosts, roles, strict=True))]
        tree = self._tree(hosts)
        options = self.options
        settings = Settings(
            options.run, connect_timeout=options.connect_timeout, lease=options.lease, **self._holdings.ssh)
        # With a key of the fleet's, which is not written down, a later command reaches each machine itself.
        later = tree.parents if self.source.relay_key is None else [None] * len(machines)
        self._hold(machines=machines, parents=later, left=range(len(machines)))
        session = Session(machines, tree.parents, settings, relay_key=self.source.relay_key,
                          booting=machineset.of(self.source.booting))
        self.session = session
        context = self.context = Context(session, self.observer, options.run, self.args, self.folder)
        context.keep = options.place
        session.on_down = self._down
        session.on_report = self._report
        session.on_log = lambda machine, process, data, when: self.observer.log(
            machines[machine].name, context.processes.get(process, str(process)), data, when
        )
        self._needed = math.ceil(self.scenario.quorum * len(machines) - 1e-9)
        connecting = session.connect(lambda done, total: self.observer.phase("connect", done, total))
        tasks = {asyncio.create_task(connecting), asyncio.create_task(self._arrive(session))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for note in session.unaided_notes():
            self.observer.note(note)

    async def _arrive(self, session: Session) -> None:
        """Hand on what the fleet tells of machines that boot while others are being connected."""
        async for news in self.source.arrivals():
            for place, why in news.gone.items():
                session.lose(machineset.single(place), Outcome.UNREACHABLE, why)
            session.arrived(machineset.of(news.ready))
        session.lose(session.booting, Outcome.UNREACHABLE, "the fleet tells nothing of it any more")

    def _down(self, machines: int, outcome: Outcome, reason: str) -> None:
        assert self.context is not None
        self.observer.warning(f"{self.context.names(machines)}: {outcome}: {reason}")

    def _report(self, report: Report) -> None:
        self._reports += 1
        self.observer.report(report)

    def _enough(self) -> bool:
        """Whether as many machines are up as the scenario needs."""
        assert self.session is not None
        up, total = machineset.count(self.session.up), len(self.session.machines)
        if up >= self._needed:
            return True
        text = f"{total - up} of {total} machines could not be connected{self._causes(~0)}"
        if not up:
            raise FleetError(text)
        if self.scenario.quorum < 1:
            text += f"\n{self._needed} are needed (quorum {self.scenario.quorum:g})"
        self._conclude(RunOutcome.FAILED, text)
        return False

    def _causes(self, among: int) -> str:
        """Why machines are down: a line a cause, the most frequent first."""
        assert self.session is not None and self.context is not None
        causes = self.context.why_down(machineset.of(self.session.down) & among)
        ordered = sorted(causes, key=lambda cause: -machineset.count(cause[0]))
        lines = [f"\n  {self.context.names(bits)}: {outcome}: {why}" for bits, outcome, why in ordered[:CAUSES]]
        if len(ordered) > CAUSES:
            lines.append(f"\n  and {len(ordered) - CAUSES} more causes")
        return ":" + "".join(lines)

    async def _play(self) -> None:
        assert self.session is not None and self.context is not None
        self.observer.phase("scenario", 0, 1)
        fleet = Fleet(self.context, self.session.up)
        self._playing = True
        verdict = None
        with Strays(self.observer.warning) as strays:
            try:
                for name, path in self._built.items():
                    fleet.build[name] = await fleet.ship(path, f"build/{name}", timeout=self._limit)
                async with live(self.context, self.options.live):
                    await self.scenario.function(fleet, **self.args)
            except BaseException as error:  # sys.exit too; a cancellation, when the run is concluded already
                verdict = judge(error)
            for name in await strays.end(UNWIND):
                self.observer.note(f"{name} still ran in a task of the scenario when that ended, and was cancelled: "
                                   "await the task where its end matters")
        self.session.problems += [told for unseen in self.context.ends for told in unseen()]
        if verdict is None:
            verdict = judge(strays.error) if strays.found else self._passed()
        self._conclude(*verdict)
        self.observer.phase("scenario", 1, 1)

    def _passed(self) -> Verdict:
        """The scenario is content; whether the machines are is seen here."""
        assert self.session is not None and self.context is not None
        total = len(self.session.machines)
        lost = machineset.of(self.session.down) & ~self.context.excused
        if total - machineset.count(lost) < self._needed:
            many = machineset.count(lost)
            text = f"{many} of {total} machines were lost while the scenario ran{self._causes(lost)}"
            return Verdict(RunOutcome.FAILED, text, [])
        return Verdict(RunOutcome.PASSED, "", [])

    # Down.

    def _settle(self) -> None:
        """What became of each machine, before the tear-down makes all of them go."""
        if self.session is None or self.context is None:
            return
        names = [machine.name for machine in self.session.machines]
        fates = {names[machine]: fate for machine, (fate, _) in self.session.down.items()}
        for machine in machineset.members(((1 << len(names)) - 1) & ~self.session.joined):
            fates.setdefault(names[machine], Outcome.UNREACHABLE)  # the run ended while it was being connected
        down = [Failure(names[machine], *why) for machine, why in sorted(self.session.down.items())]
        told = [failure for failure in self.result.failures if failure.machine not in fates]
        for failure in told:
            fates[failure.machine] = failure.outcome
        self.result.failures = down + told
        self.result.machines = {str(Outcome.OK): len(names) - len(fates)}
        for fate in fates.values():
            self.result.machines[str(fate)] = self.result.machines.get(str(fate), 0) + 1
        self.result.steps = self.context.steps

    async def _tear_down(self) -> None:
        self.observer.phase("tear-down", 0, 1)
        if self.session is not None:
            assert self.context is not None
            try:
                await last_fetches(self.context, self.result.outcome)
                await end(self.context, self.result.outcome, GRACE, TEAR_DOWN)
            except (FanoutError, OSError) as error:
                self.observer.warning(f"the machines were not ended tidily: {error}")
            for machines, problem in self.session.problems:
                told = f"{self.context.names(machines)}: {problem}"
                self.result.problems.append(told)
                self.observer.warning(told)
            self._hold(left=machineset.members(self.session.joined & ~self.session.ended))
        if not await self._kept():
            await self._release()
        self.observer.phase("tear-down", 1, 1)

    async def _kept(self) -> bool:
        """Whether the machines stay, for a person to look at."""
        if self.options.keep is None or self.session is None:
            return False
        if self.result.outcome not in (RunOutcome.FAILED, RunOutcome.ERROR):
            return False
        key = self.source.relay_key
        try:
            until = await self.source.keep(self.options.keep)
        except (FanoutError, OSError) as error:
            self.observer.warning(f"--keep: the machines are not kept: {error}")
            return False
        if until is None:
            self.observer.note(f"--keep: the fleet {self.source.name} has made no machines that could be kept")
            return False
        self._hold(kept=until)
        self.observer.kept(self._holdings, key)
        return True

    def _hold(self, **changes: Any) -> None:
        self._holdings = replace(self._holdings, **changes)
        self.observer.holds(self._holdings)

    async def _release(self) -> None:
        seconds = self.source.release_timeout
        try:
            async with asyncio.timeout(seconds):
                await self.source.release()
            self._hold(made=None, left=() if self._holdings.made is not None else self._holdings.left)
        except TimeoutError:
            self.observer.warning(f"the fleet {self.options.fleet} was not released within {seconds:g} s")
        except (FanoutError, OSError) as error:
            self.observer.warning(f"the fleet {self.options.fleet} was not released: {error}")

    async def _let_go(self) -> None:
        if self.session is not None:
            await self.session.abort()
        await self._release()

    def _figures(self) -> None:
        result = self.result
        result.seconds = time.monotonic() - self._began
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        result.root = {"cpu_s": round(_cpu_seconds() - self._cpu, 3), "peak_rss_mb": round(rss / (1 << 20), 1)}
        if self.session is not None:
            result.root.update(self.session.statistics())
            assert self.context is not None
            result.metrics = self.context.metrics.summary(self.session.metrics)
            result.reports = self._reports + self.context.reports
            result.logs = {"bytes_forwarded": self.session.forwarded, "bytes_dropped": self.session.rotated}


async def _either(work: asyncio.Task[Any], event: asyncio.Event, timeout: float | None = None) -> None:
    """Until the work is done or the event is set; neither is cancelled, and nothing of the work is raised."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({work, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _cpu_seconds() -> float:
    """Of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
