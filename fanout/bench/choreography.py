"""Barriers over all machines, idle and in a flood of logs, and how exactly an instant is met."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.bench.bed import PATIENCE, bed, connected, settled
from fanout.bench.figure import Figure, Size, median, quantile
from fanout.root.outcomes import Report
from fanout.root.session import Session

ROUNDS = 15  # barriers, one after the other
PAUSE = 0.2  # s between them, so that one's stragglers do not delay the next

MEMBER = """
import os, sys, time
sys.path.insert(0, os.path.join(os.environ["FANOUT_FOLDER"], "library.zip"))
from fanout.agent.client import Client
client = Client()
times = []
for round in range(%d):
    client.ask("report", "round %%d" %% round, {})
    time.sleep(%f)
    came = time.monotonic()
    client.ask("barrier", "%s", None, None, None, %f)
    times.append("%%.6f:%%.6f" %% (came, time.monotonic()))
print(",".join(times))
"""
"""Tells when it came and when it was let go, round by round, in seconds of its machine's clock."""

FLOOD = "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done"


async def barriers(session: Session, name: str, rounds: int) -> list[list[tuple[float, float]]]:
    """For each round, when each member came and when it was let go, in s on its own machine's clock."""
    script = MEMBER % (rounds, PAUSE, name, PATIENCE)
    call = session.call(frames.RUN, session.up, {"shell": f"exec python3 -I -S -c '{script}'"})
    await settled(call, tree.DONE)
    found: list[list[tuple[float, float]]] = [[] for _ in range(rounds)]
    for machines, (outcome, _, out, err, _) in call.groups(tree.DONE):
        if outcome != "ok":
            raise RuntimeError(f"a member of the barrier failed: {err.decode('utf-8', 'replace')}")
        for at, pair in enumerate(out.decode().strip().split(",")):
            came, went = map(float, pair.split(":"))
            found[at] += [(came, went)] * machineset.count(machines)
    return found


async def latencies(session: Session, name: str) -> list[float]:
    """For each round the ms from the last arrival to the last release: these machines share one clock."""
    return [(max(went for _, went in pairs) - max(came for came, _ in pairs)) * 1e3
            for pairs in await barriers(session, name, ROUNDS)]


async def beside(session: Session, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> list[Figure]:
    """Barriers while nothing else is done, and while this is, which goes on until it is cancelled."""
    await latencies(session, "warm")
    idle = median(await latencies(session, "idle"))
    going = asyncio.ensure_future(work())
    try:
        busy = median(await latencies(session, "busy"))
        if going.done():
            going.result()
    finally:
        going.cancel()
    return [Figure("barrier over all, idle, median", idle, "ms"),
            Figure(f"barrier over all, {what}, median", busy, "ms", 3 * idle, idle, "idle")]


def measure_barrier(size: Size) -> list[Figure]:
    reports: list[Report] = []

    async def measure() -> list[Figure]:
        async with place.session(size.machines, size.relays, on_report=reports.append) as session:
            await connected(session)
            await latencies(session, "warm")
            before = session.statistics()["messages_in"]
            idle = await latencies(session, "idle")
            messages = (session.statistics()["messages_in"] - before) / ROUNDS
            flood = session.call(frames.SPAWN, session.up, {"shell": FLOOD, "name": "flood", "logs": "all"})
            await settled(flood, tree.STARTED, (1).to_bytes(4, "big"))
            began, bytes_before = time.monotonic(), session.forwarded
            flooded = await latencies(session, "flooded")
            rate = (session.forwarded - bytes_before) / (time.monotonic() - began) / 1e6
            stop = session.call(frames.PROCESS, session.up, [flood.number, "stop", 0.0])
            await settled(stop, tree.DONE)
        lost = 3 * ROUNDS * size.machines - len(reports)
        return [
            Figure("barrier over all, idle, median", median(idle), "ms"),
            Figure("barrier over all, idle, p99", quantile(idle, 0.99), "ms"),
            Figure("barrier over all, flooded, median", median(flooded), "ms", 3 * median(idle), median(idle),
                   "idle"),
            Figure("barrier over all, flooded, p99", quantile(flooded, 0.99), "ms", None, quantile(idle, 0.99),
                   "idle"),
            Figure("messages to the root, a barrier and reports", messages, ""),
            Figure("logs to the root in the flood", rate, "MB/s"),
            Figure("reports lost in the flood", lost, "", 0.0),
        ]

    with bed() as place:
        return asyncio.run(measure())


def measure_skew(size: Size) -> list[Figure]:
    """`start(at=)` on all machines: by how much each misses the instant, and the first is ahead of the last."""

    async def skews() -> list[Figure]:
        async with place.session(size.machines, size.relays) as session:
            await connected(session)
            spread, late = [], []
            spec = {"argv": ["/bin/true"], "name": "p", "logs": "none"}
            call = session.call(frames.SPAWN, session.up, spec)
            await settled(call, tree.EXITED, (1).to_bytes(4, "big"))
            for generation in (2, 3, 4):
                start = session.call(frames.PROCESS, session.up, [call.number, "start", session.now() + 2.0])
                await settled(start, tree.DONE)
                extra = generation.to_bytes(4, "big")
                await settled(call, tree.INSTANT, extra)
                missed = [value for _, value in call.groups(tree.INSTANT, extra)]
                spread.append((max(missed) - min(missed)) * 1e3)
                late.append(median(missed) * 1e3)
                await settled(call, tree.EXITED, extra)
            return [Figure("start at an instant: first to last machine", median(spread), "ms"),
                    Figure("start at an instant: median delay", median(late), "ms")]

    with bed() as place:
        return asyncio.run(skews())
