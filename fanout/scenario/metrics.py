"""What a scenario measured: values by name, summed up at the end, beside what machines did.

The scenario's own are exact, so bounded in number; those of machines come merged, as sketches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from fanout.agent.core.sketch import ERROR, Sketch
from fanout.errors import UsageError

MOST = 1_000_000
"""Values of one metric."""
DIGITS = 6
"""Significant digits that are told."""


class Metrics:
    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._units: dict[str, str] = {}

    def add(self, name: str, value: float | Iterable[float], unit: str = "") -> None:
        """One value or many.  UsageError for what is not a finite number, or a unit that changes."""
        values = [value] if isinstance(value, int | float) else list(value)
        for one in values:
            if not isinstance(one, int | float) or not math.isfinite(one):
                raise UsageError(f"metric {name!r}: {one!r} is not a finite number")
        if unit and self._units.setdefault(name, unit) != unit:
            raise UsageError(f"metric {name!r} is in {self._units[name]!r}, and now in {unit!r}")
        kept = self._values.setdefault(name, [])
        if len(kept) + len(values) > MOST:
            raise UsageError(f"metric {name!r} has more than {MOST:,} values")
        kept += map(float, values)

    def summary(self, machines: Mapping[tuple[str, str, str], Sketch] = MappingProxyType({})) -> dict[str, Any]:
        """Name -> count, sum, min, max, mean, p50, p90, p99 (nearest rank), unit; count alone without values.

        `machines`: what they measured, merged, by (name, unit, label).  There the percentiles are within the share
        `error` of the true ones, and `by` has the same figures for each machine or role that was kept apart.  A name
        that both have measured is one metric; a second unit of a name makes it `name [unit]`.
        """
        found: dict[str, dict[str, Any]] = {
            name: {**_summary(values), "unit": self._units.get(name, "")} for name, values in self._values.items()
        }
        merged: dict[str, dict[str, Sketch]] = {}
        units = {name: figures["unit"] for name, figures in found.items()}
        for (name, unit, label), sketch in sorted(machines.items()):
            name = name if units.setdefault(name, unit) == unit else f"{name} [{unit}]"
            units.setdefault(name, unit)
            merged.setdefault(name, {})[label] = sketch
        for name, labels in merged.items():
            everything = Sketch()
            for value in self._values.get(name, ()):
                everything.add(value)
            for sketch in labels.values():
                everything.merge(sketch)
            by = {label: _figures(sketch) for label, sketch in labels.items() if label}
            found[name] = {**_figures(everything), "unit": units[name], "error": ERROR, **({"by": by} if by else {})}
        return found


def _figures(sketch: Sketch) -> dict[str, Any]:
    figures = {
        "sum": sketch.total,
        "min": sketch.least,
        "max": sketch.most,
        "mean": sketch.total / sketch.count,
        **{f"p{p}": sketch.quantile(p / 100) for p in (50, 90, 99)},
    }
    return {"count": sketch.count, **_rounded(figures)}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.{DIGITS}g}") for name, value in figures.items()}


def _summary(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    total = math.fsum(ordered)
    figures = {
        "sum": total,
        "min": ordered[0],
        "max": ordered[-1],
        "mean": total / len(ordered),
        **{f"p{p}": ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)] for p in (50, 90, 99)},
    }
    return {"count": len(ordered), **_rounded(figures)}
