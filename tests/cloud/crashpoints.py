"""A campaign of crash points: the root is killed at, before or after each of its calls to the cloud.

    make crashpoints ARGS='--points 240 --seed 1'

A point is a shape of fleet, a call, and how the root dies there: `before` the call has had any effect, `unanswered`
after all of it, or `later`, within 30 ms after the answer.  Then what a dead root has left behind must go without
it.  At every other point the machines' own timers go first, and have to leave no machine; at all of them
`fanout reap --yes` has to leave nothing, once the expiry tag has passed, and to touch nothing before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from tests.cloud.cloud import REGION, Cloud
from tests.cloud.root import Roots
from tests.cloud.wire import DROPPED, Call, Fault

WHEN = ("before", "unanswered", "later")
LATER = 0.03  # s at most
EXPIRES, PAST = "fanout:expires", "2020-01-01T00:00:00Z"
TIMEOUT = 60.0  # s for the cloud to have done all it was asked
SPARED = 4
"""At one point of so many, what has not expired is seen to be left alone."""


@dataclass(frozen=True)
class Shape:
    """A fleet, and what the cloud does to it."""

    name: str
    machines: int
    options: str = ""
    batch: int = 100
    trouble: Callable[[Cloud], None] = lambda cloud: None


def short(cloud: Cloud) -> None:
    cloud.capacity["t3.small", f"{REGION}a"] = 2
    cloud.capacity["t3.small", f"{REGION}b"] = 0


def shaky(cloud: Cloud) -> None:
    cloud.seen_in = cloud.ends_in = 0.05
    cloud.faults += [
        Fault("CreateSecurityGroup", "RequestLimitExceeded"),
        Fault("RunInstances", DROPPED, effect=True),
        Fault("RunInstances", "RequestLimitExceeded"),
        Fault("TerminateInstances", "InternalError"),
    ]


SHAPES = (
    Shape("one machine", 1),
    Shape("three machines", 3),
    Shape("in batches, where capacity is short", 7, batch=3, trouble=short),
    Shape("spot", 2, ",spot=true"),
    Shape("a shaky API", 4, batch=2, trouble=shaky),
)


@dataclass(frozen=True)
class Point:
    shape: Shape
    call: int
    when: str

    def __str__(self) -> str:
        return f"{self.shape.name}: {self.when} call {self.call}"


@dataclass
class Figures:
    struck: Counter[str] = field(default_factory=Counter)
    """Deaths, by action and when."""
    missed: int = 0
    """Points that a root had ended before."""
    instances: int = 0
    """Alive at the deaths, all together."""
    groups: int = 0
    timed: int = 0
    """Instances that their own timer has ended."""
    reaped: int = 0
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        actions = Counter[str]()
        for name, count in self.struck.items():
            actions[name.split()[0]] += count
        return (
            f"{sum(self.struck.values())} roots killed, {self.missed} had ended before; they left {self.instances}"
            f" instances and {self.groups} security groups; {self.timed} instances ended by their timers,"
            f" {self.reaped} by reap; wrong: {len(self.wrong)}\n  "
            + ", ".join(f"{name} {count}" for name, count in sorted(actions.items()))
        )


class Campaign:
    def __init__(self, cloud: Cloud, roots: Roots, rng: Random) -> None:
        self._cloud = cloud
        self._roots = roots
        self._rng = rng
        self._number = 0
        self.figures = Figures()

    def points(self) -> Iterator[Point]:
        """All there are, from a life of each shape in which nobody is killed; in random order."""
        found = []
        for shape in SHAPES:
            ended, said = self._live(shape, lambda: None)
            if ended or self._cloud.left():
                self.figures.wrong.append(f"{shape.name}: not killed, it ended {ended}: {said}")
            found += [Point(shape, call, when) for call in range(1, len(self._cloud.calls) + 1) for when in WHEN]
        self._rng.shuffle(found)
        return iter(found)

    def strike(self, point: Point) -> None:
        """One life, death, and what comes after."""
        pids: queue.Queue[int] = queue.Queue()

        def kill() -> None:
            pid = pids.get(timeout=TIMEOUT)
            # It may have ended by itself; its number is not given away before its parent has waited for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        def before(number: int, call: Call) -> None:
            if point.when == "before" and number == point.call:
                kill()
                raise ConnectionResetError("its caller is dead")

        def after(number: int, call: Call) -> None:
            if number == point.call:
                if point.when == "unanswered":
                    kill()
                    raise ConnectionResetError("its caller is dead")
                if point.when == "later":
                    timer = threading.Timer(self._rng.random() * LATER, kill)
                    timer.start()
                    timers.append(timer)

        timers: list[threading.Timer] = []
        ended, said = self._live(point.shape, lambda: self._arm(before, after), pids)
        for timer in timers:
            timer.join()
        if ended != -signal.SIGKILL:
            self.figures.missed += 1
        else:
            self.figures.struck[f"{self._cloud.calls[point.call - 1].action} {point.when}"] += 1
        self._check(point, ended, said)

    def _arm(self, before: Callable[[int, Call], None], after: Callable[[int, Call], None]) -> None:
        self._cloud.before, self._cloud.after = before, after

    def _live(self, shape: Shape, arm: Callable[[], None], pids: queue.Queue[int] | None = None) -> tuple[int, str]:
        cloud = self._cloud
        self._number += 1
        cloud.clear()
        cloud.boots_in = cloud.ends_in = 0.0
        shape.trouble(cloud)
        arm()
        fleet = f"aws:region={REGION},root_address=10.0.0.0/8{shape.options}"
        pid = self._roots.start(
            fleet=fleet, machines=shape.machines, run=f"crash-{self._number}", batch=shape.batch)
        if pids is not None:
            pids.put(pid)
        ended = self._roots.wait()
        cloud.drain(TIMEOUT)
        self._arm(lambda number, call: None, lambda number, call: None)
        cloud.faults.clear()
        return ended

    def _check(self, point: Point, ended: int, said: str) -> None:
        cloud, figures = self._cloud, self.figures
        left = cloud.left()
        alive = len(cloud.instances())
        figures.instances += alive
        figures.groups += len(cloud.groups())
        if ended != -signal.SIGKILL and (ended or left):
            figures.wrong.append(f"{point}: it ended {ended}, and left {left}: {said}")
        if self._number % SPARED == 0:
            before = self._living()
            self._reap(point)
            if self._living() != before:
                figures.wrong.append(f"{point}: reap has taken what has not expired: {left} -> {cloud.left()}")
        if self._number % 2:
            for instance in cloud.instances():
                if b"shutdown -P " in cloud.launched[instance.id].user_data:
                    cloud.power_off(instance)
            if any(id.startswith("i-") for id in self._living()):
                figures.wrong.append(f"{point}: the timers leave {cloud.left()}")
            figures.timed += alive
        else:
            figures.reaped += alive
        cloud.tagged(lambda name, value: PAST if name == EXPIRES else value)
        told = self._reap(point)
        if left := cloud.left():
            figures.wrong.append(f"{point}: reap leaves {left}: {told}")

    def _living(self) -> list[str]:
        """What is not about to go already."""
        return [one.id for one in (*self._cloud.instances("pending", "running", "stopped"), *self._cloud.groups())]

    def _reap(self, point: Point) -> str:
        self._roots.start(argv=["reap", "--yes", "--fleet", f"aws:region={REGION}"])
        ended, said = self._roots.wait()
        if ended:
            self.figures.wrong.append(f"{point}: reap ended {ended}: {said}")
        return said


def campaign(points: int, seed: int, say: Callable[[str], None]) -> Figures:
    """Kills this many roots, or one at each point there is."""
    with Cloud() as cloud, Roots(cloud.environment) as roots:
        running = Campaign(cloud, roots, Random(seed))
        for number, point in enumerate(running.points()):
            if running.figures.struck.total() == points:
                break
            running.strike(point)
            if number % 20 == 19:
                say(running.figures.text())
        return running.figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started = time.monotonic()
    figures = campaign(given.points, given.seed, lambda text: print(text, flush=True))
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s: {figures.text()}")
    for text in figures.wrong:
        print(f"WRONG {text}")
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
