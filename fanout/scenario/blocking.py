"""Is there code in the scenario that blocks?  While it does, machines hear nothing, and end with their lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fanout.durations import show

LOOK = 0.5  # s
LONG = 5.0  # s without any turn of the event loop: a parent counts as silent then


@contextmanager
def watched(tell: Callable[[str], None], lease: float) -> Iterator[None]:
    """While it lasts, `tell` is given a line on each time that nothing went on for LONG; `lease` is in seconds."""
    watching = asyncio.create_task(_watch(tell, lease))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(tell: Callable[[str], None], lease: float) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(LOOK)
        late = time.monotonic() - before - LOOK
        if late > LONG:
            tell(f"nothing went on here for {show(late)}: if a call of the scenario blocks (time.sleep, "
                 "subprocess.run), use asyncio.sleep, or await asyncio.to_thread(...); machines that hear nothing for "
                 f"{show(lease)} (--lease) end")
