"""Runs the text of a scenario on local machines, and keeps all that observers are told."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from fanout.root.outcomes import Report, RunResult
from fanout.scenario.observer import Observer
from fanout.scenario.runner import RunOptions, run

HEAD = """\
import asyncio
import pytest
from fanout import *

@scenario({options})
async def tested(fleet):
"""

Play = Callable[..., Awaitable[tuple[RunResult, "Recorder"]]]


class Recorder(Observer):
    def __init__(self) -> None:
        self.phases: list[tuple[str, int, int]] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.reports: list[Report] = []
        self.steps: list[tuple[str, bool]] = []
        self.shown: list[tuple[str, list[tuple[str, str]]]] = []
        self.logs: dict[tuple[str, str], bytes] = {}
        self.results: list[RunResult] = []
        self.on_step: Callable[[str], None] = lambda name: None

    def phase(self, name: str, done: int, total: int) -> None:
        self.phases.append((name, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def step(self, name: str, seconds: float | None, ok: bool) -> None:
        if seconds is None:
            self.on_step(name)
        else:
            self.steps.append((name, ok))

    def folded(self, title: str, groups: list[tuple[str, str]]) -> None:
        self.shown.append((title, groups))

    def log(self, machine: str, process: str, data: bytes, when: float) -> None:
        self.logs[machine, process] = self.logs.get((machine, process), b"") + data

    def finished(self, result: RunResult) -> None:
        self.results.append(result)


def write(folder: Path, body: str, decorator: str = "") -> Path:
    """A scenario file whose function has this body."""
    path = folder / "tested.py"
    path.write_text(HEAD.format(options=decorator) + indent(dedent(body), "    "))
    return path


async def play(path: Path, recorder: Recorder | None = None, **options: Any) -> tuple[RunResult, Recorder]:
    """The result, and what was observed; no folder of the run is left on this machine."""
    recorder = recorder or Recorder()
    given = RunOptions(**{"machines": 3, **options})
    try:
        result = await run(path, given, [recorder])
    finally:
        assert not left_of(given.run)
    assert recorder.results == [result]
    return result, recorder


def left_of(run_id: str) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"fanout-{run_id}-*"))
