"""A line chart as SVG, on logarithmic axes: sizes and times that span decades.  Pure.

Colours are classes, so that a page may have them in light and dark; `STYLE` has both, for a page's head or for the
file of a single chart.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 96, 40, 46

STYLE = """
.chart { --ink: #1c2330; --soft: #667085; --grid: #e4e7ec; --paper: #ffffff;
  --c0: #1f6feb; --c1: #d1242f; --c2: #1a7f37; --c3: #9a6700; --c4: #8250df; --c5: #0e7490; --c6: #bf3989; }
@media (prefers-color-scheme: dark) { .chart { --ink: #e6e9ef; --soft: #98a2b3; --grid: #2d3440; --paper: #12161d;
  --c0: #6cb0ff; --c1: #ff8a80; --c2: #5fd28a; --c3: #e3b341; --c4: #c297ff; --c5: #4fd1e0; --c6: #ff9bce; } }
.chart text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.chart .title { font-size: 14px; font-weight: 600; fill: var(--ink); }
.chart .paper { fill: var(--paper); }
.chart .grid { stroke: var(--grid); stroke-width: 1; }
.chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .spread { stroke-width: 1.2; opacity: .6; }
.chart .mark { stroke: var(--soft); stroke-dasharray: 4 4; }
.chart .dashed { stroke-dasharray: 5 4; stroke-width: 1.4; }
""" + "".join(
    f".chart .s{i} {{ stroke: var(--c{i}); }} .chart .f{i} {{ fill: var(--c{i}); }} "
    f".chart text.f{i} {{ fill: var(--c{i}); }}\n" for i in range(7))


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[Point]
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    across: str
    up: str
    lines: Sequence[Line]
    marks: Sequence[tuple[float, str]] = field(default_factory=list)
    """(x, what is there): vertical lines."""
    show: Callable[[float], str] = lambda value: f"{value:g}"
    """Words of a tick of the vertical axis."""

    def svg(self, alone: bool = False) -> str:
        """`alone`: for a file of its own, with its style and a background."""
        points = [point for line in self.lines for point in line.points if point.x > 0 and point.y > 0]
        if not points:
            return ""
        across = _Scale([p.x for p in points], LEFT, WIDTH - RIGHT, decades=False)
        lows, highs = [p.least or p.y for p in points], [p.most or p.y for p in points]
        up = _Scale(lows + highs, HEIGHT - BOTTOM, TOP, decades=True)
        head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        parts = [head, f"<title>{html.escape(self.title)}</title>"]
        if alone:
            parts += [f"<style>{STYLE}</style>", f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>']
        parts.append(f'<text class="title" x="{LEFT}" y="20">{html.escape(self.title)}</text>')
        parts += self._axes(across, up)
        for x, what in self.marks:
            at = across(x)
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                         f'<text x="{at + 4:.1f}" y="{TOP + 11}">{html.escape(what)}</text>')
        ends = []
        for line in self.lines:
            shown = sorted((p for p in line.points if p.x > 0 and p.y > 0), key=lambda p: p.x)
            if shown:
                parts += _drawn(line, shown, across, up)
                ends += [(up(shown[-1].y), line)] if line.name else []
        parts += _names(ends)
        return "".join([*parts, "</svg>"])

    def _axes(self, across: _Scale, up: _Scale) -> list[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for value in up.ticks():
            at = up(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
                         f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{self.show(value)}</text>')
        parts += [
            f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,.0f}</text>'
            for value in across.ticks() for at in (across(value),)]
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
                     f'{html.escape(self.across)}</text>')
        parts.append(f'<text x="{LEFT}" y="{TOP - 4}" text-anchor="start">{html.escape(self.up)}</text>')
        return parts


class _Scale:
    """From values to places, logarithmic."""

    def __init__(self, values: Sequence[float], start: float, end: float, decades: bool) -> None:
        self.low, self.high = min(values), max(values)
        self._values = sorted(set(values))
        self._decades = decades
        if decades:
            self.low, self.high = _below(self.low), _above(self.high)
        if self.high <= self.low:
            self.low, self.high = self.low / 2, self.high * 2
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self._start + part * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round numbers; across, the sizes that there are, as far as they have room."""
        if self._decades:
            steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            return [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
        room: list[float] = []
        for value in self._values:
            if not room or abs(self(value) - self(room[-1])) >= 42:
                room.append(value)
        return room


def _below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in (1, 2, 5) if step * power <= value * 1.0001)


def _above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.9999)


def _drawn(line: Line, shown: Sequence[Point], across: _Scale, up: _Scale) -> list[str]:
    path = " ".join(f"{across(p.x):.1f},{up(p.y):.1f}" for p in shown)
    dashed = " dashed" if line.dashed else ""
    parts = [f'<polyline class="line s{line.colour}{dashed}" points="{path}"/>']
    for p in shown:
        if line.dashed:
            continue
        if p.least is not None and p.most is not None and p.most > p.least > 0:
            parts.append(f'<line class="spread s{line.colour}" x1="{across(p.x):.1f}" x2="{across(p.x):.1f}"'
                         f' y1="{up(p.least):.1f}" y2="{up(p.most):.1f}"/>')
        parts.append(f'<circle class="f{line.colour}" cx="{across(p.x):.1f}" cy="{up(p.y):.1f}" r="3"/>')
    return parts


def _names(ends: list[tuple[float, Line]]) -> list[str]:
    """At the end of each line, moved apart where they would cover each other."""
    parts, last = [], -math.inf
    for at, line in sorted(ends, key=lambda end: end[0]):
        last = max(at, last + 14)
        parts.append(f'<text class="f{line.colour}" x="{WIDTH - RIGHT + 8}" y="{last + 4:.1f}">'
                     f'{html.escape(line.name)}</text>')
    return parts
