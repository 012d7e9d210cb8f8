"""Ctrl-C of a command that works on many machines: a first one ends the work tidily, a second one at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


async def completed(work: Coroutine[Any, Any, object]) -> bool:
    """Whether the work came to its end; False when Ctrl-C or TERM has cancelled it, and it has tidied up."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        task.cancel()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    with contextlib.suppress(asyncio.CancelledError):
        await task
        return True
    return False
