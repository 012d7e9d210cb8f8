"""What a scenario measured: values by name, summed up at the end.  Exact, so bounded in number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

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

    def summary(self) -> dict[str, dict[str, Any]]:
        """Name -> count, sum, min, max, mean, p50, p90, p99 (nearest rank), unit; count alone without values."""
        return {
            name: {**_summary(values), "unit": self._units.get(name, "")} for name, values in self._values.items()
        }


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
    return {"count": len(ordered), **{name: float(f"{value:.{DIGITS}g}") for name, value in figures.items()}}
