"""Waiting for any condition on a call.

`Call.wait` waits for one phase of all targets; processes are also waited for by part of their machines, and by
whichever of two phases comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fanout.root.call import Call


async def until(call: Call, done: Callable[[], bool], timeout: float) -> bool:
    """Until `done()`, which is asked again whenever the call hears something; False after `timeout` seconds."""
    changed = asyncio.Event()
    call._waiters.add(changed)
    try:
        async with asyncio.timeout(timeout):
            while not done():
                changed.clear()
                await changed.wait()
        return True
    except TimeoutError:
        return False
    finally:
        call._waiters.discard(changed)
