"""What comes home before the machines go: files for a run that failed, and the logs of processes that say so."""

from __future__ import annotations

import time

from fanout.errors import FanoutError
from fanout.root.fetching import Fetch
from fanout.root.outcomes import RunOutcome
from fanout.scenario.context import Context
from fanout.scenario.fetching import placed, told

COLLECT = 30.0
"""Seconds that collected logs may take, and as long again for files that are fetched on failure."""
CAP = 256 << 20  # bytes of collected logs of one machine
TOTAL = 16 << 30  # ... and of all


async def last_fetches(context: Context, outcome: RunOutcome) -> None:
    """What `fetch(when="on_failure")` asked for."""
    deadline = time.monotonic() + COLLECT
    for bring in context.on_failure if outcome is not RunOutcome.PASSED else ():
        try:
            await bring(max(1.0, deadline - time.monotonic()))
        except FanoutError as error:
            context.observer.warning(str(error))


async def end(context: Context, outcome: RunOutcome, grace: float, timeout: float) -> None:
    """End the session, and take what is collected."""
    session = context.session
    if not context.collects:
        await session.end(grace=grace, timeout=timeout)
        return
    if context.keep is None:
        context.observer.warning("collect=: this run keeps no folder; no logs are collected")
        await session.end(grace=grace, timeout=timeout)
        return
    work = Fetch(session, placed(context, "collected"), CAP, TOTAL)
    collect = {"failed": outcome is not RunOutcome.PASSED, "cap": CAP, "seconds": COLLECT, "epoch": session.epoch}
    await session.end(grace=grace, timeout=timeout + COLLECT, collect=collect, begun=work.of)
    for machine, intake in work.intakes.items():
        if not intake.over:
            why = intake.failed or f"only a part came within {COLLECT:g} s"
            session.problems.append((1 << machine, f"its logs were not all collected: {why}"))
        intake.close()
    session.problems += told(work.intakes)
