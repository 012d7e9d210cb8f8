"""`ship`: a file or a folder to a set of machines, waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanout.agent.core import machineset
from fanout.agent.core.node import DONE
from fanout.durations import parse_duration
from fanout.durations import show as show_duration
from fanout.errors import UsageError
from fanout.root.outcomes import Outcome
from fanout.root.shipping import Source
from fanout.scenario import failures
from fanout.scenario.context import Context
from fanout.scenario.failures import ShipFailed, Trouble


async def ship(
    context: Context, bits: int, path: str | Path, to: str | None, *, mode: int | None, timeout: str | float,
    cache: bool,
) -> str:
    seconds = parse_duration(timeout)
    if not bits:
        raise UsageError(f"shipping {path}: the group is empty")
    source = await asyncio.to_thread(Source, Path(path))
    place = to if to is not None else source.name
    if not place or place.endswith("/"):
        source.close()
        raise UsageError(f"to={to!r}: give the whole path, with the name it is to have there")
    call = context.session.shipping.ship(source, bits, place, mode, cache)
    try:
        with context.doing(f"shipping {path} to {context.names(bits)}"):
            await call.wait(DONE, timeout=seconds)
        troubles = [
            Trouble(reason, machines, Outcome.FAILED)
            for machines, (outcome, reason) in call.groups(DONE)
            if outcome != "ok"
        ]
        troubles += [Trouble(reason, machines, Outcome.FAILED) for machines, reason in call.refused]
        troubles += [
            Trouble(reason, machines, outcome)
            for machines, outcome, reason in context.why_down(call.lost & ~call.heard(DONE))
        ]
        late = bits & ~call.settled(DONE)
        if late:
            troubles.append(Trouble(f"not complete within {show_duration(seconds)}", late, Outcome.TIMED_OUT))
    finally:
        context.session.shipping.over(call)
        context.session.forget(call)
        source.close()
    if troubles:
        bad = machineset.count(_union(troubles))
        head = f"shipping {path} failed on {bad} of {machineset.count(bits)} machines"
        raise ShipFailed(failures.message(context, head, troubles), failures.failures(context, troubles))
    return place if place.startswith(("/", "~")) else f"./{place}"


def _union(troubles: list[Trouble]) -> int:
    bits = 0
    for trouble in troubles:
        bits |= trouble.bits
    return bits
