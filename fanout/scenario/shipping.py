"""`ship`: a file or a folder to a set of machines, waited for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fanout.agent.core import machineset
from fanout.agent.core.node import DONE
from fanout.durations import parse_duration
from fanout.durations import show as show_duration
from fanout.errors import UsageError
from fanout.root.call import Call
from fanout.root.outcomes import Outcome
from fanout.root.shipping import Source
from fanout.scenario import command, failures
from fanout.scenario.command import Place
from fanout.scenario.context import Context
from fanout.scenario.failures import ShipFailed, Trouble

TELL = 10.0  # s between two lines about a file that is on its way


async def ship(
    context: Context, bits: int, path: str | Path, to: Place | None, *, mode: int | None, timeout: str | float,
    cache: bool,
) -> str:
    seconds = parse_duration(timeout)
    if not bits:
        raise UsageError(f"shipping {path}: the group is empty")
    if not isinstance(path, str | Path):
        raise UsageError(f"ship({path!r}): give the path of a file or folder")
    if mode is not None and (not isinstance(mode, int) or not 0 <= mode <= 0o7777):
        raise UsageError(f"mode={mode!r}: give permission bits as a number, such as 0o755")
    given = None if to is None else command.place(to, "to")
    source = await asyncio.to_thread(Source, Path(path))
    place = given if given is not None else source.name
    if not place or place.endswith("/"):
        source.close()
        raise UsageError(f"to={to!r}: give the whole path, with the name it is to have there")
    call = context.session.shipping.ship(source, bits, place, mode, cache)
    try:
        with context.doing(f"shipping {path} to {context.names(bits)}"):
            await _wait(context, call, str(path), seconds)
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


async def _wait(context: Context, call: Call, path: str, seconds: float) -> None:
    """Until all have it, or the time is up; what takes long tells how far it is."""
    began, before = time.monotonic(), context.session.shipping.sent
    while (left := began + seconds - time.monotonic()) > 0 and not await call.wait(DONE, timeout=min(TELL, left)):
        done, rate = call.settled(DONE), (context.session.shipping.sent - before) / (time.monotonic() - began)
        context.observer.note(
            f"shipping {path}: done on {machineset.count(done)} of {machineset.count(call.targets)} machines, "
            f"{rate / 1e6:.1f} MB/s sent; waiting for {context.names(call.targets & ~done)}")


def _union(troubles: list[Trouble]) -> int:
    bits = 0
    for trouble in troubles:
        bits |= trouble.bits
    return bits
