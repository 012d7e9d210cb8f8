"""`python -m fanout.bench [--only NAME] [--json FILE]`: measure, print, say which aims were met.

Each measurement runs in a process of its own, so that its CPU and memory are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

from fanout.bench.agents import measure_helper, measure_idle, measure_payload, measure_start
from fanout.bench.beside import measure_beside
from fanout.bench.choreography import measure_barrier, measure_skew
from fanout.bench.copy import measure_copy, measure_copy_barrier
from fanout.bench.fetch import measure_fetch
from fanout.bench.figure import Figure, Size, table
from fanout.bench.logs import measure_logs
from fanout.bench.trees import measure_flat, measure_relays, measure_trip

MEASUREMENTS: dict[str, Callable[[Size], list[Figure]]] = {
    "payload": measure_payload,
    "start": measure_start,
    "idle": measure_idle,
    "helper": measure_helper,
    "trip": measure_trip,
    "relays": measure_relays,
    "flat": measure_flat,
    "mitogen": measure_beside,
    "barrier": measure_barrier,
    "skew": measure_skew,
    "fetch": measure_fetch,
    "logs": measure_logs,
    "copy": measure_copy,
    "copy-barrier": measure_copy_barrier,
}
LONGEST = 600.0  # s for one measurement


def machine() -> str:
    """What the figures were taken on, in a line."""
    return (f"{os.cpu_count()} CPUs ({platform.machine()}), Linux {platform.release()}, Python "
            f"{platform.python_version()}, load {os.getloadavg()[0]:.1f}")


def apart(name: str, size: Size) -> list[Figure]:
    """One measurement in a process of its own."""
    options = [word for field in fields(Size) for word in (f"--{field.name}", str(getattr(size, field.name)))]
    done = subprocess.run(
        [sys.executable, "-m", "fanout.bench", "--inner", name, *options],
        stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=False)
    if done.returncode:
        raise RuntimeError(f"the measurement {name} failed; what it said is above")
    return [Figure(**entry) for entry in json.loads(done.stdout)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fanout.bench", description="Measure fanout on this machine.")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), help="this one; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--inner", choices=list(MEASUREMENTS), help=argparse.SUPPRESS)
    for field in fields(Size):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=f"default {field.default}")
    options = parser.parse_args(argv)
    size = Size(**{field.name: getattr(options, field.name) for field in fields(Size)})
    if options.inner:
        print(json.dumps([asdict(figure) for figure in MEASUREMENTS[options.inner](size)]))
        return 0
    figures: list[Figure] = []
    failed = False
    about = machine()
    print(about)
    for name in options.only or MEASUREMENTS:
        load = os.getloadavg()[0]
        try:
            found = apart(name, size)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"\n{name}: {error}", file=sys.stderr)
            failed = True
            continue
        figures += found
        print(f"\n{name} (load {load:.1f})\n{table(found)}", flush=True)
    if options.json:
        document = {"machine": about, "size": asdict(size), "figures": [figure.as_json() for figure in figures]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
