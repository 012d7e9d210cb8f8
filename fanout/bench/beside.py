"""fanout's agents beside Mitogen's contexts: all ready on the same hosts, one after the other.

Each is made by a process of its own, so that its CPU is its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys

from fanout.bench.bed import PATIENCE, Bed, bed
from fanout.bench.figure import Figure, Size
from fanout.bench.peers import GATEWAYS, Place
from fanout.bench.trees import bare_logins
from fanout.bench.trial import Trial
from fanout.root.planner import plan

TIMES = 4.0  # as fast as Mitogen: what is aimed at


def _program(argv: list[str], given: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", *argv], input=given, stdout=subprocess.PIPE, text=True,
                          timeout=2 * PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed; what it said is above")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _agents(place: Bed, size: Size, relays: int) -> dict[str, float]:
    parents = plan(size.machines, relays=relays, depth=None, width=None).parents
    trial = Trial("beside", place.hosts(size.machines), list(parents), place.sshd.key.read_text(),
                  skip=["barrier", "logs", "files"])
    return _program(["fanout.bench.trial"], trial.to_json())


def _contexts(place: Place, size: Size, via: int) -> dict[str, float]:
    names = place.names(size.machines)
    return _program(["fanout.bench.contexts", str(place.config), str(names), "--via", str(via)], "")


def measure_beside(size: Size) -> list[Figure]:
    """Without Mitogen, fanout alone, and it is said."""
    found = {}
    with bed() as hosts, Place(hosts.hosts(size.machines)) as place:
        logins = asyncio.run(bare_logins(hosts, size.machines))
        found[f"fanout, {size.relays} relays"] = _agents(hosts, size, size.relays)
        found["fanout, flat"] = _agents(hosts, size, 0)
        fastest = None
        if importlib.util.find_spec("mitogen") is None:
            print("the Python package mitogen is not installed here: fanout is measured alone", file=sys.stderr)
        else:
            via = min(GATEWAYS, size.machines - 1)
            peers = {"Mitogen, flat": _contexts(place, size, 0), f"Mitogen, via {via}": _contexts(place, size, via)}
            fastest = min(peer["ready"] for peer in peers.values())
            found |= peers
    figures = []
    for who, row in found.items():
        aim = fastest / TIMES if fastest and who.startswith("fanout") else None
        figures += [
            Figure(f"{who}: ready on all", row["ready"], "s", aim, logins, "`ssh host true` on each"),
            Figure(f"{who}: a later command on all", row["command"] * 1e3, "ms"),
            Figure(f"{who}: root CPU, connecting", row["connect_cpu"], "s"),
            Figure(f"{who}: root CPU, a command on all", row["command_cpu"] * 1e3, "ms"),
        ]
    return figures
