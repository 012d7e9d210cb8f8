"""The processes of one `spawn`: what is known of each, and the waits for them.

Each start of a process on a machine is a generation, counted here as the machine counts it, so that what is heard
of an earlier one is never taken for the present one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from fanout.agent.core import frames, machineset
from fanout.agent.core.node import DONE, EXITED, INSTANT, MATCHED, READY, STARTED
from fanout.durations import parse_duration
from fanout.durations import show as show_duration
from fanout.errors import UsageError
from fanout.root.call import Call
from fanout.root.outcomes import Outcome
from fanout.scenario import failures
from fanout.scenario.command import Command, Place, check_logs, check_pattern, exit_text, launch, process_name, show
from fanout.scenario.context import Context
from fanout.scenario.failures import ProcessFailed, ProcessTimeout, Trouble
from fanout.scenario.group import Group
from fanout.scenario.matches import Match, Matches
from fanout.scenario.results import Result, Results
from fanout.scenario.sizes import parse_size
from fanout.scenario.trigger import On, check_on

Collect = Literal["always", "on_failure", "never"]

ANSWER = 20.0
"""Seconds within which a machine answers what it can do at once."""
KILLING = 3.0
"""Seconds that a machine takes, beyond the grace, to give up on a process that cannot be killed."""
GATHER = 1.0
"""Seconds to hear of more failures after the first, so that one message has them all."""


class State(NamedTuple):
    """Disjoint sets: every process is in one."""

    starting: int
    running: int
    exited: int
    unstarted: int
    """It could not be started."""
    lost: int


async def spawn(
    context: Context,
    bits: int,
    command: Command,
    *,
    name: str | None,
    ready: str | None,
    ready_timeout: str | float,
    logs: str,
    collect: Collect,
    cap: str | int,
    env: Mapping[str, str] | None,
    cwd: Place | None,
    stdin: str | bytes | None,
    on: On | None,
    at: str | None,
) -> Spawned:
    body = launch(command, env=env, cwd=cwd, stdin=stdin)
    body["logs"] = check_logs(logs)
    body["collect"] = check_collect(collect, logs)
    body["cap"] = parse_size(cap)
    if not body["cap"]:
        raise UsageError("cap=0: write logs='none' to keep no output")
    body["ready"] = None if ready is None else check_pattern(ready)
    body["on"] = check_on(on)
    timeout = parse_duration(ready_timeout)
    delay = parse_delay(at)
    chosen = process_name(command, name)
    if not bits:
        raise UsageError(f"{show(command)!r}: the group is empty")
    body["name"] = context.unique(chosen)
    if collect != "never":
        context.collects = True
        context.session.need("fetch")
    body["at"] = None if delay is None else context.session.now() + delay
    call = context.call(frames.SPAWN, bits, body)
    context.processes[call.number] = body["name"]
    context.spawned[call.number] = bits
    spawned = Spawned(context, call, body["name"], show(command), ready is not None, logs != "none")
    await spawned.up(bits, timeout, delay)
    return spawned


def check_collect(collect: str, logs: str) -> str:
    if collect not in ("always", "on_failure", "never"):
        raise UsageError(f"collect={collect!r}: write 'always', 'on_failure' or 'never'")
    if collect != "never" and logs == "none":
        raise UsageError(f"collect={collect!r} and logs='none': there is no file to collect; write logs='file'")
    return collect


def parse_delay(at: str | None) -> float | None:
    """Seconds of `"+3s"`."""
    if at is None:
        return None
    if not isinstance(at, str) or not at.startswith("+"):
        raise UsageError(f"at={at!r}: write how far ahead the instant is, such as '+3s'")
    return parse_duration(at[1:])


class Spawned:
    def __init__(self, context: Context, call: Call, name: str, text: str, has_ready: bool, to_file: bool) -> None:
        self.context = context
        self.call = call
        self.name = name
        self.has_ready = has_ready
        self._title = name if text == name else f"{name} ({text})"
        self._to_file = to_file
        self._generations: dict[int, int] = {1: call.targets}
        self._told = 0
        """Where the scenario has ended it, has waited for its end, or was told of it."""
        context.ends.append(self.unseen)

    def _parts(self, bits: int) -> Iterator[tuple[bytes, int]]:
        """The set by generation."""
        for generation, machines in self._generations.items():
            if machines & bits:
                yield generation.to_bytes(4, "big"), machines & bits

    def _heard(self, phase: int, bits: int) -> Iterator[tuple[int, Any]]:
        """(set, value) of the present generations."""
        for extra, part in self._parts(bits):
            for machines, value in self.call.groups(phase, extra):
                if machines & part:
                    yield machines & part, value

    def state(self, bits: int) -> State:
        heard = exited = unstarted = 0
        for extra, part in self._parts(bits):
            heard |= part & self.call.heard(STARTED, extra)
            exited |= part & self.call.heard(EXITED, extra)
        for machines, reason in self._heard(STARTED, bits):
            unstarted |= machines if reason else 0
        for machines, _ in self.call.refused:
            unstarted |= machines & bits
        lost = bits & self.call.lost & ~exited & ~unstarted
        known = exited | unstarted | lost
        return State(bits & ~heard & ~known, heard & ~known, exited, unstarted, lost)

    def ready(self, bits: int) -> dict[int, list[str]]:
        """Machine -> what `ready` matched."""
        found = {}
        for machines, groups in self._heard(READY, bits):
            found.update(dict.fromkeys(machineset.members(machines), groups))
        return found

    def skew(self, bits: int) -> float | None:
        """Seconds between the first and the last start at an instant; None where there was none."""
        missed = [value for _, value in self._heard(INSTANT, bits)]
        return max(missed) - min(missed) if missed else None

    def unseen(self) -> Iterator[tuple[int, str]]:
        """(set, what is to be said) of those that ended badly by themselves, and the scenario does not know."""
        codes: dict[int, tuple[int, bytes]] = {}
        for machines, (code, stopped, tail) in self._heard(EXITED, self.call.targets & ~self._told):
            if code and not stopped:
                before, first = codes.get(code, (0, tail))
                codes[code] = before | machines, first
        for code, (machines, tail) in codes.items():
            said = failures.last_lines(tail, 1)
            yield machines, (f"{self._title} ended by itself ({exit_text(code)}), and the scenario did not look"
                             + (f"; its last line: {said[0]}" if said else ""))

    # Start.

    async def up(self, bits: int, timeout: float, delay: float | None = None) -> None:
        """Until all of the set run, and are ready where that can be told; raises what is in the way."""

        def good() -> int:
            phase = READY if self.has_ready else STARTED
            heard = sum(part & self.call.heard(phase, extra) for extra, part in self._parts(bits))
            if delay is not None:
                heard &= sum(part & self.call.heard(INSTANT, extra) for extra, part in self._parts(bits))
            return heard & ~self.state(bits).unstarted

        def bad() -> int:
            state = self.state(bits)
            return (state.exited | state.unstarted | state.lost) & ~good()

        what = "ready" if self.has_ready else "started"
        limit = (delay or 0.0) + (timeout if self.has_ready else ANSWER)
        with self.context.doing(f"waiting until {self._title} is {what} on {self.context.names(bits)}"):
            in_time = await self.call.until(lambda: bool(bad()) or not bits & ~good(), limit)
            if not bits & ~good():
                return
            if bad():
                await self.call.until(lambda: not bits & ~good() & ~bad(), GATHER)
        missing = bits & ~good()
        troubles = self._ends(missing & bad(), f" before it was {what}" if self.has_ready else "")
        if not in_time:
            troubles += await self._late(missing & ~bad(), f"not {what} within {show_duration(limit)}")
        head = f"{self._title} is not {what} on {self.context.names(missing)}"
        raise self._problem(head, troubles)

    async def start(self, bits: int, timeout: float, delay: float | None) -> None:
        state = self.state(bits)
        if state.running | state.starting:
            raise ProcessFailed(
                f"{self._title} is running already on {self.context.names(state.running | state.starting)}:"
                " stop it before it is started again",
                [],
            )
        for generation, machines in sorted(self._generations.items(), reverse=True):
            moving = machines & bits
            if moving:
                self._generations[generation] = machines & ~moving
                self._generations[generation + 1] = self._generations.get(generation + 1, 0) | moving
        self._generations = {generation: machines for generation, machines in self._generations.items() if machines}
        self._told &= ~bits
        at = None if delay is None else self.context.session.now() + delay
        call = self._send(bits, "start", at)
        try:
            await self.up(bits, timeout, delay)
        except ProcessTimeout:
            refused = [Trouble(reason, machines, Outcome.FAILED) for machines, reason in call.refused]
            if refused:
                raise self._problem(f"{self._title} could not be started", refused) from None
            raise
        finally:
            self.context.session.forget(call)

    # Ends.

    async def stop(self, bits: int, grace: float) -> None:
        call = self._send(bits, "stop", grace)
        await self._answered(call, grace + KILLING + ANSWER, f"stopping {self._title}")
        problems = [
            Trouble(problem, machines, Outcome.FAILED) for machines, problem in call.groups(DONE) if problem
        ]
        if problems:
            raise self._problem(f"{self._title} could not be stopped", problems)
        await self._gone(bits)

    async def kill(self, bits: int) -> None:
        await self._signal(self.state(bits).running, 9)
        await self._gone(bits)

    async def _gone(self, bits: int) -> None:
        """What has ended is known to have ended."""
        if not await self.call.until(lambda: not self.state(bits).running, ANSWER):
            running = self.state(bits).running
            late = Trouble("still running", running, Outcome.TIMED_OUT)
            raise self._problem(f"{self._title} did not end within {show_duration(ANSWER)}", [late])

    async def wait(self, bits: int, timeout: float) -> Results:
        def done() -> bool:
            state = self.state(bits)
            return not state.running | state.starting

        with self.context.doing(f"waiting for the end of {self._title} on {self.context.names(bits)}"):
            in_time = await self.call.until(done, timeout)
        if not in_time:
            state = self.state(bits)
            late = await self._late(state.running | state.starting, "still running")
            raise self._problem(f"{self._title} did not end within {show_duration(timeout)}", late)
        found = []
        self._told |= bits
        for machines, (code, stopped, tail) in self._heard(EXITED, bits):
            outcome = Outcome.OK if code == 0 or stopped else Outcome.FAILED
            found.append(Result(Group(self.context, machines), outcome, code, b"", tail))
        found += [
            Result(Group(self.context, trouble.bits), trouble.outcome, reason=trouble.what)
            for trouble in self._ends(bits & ~self.state(bits).exited, "")
        ]
        return Results(self.context, found)

    # While it runs.

    async def signal(self, bits: int, number: int) -> None:
        self._need_running(bits, "a signal")
        await self._signal(bits, number)

    async def _signal(self, bits: int, number: int) -> None:
        self._told |= bits
        if bits:
            await self._answered(self._send(bits, "signal", number), ANSWER, f"a signal to {self._title}")

    async def write(self, bits: int, data: bytes, eof: bool) -> None:
        self._need_running(bits, "standard input")
        self._told |= bits if eof else 0
        await self._answered(self._send(bits, "write", data, eof), ANSWER, f"standard input of {self._title}")

    async def wait_log(
        self, bits: int, pattern: str, timeout: float, quorum: float, since: str
    ) -> Matches:
        began = time.time()
        needed = math.ceil(quorum * machineset.count(bits) - 1e-9)
        call = self._send(bits, "watch", pattern, since)
        text = f"waiting for {pattern!r} from {self._title} on {self.context.names(bits)}"
        deadline = time.monotonic() + timeout
        found: dict[int, Match] = {}
        try:
            with self.context.doing(text):
                while True:
                    left = max(0.0, deadline - time.monotonic())
                    in_time = await self._may_be_decided(call, needed - len(found), left)
                    found = {
                        machine: Match(*value)
                        for machines, value in call.groups(MATCHED)
                        if value is not None
                        for machine in machineset.members(machines)
                    }
                    open_yet = bits & ~call.settled(MATCHED)
                    if len(found) >= needed:
                        return Matches(self.context, bits, found, began)
                    if not in_time or len(found) + machineset.count(open_yet) < needed:
                        break
            raise await self._unmatched(call, bits, pattern, timeout, needed, found)
        finally:
            watching = bits & ~call.settled(MATCHED)
            self.context.session.forget(call)
            if watching:
                self.context.session.forget(self._send(watching, "unwatch", call.number))

    async def _may_be_decided(self, call: Call, lacking: int, timeout: float) -> bool:
        """Until so many more have answered that `lacking` may have matched, or that too few can; False: too late."""
        before = call.settled(MATCHED)
        spare = machineset.count(call.targets & ~before) - lacking
        decisive = min(lacking, spare + 1)
        return await call.until(lambda: machineset.count(call.settled(MATCHED) & ~before) >= decisive, timeout)

    async def _unmatched(
        self, call: Call, bits: int, pattern: str, timeout: float, needed: int, found: dict[int, Match]
    ) -> ProcessFailed | ProcessTimeout:
        missing = bits & ~machineset.of(found)
        waiting = bits & ~call.settled(MATCHED)
        troubles = self._ends(missing & ~waiting, " without printing it")
        known = sum(trouble.bits for trouble in troubles)
        if missing & ~waiting & ~known:
            troubles.append(Trouble("ended without printing it", missing & ~waiting & ~known, Outcome.FAILED))
        troubles += await self._late(waiting, f"not within {show_duration(timeout)}")
        of = f"{len(found)} of {machineset.count(bits)} machines, {needed} are needed"
        return self._problem(f"{self._title} printed {pattern!r} on {of}", troubles)

    # Parts.

    def _send(self, bits: int, op: str, *arguments: Any) -> Call:
        if not bits:
            raise UsageError(f"{self._title}: the group is empty")
        return self.context.call(frames.PROCESS, bits, [self.call.number, op, *arguments])

    async def _answered(self, call: Call, timeout: float, what: str) -> None:
        """Machines that are lost count as answered: what ran there is out of reach, and ends with its lease."""
        try:
            with self.context.doing(f"{what} on {self.context.names(call.targets)}"):
                in_time = await call.wait(DONE, timeout=timeout)
        finally:
            self.context.session.forget(call)
        troubles = [Trouble(reason, machines, Outcome.FAILED) for machines, reason in call.refused]
        if not in_time:
            silent = call.targets & ~call.settled(DONE)
            troubles.append(Trouble(f"no answer within {show_duration(timeout)}", silent, Outcome.TIMED_OUT))
        if troubles:
            raise self._problem(f"{what} failed", troubles)

    def _need_running(self, bits: int, what: str) -> None:
        state = self.state(bits)
        ended = state.exited | state.unstarted | state.lost
        if ended:
            raise self._problem(f"{self._title} is not running, and takes no {what}", self._ends(ended, ""))

    def _ends(self, bits: int, suffix: str) -> list[Trouble]:
        """Why processes of the set do not run."""
        self._told |= bits
        troubles = []
        for machines, reason in self._heard(STARTED, bits):
            if reason:
                troubles.append(Trouble(reason, machines, Outcome.FAILED))
        for machines, reason in self.call.refused:
            if machines & bits:
                troubles.append(Trouble(reason, machines & bits, Outcome.FAILED))
        for machines, (code, stopped, tail) in self._heard(EXITED, bits):
            how = "was stopped" if stopped else f"ended ({exit_text(code)})"
            one = self.context.machines[machineset.first(machines)].name
            troubles.append(Trouble(how + suffix, machines, Outcome.FAILED, [(one, tail)] if tail else []))
        for machines, outcome, reason in self.context.why_down(self.state(bits).lost):
            troubles.append(Trouble(f"{outcome}: {reason}", machines, outcome))
        return troubles

    async def _late(self, bits: int, what: str) -> list[Trouble]:
        """Those that did not make it, with the last lines of a few."""
        if not bits:
            return []
        said = await self.context.last_lines(self.name, bits) if self._to_file else []
        return [Trouble(what, bits, Outcome.TIMED_OUT, said)]

    def _problem(self, head: str, troubles: list[Trouble]) -> ProcessFailed | ProcessTimeout:
        late = troubles and all(trouble.outcome is Outcome.TIMED_OUT for trouble in troubles)
        kind: Callable[..., ProcessFailed | ProcessTimeout] = ProcessTimeout if late else ProcessFailed
        return kind(failures.message(self.context, head, troubles), failures.failures(self.context, troubles))
