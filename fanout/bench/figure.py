"""What a measurement finds: a figure, what is aimed at, and the floor that it stands on.  Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    what: str
    value: float
    unit: str
    aim: float | None = None
    """The most that it should be; None: it is there to be read, not to be judged."""
    floor: float | None = None
    """What something simpler costs, in the same unit, measured in the same run."""
    floor_is: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.aim is None else self.value <= self.aim

    @property
    def ratio(self) -> float | None:
        return self.value / self.floor if self.floor else None

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "met": self.met, "ratio": self.ratio}


@dataclass(frozen=True)
class Size:
    """How much is measured: the defaults are those of docs/benchmarks.md, tests take tiny ones."""

    machines: int = 200
    relays: int = 4
    repeats: int = 20
    """Of what takes milliseconds; what takes seconds is done once a run."""
    seconds: float = 10.0
    """For what is watched over time."""
    lines: int = 40_000
    """Of log, on each of `loggers` machines."""
    loggers: int = 50
    megabytes: int = 20
    """Of a file to half of the machines."""


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns, for a terminal."""
    rows = [("what", "figure", "aim", "", "floor")]
    for f in figures:
        aim = "" if f.aim is None else f"{number(f.aim)} {f.unit}"
        floor = "" if f.floor is None else f"{number(f.ratio or 0.0)} x {number(f.floor)} {f.unit}: {f.floor_is}"
        verdict = {None: "", True: "met", False: "MISSED"}[f.met]
        rows.append((f.what, f"{number(f.value)} {f.unit}", aim, verdict, floor))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 4)), row[4]]).rstrip()
        for row in rows)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a part `q` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]
