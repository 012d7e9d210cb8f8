"""The logs and reports in a run's folder, read as lines: of any machines, merged in the order they were printed.

The times are those of `RunFolder` and of collected logs: machines say them by the root's clock, as their links have
measured it (docs/choreography.md, "Time").  What was collected whole stands for what was forwarded of it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fanout.report.folder import REPORTS

CHUNK = 32 << 10  # bytes of one log in memory
LINE_MOST = 1 << 20  # bytes of one line; what is longer is broken


class Line(NamedTuple):
    time: float
    """Seconds since the epoch; 0.0 where it is not known."""
    machine: str
    process: str | None
    """None: it is a report."""
    text: bytes
    """Without its end."""
    fields: dict[str, Any] | None = None
    """Of a report."""


class Log(NamedTuple):
    machine: str
    process: str
    path: Path

    def lines(self) -> Iterator[Line]:
        """In order; times never go back, so that logs can be merged."""
        marks = self._marks()
        upcoming = next(marks, None)
        now = 0.0
        for at, text in self._texts():
            while upcoming is not None and upcoming[0] <= at:
                now, upcoming = max(now, upcoming[1]), next(marks, None)
            yield Line(now, self.machine, self.process, text)

    def _texts(self) -> Iterator[tuple[int, bytes]]:
        """Each line, without its end, and the byte where it begins."""
        at, rest = 0, b""
        while chunk := self._read(at + len(rest)):
            data = rest + chunk
            *whole, rest = data.split(b"\n")
            end = 1
            if not whole and len(rest) > LINE_MOST:
                whole, rest, end = [rest], b"", 0
            for text in whole:
                yield at, text
                at += len(text) + end
        if rest:
            yield at, rest

    def _read(self, at: int) -> bytes:
        """No file stays open: there may be more logs than files that one may have open."""
        with self.path.open("rb") as file:
            file.seek(at)
            return file.read(CHUNK)

    def _marks(self) -> Iterator[tuple[int, float]]:
        try:
            text = self.path.with_suffix(".times").read_text("ascii", "replace")
        except OSError:
            return
        for line in text.splitlines():
            offset, _, when = line.partition(" ")
            try:
                mark = int(offset), float(when)
            except ValueError:
                continue
            if math.isfinite(mark[1]):
                yield mark


def find(run: Path, wanted: Callable[[str, str], bool] = lambda machine, process: True) -> list[Log]:
    """The logs of a run's folder that are wanted (by machine and process), by machine and process."""
    found: dict[tuple[str, str], Path] = {}
    for pattern in ("*/*.log", "*/collected/*.log"):
        for path in (run / "machines").glob(pattern):
            machine = path.relative_to(run / "machines").parts[0]
            if path.is_file() and not path.is_symlink() and wanted(machine, path.stem):
                found[machine, path.stem] = path
    return [Log(machine, process, path) for (machine, process), path in sorted(found.items())]


class Reports:
    """The reports of a run, those of each machine in order: as far as they are there now, and on from there."""

    def __init__(
        self, run: Path, wanted: Callable[[str], bool] = lambda machine: True, tail: int | None = None
    ) -> None:
        """`tail`: begin with so many bytes from the end."""
        self._path = run / REPORTS
        self._wanted = wanted
        self._at = 0
        self._latest: dict[str, float] = {}
        with contextlib.suppress(OSError):
            if tail is not None and (before := self._path.stat().st_size - tail) > 0:
                self._at = before
                next(self._lines(), None)  # its begin is not there

    def read(self) -> Iterator[Line]:
        """In the order in which they came; times of one machine never go back."""
        for data in self._lines():
            try:
                report = json.loads(data)
                machine, text, fields = str(report["name"]), str(report["text"]), dict(report["fields"])
                when = float(report["when"])
            except (KeyError, TypeError, ValueError):  # cut by a crash
                continue
            if self._wanted(machine) and math.isfinite(when):
                when = self._latest[machine] = max(when, self._latest.get(machine, 0.0))
                yield Line(when, machine, None, text.encode("utf-8", "backslashreplace"), fields)

    def _lines(self) -> Iterator[bytes]:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._at += len(line)
                yield line


def merged(
    logs: Sequence[Log], pattern: re.Pattern[bytes] | None = None, since: float = 0.0,
    reports: Reports | None = None,
) -> Iterator[Line]:
    """The lines of all, by time; those that match, and that are not from before `since`.

    Reports are few by their nature, and are all in memory.
    """
    time = operator.attrgetter("time")
    said = sorted(reports.read(), key=time) if reports is not None else ()
    for line in heapq.merge(said, *(log.lines() for log in logs), key=time):
        if line.time >= since and (pattern is None or pattern.search(line.text)):
            yield line
