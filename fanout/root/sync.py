"""Barriers, signals and topics of a run: the state that machines synchronise on.  Pure: no I/O, no clock.

Requests arrive merged, as (set of machines, request); answers leave as (set, request key, answer), so a barrier
over a thousand machines is about one message per relay each way.  The same class serves the scenario itself,
which asks with a callback instead of a set.

What always holds:
- nothing depends on the order in which machines' requests arrive, on how they were merged, or on repetition;
- every request is answered: granted, failed because it can never be granted, or failed at its deadline;
- a failed barrier says who is missing, to everyone who waits in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fanout.agent.core import machineset

Answer = tuple[bool, Any]
"""(True, value) or (False, reason)."""
Notify = Callable[[Answer], None]

REMEMBERED = 10_000  # barriers that are over, and single requests answered, kept to answer repetitions
TOPIC_VALUES = 100_000  # values kept per topic or signal; one more is refused
VALUE_MOST = 64 << 10  # bytes of one packed value
ANSWER_MOST = 1 << 20  # bytes of values in one answer; a longer collect is asked for in parts


@dataclass
class _Barrier:
    members: int
    count: int
    """How many of the members are needed."""
    arrived: int = 0
    calls: set[int] = field(default_factory=set)
    """The calls whose programs have arrived: when such a call is over on a member, it will not arrive any more."""
    deadline: float = float("inf")
    waiting: int = 0
    """Arrived machines that have not been answered."""
    listeners: list[Notify] = field(default_factory=list)
    over: Answer | None = None


@dataclass
class _Wait:
    """A request for `count` values of a signal or topic, from position `after` on."""

    name: str
    after: int
    count: int
    deadline: float = float("inf")
    machines: int = 0
    listeners: list[Notify] = field(default_factory=list)


class Sync:
    def __init__(self, everyone: int, describe: Callable[[int], str]) -> None:
        """`describe` puts a set of machines into words: names, their relays, their last reports."""
        self.everyone = everyone
        self.gone = 0
        """Machines that are lost."""
        self.answers: list[tuple[int, bytes, Answer]] = []
        """(set, request key, answer) to be sent down."""
        self._describe = describe
        self._barriers: OrderedDict[tuple[str, int], _Barrier] = OrderedDict()
        self._barrier_keys: dict[tuple[str, int], dict[bytes, int]] = {}
        self._values: dict[str, list[Any]] = {}
        self._waits: dict[bytes, _Wait] = {}
        self._done: dict[int, int] = {}
        self._answered: OrderedDict[tuple[int, bytes], Answer] = OrderedDict()
        self._root_waits = 0

    # Requests of machines.

    def request(self, machines: int, key: bytes, members: int, op: list[Any], value: Any, now: float) -> None:
        """`members` and `op` are what `key` says; `value` what it carries.  Bad ones are answered with the reason."""
        try:
            kind = op[0]
            if kind == "barrier":
                _, name, generation, count = op
                timeout, call = value
                self._arrive(machines, key, name, generation, members, count, timeout, call, now)
            elif kind in ("wait", "collect"):
                _, name, after, count = op
                self._wait(machines, key, f"{kind}:{name}", after, count, value, now)
            elif kind in ("signal", "publish"):
                for machine in machineset.members(machines):
                    self._single(machine, key, f"{'wait' if kind == 'signal' else 'collect'}:{op[1]}", value)
            else:
                raise ValueError(f"there is no {kind!r}")
        except (TypeError, ValueError, IndexError) as error:
            self._answer(machines, key, (False, f"a request that makes no sense: {error}"))

    def _answer(self, machines: int, key: bytes, answer: Answer) -> None:
        if machines:
            self.answers.append((machines, key, answer))

    def _arrive(self, machines: int, key: bytes, name: str, generation: int, members: int, count: int,
                timeout: float, call: int, now: float) -> None:
        barrier = self._barrier(name, generation, members, count)
        if isinstance(barrier, str):
            self._answer(machines, key, (False, barrier))
            return
        barrier.arrived |= machines & barrier.members
        if barrier.over is not None:
            self._answer(machines, key, barrier.over)
            return
        if machines & ~barrier.members:
            strangers = self._describe(machines & ~barrier.members)
            self._answer(machines & ~barrier.members, key, (False, f"barrier {name}: not a member: {strangers}"))
            machines &= barrier.members
        barrier.waiting |= machines
        keys = self._barrier_keys.setdefault((name, generation), {})
        keys[key] = keys.get(key, 0) | machines
        barrier.deadline = min(barrier.deadline, now + timeout)
        if call:
            barrier.calls.add(call)
        self._look(name, generation, barrier)

    def _barrier(self, name: str, generation: int, members: int, count: int) -> _Barrier | str:
        """The barrier, made by who comes first; or why there can be none."""
        members = members or self.everyone
        count = count or machineset.count(members)
        barrier = self._barriers.get((name, generation))
        if barrier is None:
            if members & ~self.everyone:
                return f"barrier {name}: machines that are not in this run"
            if count > machineset.count(members):
                return f"barrier {name}: {count} of {machineset.count(members)} members can never arrive"
            self._forget()
            barrier = self._barriers[name, generation] = _Barrier(members, count)
        elif (barrier.members, barrier.count) != (members, count):
            return (f"barrier {name}: called with {count} of {machineset.count(members)} members here, and with "
                    f"{barrier.count} of {machineset.count(barrier.members)} elsewhere")
        return barrier

    def _forget(self) -> None:
        while len(self._barriers) >= REMEMBERED:
            for key, barrier in self._barriers.items():
                if barrier.over is not None:
                    del self._barriers[key]
                    break
            else:
                return

    def _look(self, name: str, generation: int, barrier: _Barrier) -> None:
        """Whether it is full, or can never be."""
        if barrier.over is not None:
            return
        if machineset.count(barrier.arrived) >= barrier.count:
            self._end(name, generation, barrier, (True, machineset.count(barrier.arrived)))
            return
        ended = self._ended(barrier)
        never = barrier.members & ~barrier.arrived & (self.gone | ended)
        if machineset.count(barrier.members & ~never) < barrier.count:
            why = "lost" if not never & ~self.gone else "ended" if not never & self.gone else "lost or ended"
            self._end(name, generation, barrier, (False, self._missing(name, barrier, f"{why} before arriving", never)))

    def _ended(self, barrier: _Barrier) -> int:
        ended = 0
        for call in barrier.calls:
            ended |= self._done.get(call, 0)
        return ended

    def _missing(self, name: str, barrier: _Barrier, why: str, missing: int) -> str:
        return (f"barrier {name}: {machineset.count(barrier.arrived)} of {barrier.count} arrived; "
                f"{why}: {self._describe(missing)}")

    def _end(self, name: str, generation: int, barrier: _Barrier, answer: Answer) -> None:
        barrier.over = answer
        for key, machines in self._barrier_keys.pop((name, generation), {}).items():
            self._answer(machines, key, answer)
        barrier.waiting = 0
        listeners, barrier.listeners = barrier.listeners, []
        for notify in listeners:
            notify(answer)

    def _single(self, machine: int, key: bytes, name: str, value: Any) -> None:
        """A signal or a value for a topic, once, however often it is told."""
        known = self._answered.get((machine, key))
        if known is None:
            known = self._append(name, value)
            self._answered[machine, key] = known
            while len(self._answered) > REMEMBERED:
                self._answered.popitem(last=False)
        self._answer(machineset.single(machine), key, known)

    def _append(self, name: str, value: Any) -> Answer:
        values = self._values.setdefault(name, [])
        if len(values) >= TOPIC_VALUES:
            return False, f"{name.partition(':')[2]} holds {TOPIC_VALUES} values already"
        values.append(value)
        for key, wait in list(self._waits.items()):
            if wait.name == name and len(values) >= wait.after + wait.count:
                self._grant(key, wait)
        return True, len(values)

    def _wait(self, machines: int, key: bytes, name: str, after: int, count: int, timeout: float,
              now: float) -> None:
        if not 1 <= count <= TOPIC_VALUES or after < 0:
            self._answer(machines, key, (False, f"count {count}: give one from 1 to {TOPIC_VALUES}"))
            return
        wait = self._waits.setdefault(key, _Wait(name, after, count))
        wait.machines |= machines
        wait.deadline = min(wait.deadline, now + timeout)
        if len(self._values.get(name, ())) >= after + count:
            self._grant(key, wait)

    def _grant(self, key: bytes, wait: _Wait) -> None:
        self._settle(key, wait, (True, self._values[wait.name][wait.after : wait.after + wait.count]))

    def _settle(self, key: bytes, wait: _Wait, answer: Answer) -> None:
        self._waits.pop(key, None)
        self._answer(wait.machines, key, answer)
        for notify in wait.listeners:
            notify(answer)

    # The scenario's own requests, and what it tells.

    def barrier(self, name: str, generation: int, members: int, count: int, timeout: float, now: float,
                notify: Notify) -> None:
        """Wait, without being a member, until the barrier is full."""
        barrier = self._barrier(name, generation, members, count)
        if isinstance(barrier, str):
            notify((False, barrier))
        elif barrier.over is not None:
            notify(barrier.over)
        else:
            barrier.listeners.append(notify)
            barrier.deadline = min(barrier.deadline, now + timeout)
            self._look(name, generation, barrier)

    def signal(self, name: str, value: Any) -> Answer:
        return self._append(f"wait:{name}", value)

    def publish(self, name: str, value: Any) -> Answer:
        return self._append(f"collect:{name}", value)

    def wait(self, kind: str, name: str, after: int, count: int, timeout: float, now: float, notify: Notify) -> None:
        """`kind` is `wait` (signals) or `collect` (topics)."""
        self._root_waits += 1
        key = b"root %d" % self._root_waits
        full = f"{kind}:{name}"
        if not 1 <= count <= TOPIC_VALUES:
            notify((False, f"count {count}: give one from 1 to {TOPIC_VALUES}"))
            return
        wait = self._waits[key] = _Wait(full, after, count, now + timeout, 0, [notify])
        if len(self._values.get(full, ())) >= after + count:
            self._grant(key, wait)

    def values(self, kind: str, name: str) -> list[Any]:
        """What there is so far."""
        return list(self._values.get(f"{kind}:{name}", ()))

    def lose(self, machines: int) -> None:
        """These machines are gone."""
        self.gone |= machines
        for (name, generation), barrier in list(self._barriers.items()):
            self._look(name, generation, barrier)

    def regain(self, machines: int) -> None:
        self.gone &= ~machines

    def call_over(self, call: int, machines: int) -> None:
        """What this call started has ended on these machines."""
        self._done[call] = self._done.get(call, 0) | machines
        for (name, generation), barrier in list(self._barriers.items()):
            if call in barrier.calls:
                self._look(name, generation, barrier)

    # Time.

    def tick(self, now: float) -> None:
        """Fail what is overdue."""
        for (name, generation), barrier in list(self._barriers.items()):
            if barrier.over is None and barrier.deadline <= now:
                missing = barrier.members & ~barrier.arrived
                reason = self._missing(name, barrier, "missing at the timeout", missing)
                self._end(name, generation, barrier, (False, reason))
        for key, wait in list(self._waits.items()):
            if wait.deadline <= now:
                kind, _, name = wait.name.partition(":")
                there = max(0, len(self._values.get(wait.name, ())) - wait.after)
                self._settle(key, wait, (False, f"{kind} {name}: {there} of {wait.count} at the timeout"))

    def timeout(self) -> float | None:
        due = [b.deadline for b in self._barriers.values() if b.over is None]
        due += [w.deadline for w in self._waits.values()]
        earliest = min(due, default=float("inf"))
        return None if earliest == float("inf") else earliest
