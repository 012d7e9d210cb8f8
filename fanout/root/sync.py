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

from fanout.agent.core import codec, limits, machineset

Answer = tuple[bool, Any]
"""(True, value) or (False, reason)."""
Notify = Callable[[Answer], None]

REMEMBERED = 10_000  # barriers that are over, kept to answer repetitions and those who come late
OPEN_MOST = 10_000  # barriers that wait at one time
TOPIC_VALUES = 100_000  # values kept per topic or signal; one more is refused
HELD_MOST = 256 << 20  # bytes of all values that a run keeps
ANSWER_MOST = 1 << 20  # bytes of values in one answer to a machine; a longer collect is asked for in parts
NEVER = float("inf")


@dataclass
class _Barrier:
    name: str
    generation: int
    members: int
    count: int
    """How many of the members are needed."""
    arrived: int = 0
    calls: set[int] = field(default_factory=set)
    """The calls whose programs have arrived: when such a call is over on a member, it will not arrive any more."""
    deadline: float = NEVER
    waiting: dict[bytes, int] = field(default_factory=dict)
    """Request key -> arrived machines that have not been answered."""
    listeners: list[Notify] = field(default_factory=list)

    def answer(self, answer: Answer, answers: list[tuple[int, bytes, Answer]]) -> None:
        """To everyone who waits in it."""
        answers += [(machines, key, answer) for key, machines in self.waiting.items()]
        listeners, self.listeners, self.waiting = self.listeners, [], {}
        for notify in listeners:
            notify(answer)


@dataclass
class _Over:
    """What is left of a barrier that is full, or has failed."""

    members: int
    count: int
    answer: Answer


@dataclass
class _Wait:
    """A request for `count` values of a signal or topic, from position `after` on."""

    name: str
    after: int
    count: int
    machines: dict[float, int] = field(default_factory=dict)
    """Deadline -> who waits until then: some ask later than others."""
    listener: tuple[float, Notify] | None = None

    def due(self) -> float:
        return min([*self.machines, *([self.listener[0]] if self.listener else [])], default=NEVER)

    def everyone(self) -> int:
        machines = 0
        for part in self.machines.values():
            machines |= part
        return machines


class Sync:
    def __init__(self, machines: int, describe: Callable[[int], str]) -> None:
        """`machines` are all of the run; `describe` puts a set of them into words: names, relays, last reports."""
        self.machines = machines
        self.everyone = machines
        """Who is meant by a barrier that names no members."""
        self.gone = 0
        """Machines that are lost."""
        self.answers: list[tuple[int, bytes, Answer]] = []
        """(set, request key, answer) to be sent down."""
        self._describe = describe
        self._barriers: dict[tuple[str, int], _Barrier] = {}
        self._over: OrderedDict[tuple[str, int], _Over] = OrderedDict()
        self._values: dict[str, list[Any]] = {}
        self._held = 0
        self._waits: dict[bytes, _Wait] = {}
        self._ended: dict[int, int] = {}
        """Call -> the machines on which what it started has ended."""
        self._places: dict[tuple[int, bytes], int] = {}
        """(machine, request) -> where its value stands; as many as there are values."""
        self._root_waits = 0

    # Requests of machines.

    def request(self, machines: int, key: bytes, members: int, op: Any, value: Any, now: float) -> None:
        """`members` and `op` are what `key` says; `value` what it carries.  Bad ones are answered with the reason."""
        try:
            kind, name = op[0], limits.name(op[1])
            if kind == "barrier":
                _, _, generation, count = op
                timeout, call = value
                self._arrive(machines, key, (name, int(generation)), members, int(count), now + timeout, int(call))
            elif kind in ("wait", "collect"):
                _, _, after, count = op[:4]
                self._wait(machines, key, f"{kind}:{name}", int(after), int(count), now + value)
            elif kind in ("signal", "publish"):
                for machine in machineset.members(machines):
                    self._single(machine, key, _topic(kind, name), value)
            else:
                raise ValueError(f"there is no {kind!r}")
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            self._answer(machines, key, (False, f"a request that makes no sense: {error}"))

    def _answer(self, machines: int, key: bytes, answer: Answer) -> None:
        if machines:
            self.answers.append((machines, key, answer))

    # Barriers.

    def _arrive(self, machines: int, key: bytes, which: tuple[str, int], members: int, count: int, deadline: float,
                call: int) -> None:
        barrier = self._barrier(which, members, count)
        if not isinstance(barrier, _Barrier):
            self._answer(machines, key, barrier)
            return
        strangers = machines & ~barrier.members
        if strangers:
            why = f"barrier {barrier.name}: not a member: {self._describe(strangers)}"
            self._answer(strangers, key, (False, why))
        machines &= barrier.members
        if not machines:
            return
        barrier.arrived |= machines
        barrier.waiting[key] = barrier.waiting.get(key, 0) | machines
        barrier.deadline = min(barrier.deadline, deadline)
        if call:
            barrier.calls.add(call)
        self._look(barrier)

    def _barrier(self, which: tuple[str, int], members: int, count: int) -> _Barrier | Answer:
        """The barrier, made by who comes first; or the answer when there is none (any more)."""
        members = members or self.everyone
        count = count or machineset.count(members)
        name, generation = which
        found = self._barriers.get(which) or self._over.get(which)
        if found is None:
            if members & ~self.machines:
                return False, f"barrier {name}: machines that are not in this run"
            if not 0 < count <= machineset.count(members):
                return False, f"barrier {name}: {count} of {machineset.count(members)} members can never arrive"
            if len(self._barriers) >= OPEN_MOST:
                return False, f"barrier {name}: {OPEN_MOST} barriers wait already"
            found = self._barriers[which] = _Barrier(name, generation, members, count)
        elif (found.members, found.count) != (members, count):
            return False, (f"barrier {name}: called with {count} of {machineset.count(members)} members here, and "
                           f"with {found.count} of {machineset.count(found.members)} elsewhere"
                           + ("" if found.members == members else ", which are others"))
        return found.answer if isinstance(found, _Over) else found

    def _look(self, barrier: _Barrier) -> None:
        """Whether it is full, or can never be."""
        arrived = machineset.count(barrier.arrived)
        if arrived >= barrier.count:
            self._end(barrier, (True, arrived))
            return
        ended = 0
        for call in barrier.calls:
            ended |= self._ended.get(call, 0)
        never = barrier.members & ~barrier.arrived & (self.gone | ended)
        if machineset.count(barrier.members & ~never) < barrier.count:
            why = "lost" if not never & ~self.gone else "ended" if not never & self.gone else "lost or ended"
            self._end(barrier, (False, self._missing(barrier, f"{why} before arriving", never)))

    def _missing(self, barrier: _Barrier, why: str, missing: int) -> str:
        return (f"barrier {barrier.name}: {machineset.count(barrier.arrived)} of {barrier.count} arrived; "
                f"{why}: {self._describe(missing)}")

    def _end(self, barrier: _Barrier, answer: Answer) -> None:
        which = barrier.name, barrier.generation
        del self._barriers[which]
        self._over[which] = _Over(barrier.members, barrier.count, answer)
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        barrier.answer(answer, self.answers)

    # Signals and topics.

    def _single(self, machine: int, key: bytes, topic: str, value: Any) -> None:
        """A signal or a value for a topic, once, however often it is told."""
        place = self._places.get((machine, key))
        answer: Answer = (True, place)
        if place is None:
            answer = self._append(topic, value)
            if answer[0]:
                self._places[machine, key] = answer[1]
        self._answer(machineset.single(machine), key, answer)

    def _append(self, topic: str, value: Any) -> Answer:
        name = topic.partition(":")[2]
        try:
            size = limits.value(value, f"{name}: the value")
        except (TypeError, ValueError) as error:
            return False, str(error)
        values = self._values.setdefault(topic, [])
        if len(values) >= TOPIC_VALUES:
            return False, f"{name} holds {TOPIC_VALUES} values already"
        if self._held + size > HELD_MOST:
            return False, f"{name}: the values of this run have more than {HELD_MOST >> 20} MB"
        self._held += size
        values.append(value)
        for key, wait in list(self._waits.items()):
            if wait.name == topic and len(values) >= wait.after + wait.count:
                self._grant(key, wait)
        return True, len(values)

    def _wait(self, machines: int, key: bytes, topic: str, after: int, count: int, deadline: float) -> None:
        wrong = _bounds(after, count)
        if wrong:
            self._answer(machines, key, (False, wrong))
            return
        wait = self._waits.setdefault(key, _Wait(topic, after, count))
        new = machines & ~wait.everyone()  # what is repeated keeps its first deadline
        if new:
            wait.machines[deadline] = wait.machines.get(deadline, 0) | new
        if len(self._values.get(topic, ())) >= after + count:
            self._grant(key, wait)

    def _grant(self, key: bytes, wait: _Wait) -> None:
        del self._waits[key]
        values = self._values[wait.name][wait.after : wait.after + wait.count]
        if wait.listener is not None:
            wait.listener[1]((True, values))
        if wait.machines:
            size = len(codec.pack(values))
            answer: Answer = (True, values)
            if size > ANSWER_MOST:
                kind, _, name = wait.name.partition(":")
                answer = (False, f"{kind} {name}: {wait.count} values of {size} bytes; {ANSWER_MOST} are the most "
                                 f"in one answer: ask for them in parts")
            self._answer(wait.everyone(), key, answer)

    # The scenario's own requests, and what it tells.

    def barrier(self, name: str, generation: int, members: int, count: int, deadline: float, notify: Notify) -> None:
        """Wait, without being a member, until the barrier is full."""
        barrier = self._barrier((name, generation), members, count)
        if isinstance(barrier, _Barrier):
            barrier.listeners.append(notify)
            barrier.deadline = min(barrier.deadline, deadline)
            self._look(barrier)
        else:
            notify(barrier)

    def signal(self, name: str, value: Any) -> Answer:
        return self._append(_topic("signal", name), value)

    def publish(self, name: str, value: Any) -> Answer:
        return self._append(_topic("publish", name), value)

    def wait(self, kind: str, name: str, after: int, count: int, deadline: float, notify: Notify) -> None:
        """`kind` is `wait` (signals) or `collect` (topics)."""
        wrong = _bounds(after, count)
        if wrong:
            notify((False, wrong))
            return
        self._root_waits += 1
        key = b"root %d" % self._root_waits
        wait = self._waits[key] = _Wait(f"{kind}:{name}", after, count, {}, (deadline, notify))
        if len(self._values.get(wait.name, ())) >= after + count:
            self._grant(key, wait)

    # What becomes of machines.

    def lose(self, machines: int) -> None:
        """These machines are gone."""
        self.gone |= machines
        for barrier in list(self._barriers.values()):
            if barrier.members & machines:
                self._look(barrier)

    def regain(self, machines: int) -> None:
        self.gone &= ~machines

    def call_over(self, call: int, machines: int) -> None:
        """What this call started has ended on these machines."""
        self._ended[call] = self._ended.get(call, 0) | machines
        for barrier in list(self._barriers.values()):
            if call in barrier.calls:
                self._look(barrier)

    def call_begun(self, call: int, machines: int) -> None:
        """It runs (again) on these machines."""
        if call in self._ended:
            self._ended[call] &= ~machines

    # Time.

    def tick(self, now: float) -> None:
        """Fail what is overdue."""
        for barrier in [barrier for barrier in self._barriers.values() if barrier.deadline <= now]:
            missing = barrier.members & ~barrier.arrived
            self._end(barrier, (False, self._missing(barrier, "missing at the timeout", missing)))
        for key, wait in list(self._waits.items()):
            if wait.due() <= now:
                self._overdue(key, wait, now)

    def _overdue(self, key: bytes, wait: _Wait, now: float) -> None:
        kind, _, name = wait.name.partition(":")
        there = max(0, len(self._values.get(wait.name, ())) - wait.after)
        answer = (False, f"{kind} {name}: {there} of {wait.count} at the timeout")
        for deadline in [deadline for deadline in wait.machines if deadline <= now]:
            self._answer(wait.machines.pop(deadline), key, answer)
        listener = wait.listener
        if listener is not None and listener[0] <= now:
            wait.listener = None
            listener[1](answer)
        if not wait.machines and wait.listener is None:
            del self._waits[key]

    def timeout(self) -> float | None:
        """When `tick` is wanted."""
        due = [barrier.deadline for barrier in self._barriers.values()]
        due += [wait.due() for wait in self._waits.values()]
        earliest = min(due, default=NEVER)
        return None if earliest == NEVER else earliest


def _topic(kind: str, name: str) -> str:
    """Signals and topics are apart, each under the word that reads them."""
    return f"{'wait' if kind == 'signal' else 'collect'}:{name}"


def _bounds(after: int, count: int) -> str:
    if not 1 <= count <= TOPIC_VALUES or not 0 <= after <= TOPIC_VALUES:
        return f"count {count}, after {after}: give a count from 1 to {TOPIC_VALUES}"
    return ""
