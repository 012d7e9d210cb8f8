"""The fleet, as a scenario sees it: the group of all its machines, and what is said about the run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from fanout.errors import UsageError
from fanout.root.outcomes import Report
from fanout.scenario.context import Context
from fanout.scenario.group import Group, Machine, bits_of
from fanout.scenario.results import Results


class Fleet(Group):
    """All machines that were connected when the scenario began."""

    def __init__(self, context: Context, bits: int) -> None:
        super().__init__(context, bits)
        self.args = MappingProxyType(context.args)
        """The scenario's parameters, as it was called with them."""

    @property
    def run_id(self) -> str:
        return self._context.run_id

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
        self._context.observer.report(Report(None, "root", self._context.reports, time.time(), str(text), fields))

    def metric(self, name: str, value: float | Iterable[float], unit: str = "") -> None:
        """Record a number, or several; the result has count, sum, min, max, mean and percentiles by name."""
        self._context.metrics.add(name, value, unit)

    def show(self, results: Results, title: str = "") -> None:
        """Show a folded result: equal outputs once, with the machines that gave them."""
        if not isinstance(results, Results):
            raise UsageError(f"show takes the results of a group's run, not {type(results).__name__}")
        self._context.observer.folded(title, results.folded())

    def may_lose(self, machines: Group | Machine) -> None:
        """From now on these may be lost without the run failing at its end."""
        self._context.excused |= bits_of(self._context, machines)
