"""What a scenario lost sight of: coroutines that were never awaited, and tasks that nobody waited for.

Python says both on stderr at most, and goes on.  A run would pass although commands of its scenario did not run, or
failed where nobody looked; so each counts as an error of the scenario, with its line.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from fanout.errors import FanoutError

OWN = tuple(str(Path(__file__).parent.parent / part) for part in ("root", "fleets"))
"""Tasks of these are not the scenario's, whenever they began."""
NEVER = r"coroutine '.*' was never awaited"


class NotAwaited(FanoutError):
    """A coroutine that was made, and dropped: nothing of it has run."""


class Strays:
    """A context manager around the scenario's function; `found` has what has come to light, in order."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` is given a line on each as soon as it is known, which may be long before the scenario ends."""
        self.found: list[BaseException] = []
        self._tell = tell
        self._before: set[asyncio.Task[Any]] = set()
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> Self:
        self._before = asyncio.all_tasks()
        self._depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(1)
        self._warnings.__enter__()
        warnings.filterwarnings("always", NEVER, RuntimeWarning)
        self._show = warnings.showwarning
        warnings.showwarning = self._warned
        loop = asyncio.get_running_loop()
        self._handler = loop.get_exception_handler()
        loop.set_exception_handler(self._failed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().set_exception_handler(self._handler)
        self._warnings.__exit__(kind, error, trace)
        sys.set_coroutine_origin_tracking_depth(self._depth)

    @property
    def error(self) -> BaseException:
        """All of it as one."""
        return self.found[0] if len(self.found) == 1 else BaseExceptionGroup("strays", self.found)

    async def end(self, timeout: float) -> list[str]:
        """Cancel what still runs, and wait until it has ended, at most `timeout` s; the names of its coroutines."""
        running = [
            task for task in asyncio.all_tasks() - self._before
            if not getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "").startswith(OWN)
        ]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=timeout)
        return sorted({getattr(task.get_coro(), "__qualname__", task.get_name()) for task in running})

    def _warned(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:
        text = str(message)
        if not (issubclass(category, RuntimeWarning) and text.startswith("coroutine '")):
            self._show(message, category, filename, lineno, file, line)
            return
        # Where it was dropped may be anywhere; with origins tracked, the text ends with the place where it was made.
        name = text.split("'")[1]
        where = _origin(text) or (filename, lineno)
        said = linecache.getline(*where).strip()
        self._take(NotAwaited(f"{name} was never awaited, so nothing of it has run: write `await` before it\n"
                              f"  {where[0]}, line {where[1]}: {said}"))

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or "future" not in context:
            loop.default_exception_handler(context)
            return
        error.add_note("in a task that nobody waited for")
        self._take(error)

    def _take(self, error: BaseException) -> None:
        self.found.append(error)
        text = str(error) if isinstance(error, FanoutError) else f"{type(error).__name__}: {error}"
        first = text.partition("\n")[0]
        self._tell(first if isinstance(error, NotAwaited) else f"a task that nobody waits for has failed: {first}")


def _origin(text: str) -> tuple[str, int] | None:
    """Of `... File "PATH", line N, in ...`, the last."""
    _, found, rest = text.rpartition('File "')
    name, _, number = rest.partition('", line ')
    digits = number.split(",")[0]
    return (name, int(digits)) if found and digits.isdigit() else None
