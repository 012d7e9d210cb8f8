"""What the objects of one run's scenario share: the session, the machines, and what is going on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanout.agent.core import frames, machineset
from fanout.agent.core.node import DONE
from fanout.errors import UsageError
from fanout.names import fold
from fanout.root.call import Call
from fanout.root.outcomes import Outcome
from fanout.scenario.metrics import Metrics
from fanout.scenario.observer import Observer

if TYPE_CHECKING:
    from fanout.root.session import Session
    from fanout.scenario.group import Machine

NAMES = 200  # characters of folded names in a message
TAIL_MACHINES = 3  # machines whose last lines are fetched for a message
TAIL_TIMEOUT = 5.0  # s


class Context:
    def __init__(
        self, session: Session, observer: Observer, run_id: str, args: dict[str, Any], folder: Path
    ) -> None:
        from fanout.scenario.group import Machine
        from fanout.scenario.synchronise import Synchronise

        self.session = session
        self.observer = observer
        self.run_id = run_id
        self.args = args
        self.folder = folder
        """Of the scenario's file, resolved: what is in it travels with member functions."""
        self.sent: dict[str, int] = {}
        """Code of members -> the machines that have it."""
        self.synchronise = Synchronise(self)
        self.machines: list[Machine] = [Machine(self, one) for one in session.machines]
        self.excused = 0
        """Machines that may be lost without the run failing."""
        self.metrics = Metrics()
        self.steps: list[dict[str, Any]] = []
        self.reports = 0
        self.keep: Callable[[str], Path] | None = None
        """Where what is kept of a machine goes, by its name; None: this run keeps nothing."""
        self.on_failure: list[Callable[[float], Awaitable[None]]] = []
        """What to do before the machines go, if the run has failed by then; each is told the seconds it has."""
        self.collects = False
        """There are processes whose logs are to be brought at the end."""
        self.processes: dict[int, str] = {}
        """Call number of a spawn -> the process's name."""
        self.spawned: dict[int, int] = {}
        """Call number of a spawn -> the machines."""
        self.ends: list[Callable[[], Iterable[tuple[int, str]]]] = []
        """Of each spawn: (set, what is to be said) of processes whose end the scenario does not know of."""
        self._names: set[str] = set()
        self._doing: dict[int, tuple[str, float]] = {}
        self._next = 0

    # Calls.

    def call(self, kind: int, targets: int, body: Any) -> Call:
        """UsageError when it is too large for a message."""
        try:
            return self.session.call(kind, targets, body)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"this cannot be sent to machines: {error}") from None

    def why_down(self, bits: int) -> list[tuple[int, Outcome, str]]:
        """(set, outcome, reason) for machines that are lost to a call."""
        reasons: dict[tuple[Outcome, str], int] = {}
        for machine in machineset.members(bits):
            why = self.session.down.get(machine, (Outcome.LOST, "it was away for a while"))
            reasons[why] = reasons.get(why, 0) | machineset.single(machine)
        return [(machines, outcome, reason) for (outcome, reason), machines in reasons.items()]

    async def last_lines(self, name: str, bits: int) -> list[tuple[str, bytes]]:
        """(machine, end of the process's log), for the first few of a set that answer."""
        few = machineset.of(machineset.members(bits & self.session.up)[:TAIL_MACHINES])
        if not few:
            return []
        body = {"shell": f'tail -n 5 "$FANOUT_FOLDER/{name}.log" | tail -c 2000', "timeout": 3.0, "capture": 2000}
        call = self.call(frames.RUN, few, body)
        await call.wait(DONE, timeout=TAIL_TIMEOUT)
        self.session.forget(call)
        return [
            (self.machines[machine].name, output)
            for machines, (_, _, output, _, _) in call.groups(DONE)
            for machine in machineset.members(machines)
            if output
        ]

    # Names.

    def fold(self, bits: int) -> str:
        return fold(self.machines[machine].name for machine in machineset.members(bits))

    def names(self, bits: int) -> str:
        """Folded, and cut to what a message can hold."""
        text = self.fold(bits)
        return text if len(text) <= NAMES else f"{text[:NAMES]}... ({machineset.count(bits)} machines)"

    def unique(self, name: str) -> str:
        """The name, with a number when an earlier process of the run has it: it names files."""
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}-{count}"
        self._names.add(found)
        return found

    # What is going on.

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Said when the run's time is up."""
        self._next += 1
        key = self._next
        self._doing[key] = (text, time.monotonic())
        try:
            yield
        finally:
            del self._doing[key]

    def pending(self) -> Sequence[str]:
        now = time.monotonic()
        return [f"{text} (for {now - since:.0f} s)" for text, since in self._doing.values()]
