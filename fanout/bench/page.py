"""What a bench found: as a table for a terminal, and as one HTML page that needs nothing else.  Pure."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from fanout.bench.contest import ONE, Contest, Row
from fanout.bench.figure import median
from fanout.bench.plot import STYLE, Chart, Line, Point
from fanout.bench.shapes import FLAT
from fanout.report.text import size

Show = Callable[[float], str]


def seconds(value: float) -> str:
    if value >= 100:
        return f"{value:.0f} s"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def rate(value: float) -> str:
    return f"{value / 1e6:.3g} MB/s"


def count(value: float) -> str:
    return f"{value:,.0f}"


FIGURES: list[tuple[str, str, Show]] = [
    ("first", "first agent", seconds),
    ("ready", "all agents ready", seconds),
    ("first_command", "first command", seconds),
    ("command", "a later command", seconds),
    ("barrier", "barrier", seconds),
    ("hop", "round trip of a hop", seconds),
    ("logs_rate", "logs", rate),
    ("files_rate", "files, arriving", rate),
]
ROOT: list[tuple[str, str, Show]] = [
    ("connect_cpu", "CPU, connecting", seconds),
    ("command_cpu", "CPU, a command", seconds),
    ("logs_cpu", "CPU, 100 MB of logs", seconds),
    ("memory", "memory of the tree", size),
    ("memory_peak", "memory at most", size),
    ("descriptors", "descriptors", count),
    ("connect_messages", "messages, connecting", count),
    ("command_messages", "messages, a command", count),
    ("command_bytes", "bytes, a command", size),
]

PREDICTED = {"ready": "ready", "command": "command", "connect_cpu": "root_cpu", "command_cpu": "root_command_cpu",
             "command_messages": "root_messages"}
"""Figure -> what of the model predicts it."""


def measured(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row.trials and row.shape != ONE), key=lambda row: (row.n, row.shape != FLAT))


def text(contest: Contest) -> str:
    rows = measured(contest.rows)
    parts = [_text_table([("n", "shape", "trials", *(name for _, name, _ in FIGURES), "predicted")] + [
        (str(row.n), row.shape, str(len(row.trials)), *_cells(row, FIGURES),
         seconds(row.predicted.ready) if row.predicted else "") for row in rows])]
    parts.append("At the root:\n" + _text_table([("n", "shape", *(name for _, name, _ in ROOT))] + [
        (str(row.n), row.shape, *_cells(row, ROOT)) for row in rows]))
    if any(peer.walls for peer in contest.peers):
        parts.append("`true` on all, from first contact:\n" + _text_table(
            [("n", "tool", "seconds", "CPU here", "failed")] + [
                (str(peer.n), peer.peer, seconds(median(peer.walls)) if peer.walls else "-",
                 seconds(median(peer.cpus)) if peer.cpus else "-", str(len(peer.failures) or ""))
                for peer in contest.peers]))
    parts += [verdict(contest), *contest.notes]
    return "\n\n".join(part for part in parts if part)


def verdict(contest: Contest) -> str:
    """Whether the tree pays, in a sentence for each shape."""
    sentences = []
    names = dict.fromkeys(row.shape for row in measured(contest.rows) if row.shape != FLAT)
    for shape in names:
        words = []
        for key, what in (("ready", "ready sooner"), ("command", "quicker at later commands"),
                          ("connect_cpu", "cheaper for the root")):
            cross = contest.crossover(shape, key)
            words.append(f"{what} from {cross} machines on" if cross else f"never {what}")
        sentences.append(f"{shape}: beside flat it is {', '.join(words)}.")
    return "\n".join(sentences)


def page(contest: Contest) -> str:
    rows = measured(contest.rows)
    charts = [
        _chart(contest, "All agents ready", "ready", seconds, cross=True),
        _chart(contest, "A later command on all machines", "command", seconds, cross=True),
        _chart(contest, "A barrier of all: last arrival to release", "barrier", seconds),
        _chart(contest, "Root: CPU, connecting", "connect_cpu", seconds),
        _chart(contest, "Root: CPU, a command on all", "command_cpu", seconds),
        _chart(contest, "Root: messages for a command on all", "command_messages", count),
        _chart(contest, "Root: memory of the tree", "memory", size),
        _chart(contest, "Logs to the root", "logs_rate", rate),
        _peers_chart(contest),
    ]
    figures = "".join(f"<figure>{chart.svg()}</figure>" for chart in charts if any(line.points for line in chart.lines))
    where = (f"{html.escape(contest.fleet)}; measured from {html.escape(contest.machine)}; {contest.began}; load "
             f"{contest.load[0]:.1f} to {contest.load[1]:.1f}; {contest.seconds:.0f} s")
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in contest.notes)
    answer = "".join(f"<p>{html.escape(line)}</p>" for line in verdict(contest).splitlines())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Does the tree pay on {html.escape(contest.fleet)}?</title>
<style>{PAGE_STYLE}{STYLE}</style></head><body>
<h1>Does the tree pay on {html.escape(contest.fleet)}?</h1>
<p class="where">{where}</p>
<section class="answer">{answer}</section>
<section class="charts">{figures}</section>
<p class="where">Points are medians, bars go from the least to the most; dashed lines are what the model predicts
(fanout plan). Both axes are logarithmic. A vertical line marks the size from which on a tree is faster than flat.</p>
<h2>Times</h2>{_html_table(rows, FIGURES, True)}
<h2>What it costs the root</h2>{_html_table(rows, ROOT, False)}
{_html_peers(contest)}
{f'<h2>Notes</h2><ul>{notes}</ul>' if notes else ''}
</body></html>
"""


PAGE_STYLE = """
:root { --ink: #1c2330; --soft: #667085; --rule: #e4e7ec; --paper: #ffffff; --tint: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #98a2b3; --rule: #2d3440; --paper: #12161d; --tint: #1a2029; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1360px;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.where { color: var(--soft); font-size: .9rem; }
.answer { background: var(--tint); border-left: 4px solid #1f6feb; padding: .4rem 1rem; margin: 1rem 0; }
.answer p { margin: .3rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.2rem; }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 6px; padding: .4rem; } figure svg { width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:nth-child(2), td:nth-child(2) { text-align: left; } th { color: var(--soft); font-weight: 600; }
td small { color: var(--soft); }
"""


def _chart(contest: Contest, title: str, key: str, show: Show, *, cross: bool = False) -> Chart:
    rows = measured(contest.rows)
    lines: list[Line] = []
    for colour, shape in enumerate(dict.fromkeys(row.shape for row in rows)):
        own = [row for row in rows if row.shape == shape]
        points = []
        for row in own:
            middle, spread = row.median(key), row.spread(key)
            if middle is not None and spread is not None:
                points.append(Point(row.n, middle, *spread))
        lines.append(Line(shape, points, colour % 7))
        if key in PREDICTED:
            guesses = [Point(row.n, getattr(row.predicted, PREDICTED[key])) for row in own if row.predicted]
            lines.append(Line("", guesses, colour % 7, dashed=True))
    sizes = {row.n for row in rows}
    marks: dict[int, list[str]] = {}
    if cross:
        for shape in dict.fromkeys(row.shape for row in rows if row.shape != FLAT):
            at = contest.crossover(shape, key)
            if at is not None and at > min(sizes):
                marks.setdefault(at, []).append(shape)
    return Chart(title, "machines", "", lines, [(at, ", ".join(names)) for at, names in marks.items()], show)


def _peers_chart(contest: Contest) -> Chart:
    names = dict.fromkeys(peer.peer for peer in contest.peers)
    lines = [Line(name, [Point(peer.n, median(peer.walls), min(peer.walls), max(peer.walls))
                         for peer in contest.peers if peer.peer == name and peer.walls], colour % 7)
             for colour, name in enumerate(names)]
    return Chart("`true` on all, from first contact", "machines", "", lines, show=seconds)


def _cells(row: Row, figures: Sequence[tuple[str, str, Show]]) -> list[str]:
    return ["" if (value := row.median(key)) is None else show(value) for key, _, show in figures]


def _text_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _html_table(rows: Sequence[Row], figures: Sequence[tuple[str, str, Show]], predicted: bool) -> str:
    heads = ["n", "shape", "trials", *(name for _, name, _ in figures), *(["ready, predicted"] if predicted else [])]
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    for row in rows:
        cells = [str(row.n), html.escape(row.shape), str(len(row.trials))]
        for key, _, show in figures:
            middle, spread = row.median(key), row.spread(key)
            wide = f" <small>{show(spread[0])} - {show(spread[1])}</small>" if spread and len(row.trials) > 1 else ""
            cells.append("" if middle is None else show(middle) + wide)
        if predicted:
            cells.append(seconds(row.predicted.ready) if row.predicted else "")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _html_peers(contest: Contest) -> str:
    if not contest.peers:
        return ""
    lines = ["<tr><th>n</th><th>tool</th><th>seconds</th><th>CPU here</th><th>failed</th></tr>"]
    for peer in contest.peers:
        wall = seconds(median(peer.walls)) if peer.walls else "-"
        cpu = seconds(median(peer.cpus)) if peer.cpus else "-"
        why = html.escape(f"{len(peer.failures)}: {peer.failures[0]}") if peer.failures else ""
        lines.append(f"<tr><td>{peer.n}</td><td>{html.escape(peer.peer)}</td><td>{wall}</td><td>{cpu}</td>"
                     f"<td>{why}</td></tr>")
    return (f'<h2>Other tools, `true` on all from first contact</h2><div class="wide"><table>{"".join(lines)}</table>'
            '</div>')
