"""Flat beside trees on one fleet: every shape at every size, in turn, round after round, within a budget of time.

Rounds are interleaved (A B C, then B C A, ...), so that a machine or a network that drifts touches all alike.  Each
trial is a process of its own (`trial.py`).  A trial that would not fit into what is left of the budget is left out,
and said.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fanout.bench import peers, shapes
from fanout.bench.calibrate import calibrate
from fanout.bench.figure import median
from fanout.bench.trial import Trial
from fanout.errors import FleetError, UsageError
from fanout.fleets import open_fleet
from fanout.fleets.base import Host, Request
from fanout.root import constants
from fanout.root.model import Costs, Prediction, predict
from fanout.version import __version__

LONGEST = 600.0  # s for one trial
START = 3.0  # s that a trial takes besides the connecting, until one like it has been seen
ONE = "one"
"""The trial of a single machine: what a login alone takes."""


@dataclass
class Row:
    """A shape at a size: what its trials found."""

    n: int
    shape: str
    fans: tuple[int, ...]
    trials: list[dict[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    predicted: Prediction | None = None

    def values(self, key: str) -> list[float]:
        return [trial[key] for trial in self.trials if key in trial]

    def median(self, key: str) -> float | None:
        values = self.values(key)
        return median(values) if values else None

    def spread(self, key: str) -> tuple[float, float] | None:
        """(least, most)"""
        values = self.values(key)
        return (min(values), max(values)) if values else None


@dataclass
class Contest:
    """All that was found, and what it was found on."""

    fleet: str
    rows: list[Row] = field(default_factory=list)
    peers: list[peers.PeerRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    machine: str = ""
    began: str = ""
    seconds: float = 0.0
    load: tuple[float, float] = (0.0, 0.0)
    """Of this host, at the beginning and the end."""
    costs: Costs | None = None

    def row(self, n: int, shape: str) -> Row | None:
        return next((row for row in self.rows if (row.n, row.shape) == (n, shape)), None)

    def crossover(self, shape: str, key: str = "ready") -> int | None:
        """The smallest size from which on the shape is faster than flat at every size measured."""
        found = None
        for row in sorted((row for row in self.rows if row.shape == shape), key=lambda row: row.n):
            flat = self.row(row.n, shapes.FLAT)
            mine, theirs = row.median(key), flat.median(key) if flat else None
            if mine is None or theirs is None:
                continue
            if mine >= theirs:
                found = None
            elif found is None:
                found = row.n
        return found

    def as_json(self) -> dict[str, Any]:
        rows = [{**asdict(row), "median": {key: row.median(key) for key in sorted({k for t in row.trials for k in t})},
                 "spread": {key: row.spread(key) for key in sorted({k for t in row.trials for k in t})}}
                for row in self.rows]
        return {**asdict(self), "rows": rows, "fanout": __version__}


@dataclass(frozen=True)
class Options:
    fleet: str = "local"
    sizes: tuple[int, ...] = (10, 50, 100, 200, 500)
    shapes: tuple[str, ...] = (shapes.FLAT, shapes.AUTO, "4", "8", "8x8")
    repeat: int = 5
    budget: float = 1800.0
    """Seconds for everything but the making of the fleet and its end."""
    skip: tuple[str, ...] = ()
    compare: bool = False
    connect_timeout: float = 120.0


async def contest(options: Options, run: str, say: Callable[[str], None]) -> Contest:
    """UsageError for options that make no sense; FleetError when there are no machines."""
    for shape in options.shapes:
        shapes.check(shape)
    source = open_fleet(options.fleet)
    source.say = say
    result = Contest(options.fleet, machine=_machine(), began=time.strftime("%Y-%m-%d %H:%M %Z"))
    try:
        wanted = max(options.sizes) if options.fleet.partition(":")[0] != "hosts" else None
        hosts = await source.provision(Request(run, wanted), lambda done, total: None)
        if not hosts:
            raise FleetError(f"the fleet {options.fleet} has no machines")
        sizes = [n for n in sorted(set(options.sizes)) if n <= len(hosts)]
        if left := sorted(set(options.sizes) - set(sizes)):
            result.notes.append(f"the fleet has {len(hosts)} machines: nothing was measured at n = "
                                + ", ".join(map(str, left)))
        if not sizes:
            raise UsageError(f"-n: the fleet {options.fleet} has {len(hosts)} machines, fewer than the least size")
        work = _Work(options, hosts, source.relay_key, run, sizes, result, say)
        load, began = os.getloadavg()[0], time.monotonic()
        await work.go()
        result.seconds, result.load = time.monotonic() - began, (load, os.getloadavg()[0])
    finally:
        await source.release()
    return result


class _Work:
    def __init__(self, options: Options, hosts: Sequence[Host], relay_key: str | None, run: str,
                 sizes: Sequence[int], result: Contest, say: Callable[[str], None]) -> None:
        self._options = options
        self._hosts = list(hosts)
        self._relay_key = relay_key
        self._run = run
        self._result = result
        self._say = say
        self._number = 0
        self._deadline = time.monotonic() + options.budget
        costs = constants.of(options.fleet)
        self._costs = costs
        self._entries: list[tuple[Row, list[int | None]]] = []
        self._add(1, ONE, shapes.FLAT, costs)
        for n in sizes:
            for shape in options.shapes:
                self._add(n, shape, shape, costs)

    def _add(self, n: int, name: str, shape: str, costs: Costs) -> None:
        found = shapes.tree(n, shape, costs)
        if found is None:
            self._result.notes.append(f"{shape} at n = {n}: too few machines for a leaf below each relay")
        elif shape == shapes.AUTO and not found.relays and shapes.FLAT in self._options.shapes:
            self._result.notes.append(f"auto at n = {n} is flat")
        else:
            row = Row(n, name, found.fans)
            self._entries.append((row, list(found.parents)))
            self._result.rows.append(row)

    async def go(self) -> None:
        entries: list[Any] = list(self._entries)
        if self._options.compare:
            contestants, why = peers.installed(self._hosts)
            self._result.notes += why
            sizes = sorted({row.n for row, _ in self._entries if row.n > 1})
            with peers.Place(self._hosts) as place:
                for n in sizes:
                    for peer in contestants:
                        peer_row = peers.PeerRow(n, peer.name)
                        self._result.peers.append(peer_row)
                        entries.append((peer_row, peer))
                await self._rounds(entries, place)
        else:
            await self._rounds(entries, None)
        for row, _ in self._entries:
            if row.failures:
                self._result.notes.append(f"{row.shape} at n = {row.n}: {len(row.failures)} trials failed:"
                                          f" {row.failures[0]}")
        self._result.costs = calibrate(
            [(row.n, row.shape, row.fans, row.median) for row, _ in self._entries if row.trials], self._costs,
            os.cpu_count() or 1)
        for row, _ in self._entries:
            row.predicted = predict(row.n, row.fans, self._result.costs)

    async def _rounds(self, entries: list[Any], place: peers.Place | None) -> None:
        seen: dict[int, float] = {}
        left_out: dict[str, int] = {}
        for number in range(self._options.repeat):
            first = number % len(entries)
            for row, how in entries[first:] + entries[:first]:
                name = f"{row.shape if isinstance(row, Row) else row.peer} at n = {row.n}"
                needed = seen.get(id(row), START + self._guess(row))
                if time.monotonic() + needed > self._deadline:
                    left_out[name] = left_out.get(name, 0) + 1
                    continue
                began = time.monotonic()
                if isinstance(row, Row):
                    await self._trial(row, how)
                else:
                    assert place is not None
                    await asyncio.to_thread(row.measure, how, place, min(LONGEST, self._left()))
                seen[id(row)] = time.monotonic() - began
                self._say(f"round {number + 1} of {self._options.repeat}: {name}: {seen[id(row)]:.1f} s")
        for name, count in left_out.items():
            self._result.notes.append(f"{name}: {count} of {self._options.repeat} trials were left out, the budget of"
                                      f" {self._options.budget:.0f} s was used up (--budget)")

    def _left(self) -> float:
        return max(1.0, self._deadline - time.monotonic())

    def _guess(self, row: Any) -> float:
        return 2 * predict(row.n, row.fans if isinstance(row, Row) else (row.n,), self._costs).ready

    async def _trial(self, row: Row, parents: list[int | None]) -> None:
        self._number += 1
        trial = Trial(f"{self._run}-{self._number}", self._hosts[: row.n], parents, self._relay_key,
                      self._options.connect_timeout, list(self._options.skip))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fanout.bench.trial", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(min(LONGEST, self._left())):
                out, err = await process.communicate(trial.to_json().encode())
        except TimeoutError:
            row.failures.append("it did not end in time")
            return
        finally:
            await _end(process)
        if process.returncode:
            said = err.decode("utf-8", "replace").strip().splitlines()
            row.failures.append(said[-1] if said else f"exit {process.returncode}")
        else:
            row.trials.append(json.loads(out))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Asked first: on SIGINT a trial ends its machines."""
    for stop in (process.terminate, process.kill):
        if process.returncode is None:
            stop()
            try:
                await asyncio.wait_for(process.wait(), 15.0)
            except TimeoutError:
                continue


def _machine() -> str:
    return (f"{os.cpu_count()} CPUs ({platform.machine()}), {platform.system()} {platform.release()}, "
            f"Python {platform.python_version()}")
