"""What a tree of 100 to 100,000 machines costs its root: `python -m fanout.bench.scale`, or `make scale`.

The machines are nodes of the real protocol core on a virtual clock (`grove.py`): messages, bytes and memory are
counted, seconds are predicted.  Each tree has a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fanout.bench.bed import memory_now
from fanout.bench.grove import Grove
from fanout.bench.page import count, seconds
from fanout.bench.plot import Chart, Line, Point
from fanout.report.text import size
from fanout.root.model import DEFAULT, INTRODUCED, predict
from fanout.root.planner import plan

TREES = ((100, 1), (1_000, 1), (3_000, 1), (100, 2), (1_000, 2), (10_000, 2), (100_000, 2), (100, 3), (1_000, 3),
         (10_000, 3), (100_000, 3))
"""(machines, depth).  A flat tree of more is what no root should have: the heartbeats alone would keep it busy."""
PROTOCOL = replace(DEFAULT, root_relayed=0.0)
"""What the session does for each machine besides is no part of the core, and not simulated."""
LONGEST = 3600.0  # s for one tree
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}
"""For glibc: gigabytes are taken in large pieces and kept, a tenth of the time.  Elsewhere it does nothing."""
CONNECT, COMMAND, DIFFERENT, BARRIER, LOGS, LOSS = (
    "connect", "command", "command, all answers different", "barrier", "1 KB of log from each", "loss of a relay")


def study(n: int, depth: int) -> dict[str, Any]:
    """Everything that is told of one tree.  Memory is that of this process: run it in one of its own."""
    shape = plan(n, relays=None, depth=depth, width=None)
    parents, fans = shape.parents, shape.fans
    del shape
    began, empty = time.process_time(), memory_now()
    grove = Grove(parents, PROTOCOL)
    done = [grove.operation(CONNECT, grove.connect)]
    each = (memory_now() - empty) * 1e6 / n
    done.append(grove.operation(COMMAND, grove.command))
    done.append(grove.operation(DIFFERENT, lambda: grove.command(same=False)))
    done.append(grove.operation(BARRIER, grove.barrier))
    done.append(grove.operation(LOGS, grove.logs))
    if depth > 1:
        done.append(grove.operation(LOSS, grove.lose_relay))
    return {"n": n, "depth": depth, "fans": fans, "node_bytes": each, "cpu": time.process_time() - began,
            "operations": {one.what: asdict(one) for one in done}}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each tree, what each operation costs the root."""
    heads = ["machines", "children of the root, of relays", "connect", "sent", "command", "barrier", "loss of a relay",
             "messages: command", "barrier", "logs", "bytes: command", "answers differ", "barrier", "list of all",
             "a node"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for one in found:
        done = one["operations"]
        loss = done.get(LOSS)
        cells = [
            f"{one['n']:,}", " x ".join(map(str, one["fans"])),
            seconds(done[CONNECT]["seconds"]), size(done[CONNECT]["bytes_out"]),
            *(seconds(done[what]["seconds"]) for what in (COMMAND, BARRIER)),
            seconds(loss["seconds"]) if loss else "",
            *(count(done[what]["messages_in"] + done[what]["messages_out"]) for what in (COMMAND, BARRIER, LOGS)),
            *(size(done[what]["bytes_in"] + done[what]["bytes_out"]) for what in (COMMAND, DIFFERENT, BARRIER)),
            size(one["fans"][0] * one["n"] * INTRODUCED),
            size(one["node_bytes"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def charts(found: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    """File name -> chart."""
    depths = sorted({one["depth"] for one in found})

    def lines(values: Any) -> list[Line]:
        return [Line("flat" if depth == 1 else f"depth {depth}", [
            Point(one["n"], values(one)) for one in found if one["depth"] == depth], i)
            for i, depth in enumerate(depths)]

    sizes = [10.0 ** (power / 2) for power in range(4, 2 * round(math.log10(max(one["n"] for one in found))) + 1)]
    closed = [Line("", [Point(n, _predicted(round(n), depth)) for n in sizes], i, dashed=True)
              for i, depth in enumerate(depths)]
    return {
        "scale-connect.svg": Chart("All agents ready (dots: simulated; dashed: the model's formula)", "machines", "",
                                   [*lines(lambda one: one["operations"][CONNECT]["seconds"]), *closed], show=seconds),
        "scale-messages.svg": Chart(
            "Messages at the root for a command on all", "machines", "",
            lines(lambda one: sum(one["operations"][COMMAND][f"messages_{way}"] for way in ("in", "out"))), show=count),
    }


def _predicted(n: int, depth: int) -> float:
    return predict(n, plan(n, relays=None, depth=depth, width=None).fans, PROTOCOL).ready


def _apart(n: int, depth: int) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "fanout.bench.scale", "--one", str(n), str(depth)],
                          stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True, env=os.environ | KEEPING)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fanout.bench.scale", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--most", type=int, default=100_000, metavar="N", help="no tree of more machines")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="all that was found; trees that it has already are not repeated")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the plots there, as SVG")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        gc.disable()  # a million objects that stay are not to be looked at again and again,
        print(json.dumps(study(*options.one)), flush=True)
        os._exit(0)  # ... nor to be taken down one by one
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    found = []
    for n, depth in TREES:
        if n > options.most:
            continue
        one = next((one for one in known if (one["n"], one["depth"]) == (n, depth)), None) or _apart(n, depth)
        found.append(one)
        print(f"{n} machines, depth {depth}: {one['cpu']:.0f} s of CPU", file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    if options.plots:
        for name, chart in charts(found).items():
            (options.plots / name).write_text(chart.svg(alone=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
