"""What a run shows while it works: phases, steps, reports, folded results, and at the end one summary.

Reports and results go to stdout; everything about the run itself goes to stderr.  On a terminal the phases
are a live block; elsewhere each is one line when it begins and one when it ends, without control codes.
What always holds: text that comes from machines or scenarios is cleaned before it is shown.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from fanout import names
from fanout.durations import show
from fanout.report.keep import login
from fanout.report.screen import Line, Printed, Row, Screen
from fanout.report.text import clean, cut, lines, plural, size
from fanout.root.holdings import Holdings
from fanout.root.outcomes import Failure, Report, RunOutcome, RunResult
from fanout.scenario.observer import PHASES, Observer

COLOURS = tuple(f"color({n})" for n in (33, 35, 166, 97, 37, 133, 64, 168, 68, 136, 71, 172))
"""Of the 256-colour cube, legible on dark and on light; a machine keeps its colour by its id."""

STYLES = {
    RunOutcome.PASSED: "bold green",
    RunOutcome.FAILED: "bold red",
    RunOutcome.ERROR: "bold red",
    RunOutcome.INTERRUPTED: "bold yellow",
}

FAILURE_LINES = 10
METRIC_LINES = 20
LOGINS = 3  # machines for which the command to log in is shown
REASON = 300  # characters of one failure's reason in the summary
NAMES = 120  # characters of folded machine names in the summary


class Console(Observer):
    """Shows one run.  A context manager: leaving it gives the terminal back, whatever happened.

    `quiet` leaves only what the scenario says, warnings, and the summary of a run that did not pass.
    `live` None: when stderr is a terminal that can move its cursor.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        folder: Path | None = None,
        quiet: bool = False,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        out, err = out or sys.stdout, err or sys.stderr
        if live is None:
            live = err.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._live = live and not quiet
        self._quiet = quiet
        self._folder = folder
        self._clock = clock
        self._phases = {name: Row(name) for name in PHASES}
        self._steps: list[Row] = []
        self._kept: Holdings | None = None
        self._out, self._err = out, err
        self._screen = Screen(out, err, live=self._live)
        self._show_rows()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Shows what is left and gives the terminal back; idempotent."""
        self._screen.close()

    @contextlib.contextmanager
    def printing(self) -> Iterator[None]:
        """Meanwhile what a scenario prints is shown in its place among all else; on a terminal, rich sees to that."""
        if self._live:
            with contextlib.redirect_stdout(self._out):
                yield
            return
        printed = Printed(self._screen, self._out, err=False), Printed(self._screen, self._err, err=True)
        with contextlib.redirect_stdout(cast(TextIO, printed[0])), contextlib.redirect_stderr(cast(TextIO, printed[1])):
            try:
                yield
            finally:
                for stream in printed:
                    stream.end()

    # Phases and steps

    def phase(self, name: str, done: int, total: int) -> None:
        before = self._phases.get(name, Row(name))
        if before.seconds is not None:
            return
        now = self._clock()
        began = now if before.began is None else before.began
        row = Row(name, began, now - began if done >= total else None, done, total)
        self._phases[name] = row
        if self._live:
            self._show_rows()
        elif row.seconds is not None:
            count = f"{done}/{total} in " if total > 1 else ""
            self._say(f"{clean(name)}: {count}{show(row.seconds)}")
        elif before.began is None:
            self._say(f"{clean(name)}: {total} to go" if total > 1 else f"{clean(name)} ...")

    def step(self, name: str, seconds: float | None, ok: bool) -> None:
        title = cut(clean(name), REASON)
        if seconds is None:
            self._steps.append(Row(f"  {title}", self._clock()))
            if not self._live:
                self._say(f"step {title} ...")
        else:
            running = [row.name for row in self._steps]
            if f"  {title}" in running:
                del self._steps[running.index(f"  {title}")]
            how = show(seconds) if ok else f"failed after {show(seconds)}"
            self._say(f"step {title}: {how}", style="" if ok else "red")
        if self._live:
            self._show_rows()

    def _show_rows(self) -> None:
        rows: list[Row] = []
        for row in self._phases.values():
            rows.append(row)
            if row.name == "scenario":
                rows += self._steps[-4:]
        self._screen.rows = tuple(rows)

    def _say(self, text: str, style: str = "") -> None:
        """Something about the run itself."""
        if not self._quiet:
            self._screen.put(Line(text, style=style, err=True))

    # What is said

    def note(self, text: str) -> None:
        if not self._quiet:
            self._block("note: ", text, "cyan", err=True)

    def warning(self, text: str) -> None:
        self._block("warning: ", text, "yellow", err=True)

    def report(self, report: Report) -> None:
        if report.machine is None:
            self._block("[root] ", report.text, "bold")
        else:
            name = cut(clean(report.name), NAMES)
            style = COLOURS[report.machine % len(COLOURS)]
            self._block(f"[{report.machine:03d} {name}] ", report.text, style)

    def folded(self, title: str, groups: list[tuple[str, str]]) -> None:
        if title:
            self._block("", title, "bold")
        for machines, text in groups:
            count = len(names.expand(machines))
            prefix = f"{cut(clean(machines), NAMES)} ({count}): " if count > 1 else f"{clean(machines)}: "
            shown = lines(text) if text.strip() else ["(nothing)"]
            if len(shown) == 1:
                self._screen.put(Line(shown[0], prefix=prefix, style="bold"))
            else:
                self._screen.put(Line("", prefix=prefix.rstrip(), style="bold"))
                for line in shown:
                    self._screen.put(Line(f"  {line}"))

    def _block(self, prefix: str, text: str, style: str, *, err: bool = False) -> None:
        """Each line of a text behind the prefix, so that a second line cannot pose as another machine's."""
        for line in lines(text):
            self._screen.put(Line(line, prefix=prefix, style=style, err=err))

    # The end

    def kept(self, holdings: Holdings, key: str | None) -> None:
        self._kept = holdings

    def finished(self, result: RunResult) -> None:
        if self._quiet and result.outcome == RunOutcome.PASSED:
            return
        first, *rest = summary(result, self._folder)
        self._screen.put(Line("", err=True))
        self._screen.put(Line(first, style=STYLES[result.outcome], err=True))
        for line in rest:
            self._screen.put(Line(line, err=True))
        if self._kept is not None and self._folder is not None:
            for line in _login(self._kept, self._folder):
                self._screen.put(Line(clean(line), err=True))


def summary(result: RunResult, folder: Path | None) -> list[str]:
    """The end of a run in some lines: the outcome first, then what is worth a line of its own."""
    shown = [f"{result.outcome}: {clean(result.scenario)} in {show(result.seconds)}"]
    if result.reason:
        shown += [f"  {line}" for line in lines(result.reason)]
    for label, text in _facts(result, folder):
        shown.append(f"  {label:<9} {text}".rstrip())
    return shown


def _login(kept: Holdings, folder: Path) -> Iterator[str]:
    """How to look at machines that are kept, and how to take them down."""
    until = f"{datetime.datetime.fromtimestamp(kept.kept or 0.0).astimezone():%H:%M:%S}"
    yield f"kept until {until}: {plural(len(kept.machines), 'machine')}; log in by"
    for machine in kept.machines[:LOGINS]:
        yield f"  {login(folder, machine)}"
    if len(kept.machines) > LOGINS:
        yield f"  ... and so to the others, which are in {folder / 'machines.json'}"
    yield f"take them down by: fanout down {kept.run}"


def _facts(result: RunResult, folder: Path | None) -> Iterator[tuple[str, str]]:
    total = sum(result.machines.values())
    if total:
        counts = ", ".join(f"{n} {outcome}" for outcome, n in result.machines.items() if n)
        yield "machines", f"{total}: {counts}"
    relays = result.tree.get("relays", 0)
    if relays:
        depth, width = result.tree.get("depth", 0), result.tree.get("width", 0)
        yield "tree", f"{plural(relays, 'relay')}, depth {depth}, width {width}"
    if result.timings:
        phases = [(name.removesuffix("_s"), seconds) for name, seconds in result.timings.items()]
        yield "timings", ", ".join(f"{name} {show(seconds)}" for name, seconds in phases)
    dropped = result.logs.get("bytes_dropped", 0)
    if result.logs.get("bytes_forwarded", 0) or dropped:
        text = f"{size(result.logs.get('bytes_forwarded', 0))} forwarded"
        yield "logs", f"{text}, {size(dropped)} dropped" if dropped else text
    yield from _labelled("metrics", _metrics(result.metrics))
    yield from _labelled("failures", _failures(result.failures))
    if folder is not None:
        yield "results", clean(str(folder))


def _labelled(label: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(texts):
        yield "" if index else label, text


def _metrics(metrics: dict[str, Any]) -> Iterator[str]:
    for name, value in list(metrics.items())[:METRIC_LINES]:
        yield cut(clean(f"{name}: {_value(value)}"), REASON)
    if len(metrics) > METRIC_LINES:
        yield f"and {len(metrics) - METRIC_LINES} more, in result.json"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and "count" in value:  # a metric: one value is told as one
        unit = f" {value['unit']}" if value.get("unit") else ""
        if value["count"] == 1 and "min" in value:
            return f"{_value(value['min'])}{unit}"
        shown = (f"{key} {_value(item)}" for key, item in value.items() if key not in ("unit", "sum"))
        return ", ".join(shown) + (f" ({unit.strip()})" if unit else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items() if key not in ("by", "error"))
    if isinstance(value, list | tuple):
        return plural(len(value), "value")
    return str(value)


def _failures(failures: list[Failure]) -> Iterator[str]:
    """One line for each distinct failure, with the names of all machines it befell; the most common first."""
    alike: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        alike.setdefault((str(failure.outcome), failure.reason), []).append(failure.machine)
    groups = sorted(alike.items(), key=lambda item: -len(item[1]))
    for (outcome, reason), machines in groups[:FAILURE_LINES]:
        who = cut(clean(names.fold(machines)), NAMES)
        count = f" ({len(machines)})" if len(machines) > 1 else ""
        why = cut(lines(reason)[0], REASON)
        yield f"{who}{count}: {outcome}: {why}" if why else f"{who}{count}: {outcome}"
    rest = sum(len(machines) for _, machines in groups[FAILURE_LINES:])
    if rest:
        yield f"and {plural(rest, 'machine')} more, in result.json"
