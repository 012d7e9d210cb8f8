"""The end of a process whose scenario left something that does not end: a task that ignores its cancellation, a thread.

asyncio and Python wait for these until they end by themselves.  A run has a bound, and its result is written by then;
so they are given `PATIENCE`, and then the process ends without them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

PATIENCE = 2.0  # s
T = TypeVar("T")

_tasks: set[asyncio.Task[Any]] = set()
"""Those of this process that do not end."""


def completed(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`; but what does not end is left for `leave`."""
    runner = asyncio.Runner()
    try:
        return runner.run(work)
    finally:
        _tasks.update(runner.get_loop().run_until_complete(_ended()))
        if not _tasks:
            runner.close()


async def _ended() -> set[asyncio.Task[Any]]:
    """All other tasks and the threads of the loop end, or are among those that do not."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    threads = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
    return (await asyncio.wait({*tasks, threads}, timeout=PATIENCE))[1]


def leave(code: int) -> None:
    """End the process with `code`, here and now, if something would hold it up; return if nothing would."""
    until = time.monotonic() + (0.0 if _tasks else PATIENCE)
    threads = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if not _tasks and not any(thread.is_alive() for thread in threads):
        return
    click.echo("fanout: the scenario has left a task or a thread that does not end; it is not waited for", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
