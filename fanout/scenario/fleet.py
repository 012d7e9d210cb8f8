"""The fleet, as a scenario sees it: the group of all its machines, and what is said about the run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any

from fanout.errors import UsageError
from fanout.root.outcomes import Report
from fanout.scenario.context import Context
from fanout.scenario.group import Group, Machine, bits_of
from fanout.scenario.invariant import Check, always
from fanout.scenario.results import Result, Results

WAIT = "60s"


class Outputs(dict[str, str]):
    """Name -> path on the machines."""

    def __missing__(self, name: str) -> str:
        there = ", ".join(self) or "none: the scenario has no build="
        raise UsageError(f"the build has no output {name!r}; there is {there}")


class Fleet(Group):
    """All machines that were connected when the scenario began."""

    def __init__(self, context: Context, bits: int) -> None:
        super().__init__(context, bits)
        self.build = Outputs()
        """Where the outputs of the scenario's build are on each machine, by name."""
        self.args = MappingProxyType(context.args)
        """The scenario's parameters, as it was called with them."""

    @property
    def run_id(self) -> str:
        return self._context.run_id

    # Synchronisation with machines.

    async def barrier(
        self, name: str, group: Group | Machine | None = None, *, count: int | None = None,
        quorum: float | None = None, timeout: str | float = WAIT,
    ) -> int:
        """Wait until all machines of the group have called the barrier; returns how many had.

        The root is not one of its members.  `group`: all machines of the run unless given; `count` or `quorum` (a
        share) where not everyone is needed.  Group and count must be what the members say.  The n-th call with a
        name is its n-th round, as for members.

        SyncFailed, which names who is missing, at the timeout, or at once when too few can still arrive.
        """
        bits = 0 if group is None else bits_of(self._context, group)
        if group is not None and not bits:
            raise UsageError(f"barrier {name}: the group is empty")
        return await self._context.synchronise.barrier(name, bits, count, quorum, timeout)

    def signal(self, name: str, value: Any = None) -> int:
        """Give a signal; returns its number, 1 for the first of the run."""
        return self._context.synchronise.give("signal", name, value)

    async def wait(self, name: str, count: int = 1, timeout: str | float = WAIT) -> list[Any]:
        """Until a signal was given `count` times; the values of these, in order.  SyncFailed at the timeout."""
        return await self._context.synchronise.wait("wait", name, 0, count, timeout)

    def publish(self, topic: str, value: Any) -> int:
        """Add a value to a topic; returns its place, from 1."""
        return self._context.synchronise.give("publish", topic, value)

    async def collect(self, topic: str, count: int = 1, *, after: int = 0, timeout: str | float = WAIT) -> list[Any]:
        """Until a topic has `after + count` values; the `count` last of these.  SyncFailed at the timeout."""
        return await self._context.synchronise.wait("collect", topic, after, count, timeout)

    async def subscribe(self, topic: str, timeout: str | float = WAIT) -> AsyncIterator[Any]:
        """The values of a topic one by one, from the first, for ever; `timeout` is for each."""
        after = 0
        while True:
            [value] = await self.collect(topic, after=after, timeout=timeout)
            yield value
            after += 1

    def always(
        self, check: Check, every: str | float = "2s", *, timeout: str | float = "30s"
    ) -> AbstractAsyncContextManager[None]:
        """`async with fleet.always(check): ...` fails the block, where it is, as soon as `check` does not hold.

        `check` is a function or coroutine function without arguments; it holds when what it returns is true.  It is
        asked when the block begins, `every` so often, and when it ends; each time it has `timeout`.

        InvariantBroken, from what `check` raised.
        """
        return always(check, every, timeout)

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """A named part of the scenario, timed and recorded: `async with fleet.step("restart"):`."""
        record: dict[str, Any] = {"name": name, "seconds": 0.0, "ok": False}
        self._context.steps.append(record)
        self._context.observer.step(name, None, True)
        began = time.monotonic()
        try:
            with self._context.doing(f"step {name!r}"):
                yield
            record["ok"] = True
        finally:
            record["seconds"] = round(time.monotonic() - began, 3)
            self._context.observer.step(name, record["seconds"], record["ok"])

    def report(self, text: str, **fields: Any) -> None:
        """Say something that the user should see and the run's folder should keep."""
        self._context.reports += 1
        now = time.time()
        self._context.observer.report(Report(None, "root", self._context.reports, now, str(text), fields, now))

    def metric(self, name: str, value: float | Iterable[float], unit: str = "") -> None:
        """Record a number, or several; the result has count, sum, min, max, mean and percentiles by name."""
        self._context.metrics.add(name, value, unit)

    def show(self, results: Results | Result, title: str = "") -> None:
        """Show a folded result: equal outputs once, with the machines that gave them."""
        if isinstance(results, Result):
            results = Results(self._context, [results])
        if not isinstance(results, Results):
            raise UsageError(f"show takes the results of a group's run, not {type(results).__name__}")
        self._context.observer.folded(title, results.folded())

    def may_lose(self, machines: Group | Machine) -> None:
        """From now on these may be lost without the run failing at its end."""
        self._context.excused |= bits_of(self._context, machines)
