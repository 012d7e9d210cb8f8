"""Ctrl-C of a command that works on many machines: a first one ends the work tidily, a second one at once.

TERM does what Ctrl-C does, and so does the end of the terminal, but for a command that `nohup` has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

from fanout.scenario.interrupts import terminating


def cancel_tidily() -> None:
    """From here on the task at hand is cancelled by TERM and the like, as by Ctrl-C, which `asyncio.run` sees to."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in terminating():
        loop.add_signal_handler(number, task.cancel)


async def completed(work: Coroutine[Any, Any, object]) -> bool:
    """Whether the work came to its end; False when Ctrl-C and the like have cancelled it, and it has tidied up."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        task.cancel()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, *terminating()):
        loop.add_signal_handler(number, interrupt)
    with contextlib.suppress(asyncio.CancelledError):
        await task
        return True
    return False
