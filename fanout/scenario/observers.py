"""All observers of a run as one.  One that fails is told on the others and left out: it cannot harm the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fanout.root.holdings import Holdings
from fanout.root.outcomes import Report, RunResult
from fanout.scenario.observer import Observer


class Observers(Observer):
    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    def _each(self, tell: Callable[[Observer], None]) -> None:
        for observer in list(self._observers):
            try:
                tell(observer)
            except Exception as error:
                self._observers.remove(observer)
                self.warning(f"{type(observer).__name__} has stopped: {type(error).__name__}: {error}")

    def phase(self, name: str, done: int, total: int) -> None:
        self._each(lambda one: one.phase(name, done, total))

    def note(self, text: str) -> None:
        self._each(lambda one: one.note(text))

    def warning(self, text: str) -> None:
        self._each(lambda one: one.warning(text))

    def report(self, report: Report) -> None:
        self._each(lambda one: one.report(report))

    def step(self, name: str, seconds: float | None, ok: bool) -> None:
        self._each(lambda one: one.step(name, seconds, ok))

    def folded(self, title: str, groups: list[tuple[str, str]]) -> None:
        self._each(lambda one: one.folded(title, groups))

    def log(self, machine: str, process: str, data: bytes, when: float) -> None:
        self._each(lambda one: one.log(machine, process, data, when))

    def holds(self, holdings: Holdings) -> None:
        self._each(lambda one: one.holds(holdings))

    def kept(self, holdings: Holdings, key: str | None) -> None:
        self._each(lambda one: one.kept(holdings, key))

    def finished(self, result: RunResult) -> None:
        self._each(lambda one: one.finished(result))
