"""Ctrl-C, TERM and the end of the terminal while a run lasts: the first ends it tidily, the second at once.

Handlers are put back.
"""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Any, Self


def terminating() -> tuple[signal.Signals, ...]:
    """What ends a run as Ctrl-C does: TERM, and the end of the terminal unless that is ignored, as by `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM,) if ignored else (signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def _arrived(self) -> None:
        (self.second if self.first.is_set() else self.first).set()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, *terminating()):
            before = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, self._arrived)
            except (RuntimeError, ValueError):
                break  # not the main thread: signals are someone else's business there
            self._before[number] = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number, before in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if before is None else before)
