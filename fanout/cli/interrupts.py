"""Ctrl-C of a command that works on many machines: a first one ends the work tidily, a second one at once.

TERM does what Ctrl-C does, and so does the end of the terminal, but for a command that `nohup` has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import Awaitable, Callable, Iterator

from fanout.scenario.interrupts import terminating


def cancel_tidily() -> None:
    """From here on the task at hand is cancelled by TERM and the like, as by Ctrl-C, which `asyncio.run` sees to."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in terminating():
        loop.add_signal_handler(number, task.cancel)


async def completed(work: Awaitable[object]) -> bool:
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


@contextlib.contextmanager
def reader_watched(fd: int, gone: Callable[[], None]) -> Iterator[None]:
    """Calls `gone` when nobody has the other end of this pipe any more (`| head`), also with nothing to write.

    What is no pipe has no such reader.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        yield
        return
    loop, own = asyncio.get_running_loop(), os.dup(fd)  # its own: whoever has lost the reader points `fd` elsewhere

    def woken() -> None:  # a pipe's writing end is never readable: it is the error that wakes
        loop.remove_reader(own)
        gone()

    loop.add_reader(own, woken)
    try:
        yield
    finally:
        loop.remove_reader(own)
        os.close(own)
