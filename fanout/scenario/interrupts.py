"""Ctrl-C, TERM and the end of the terminal while a run lasts: the first ends it tidily, the second at once.

Handlers are put back.  What is ignored, as by `nohup`, stays so.
"""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def _arrived(self) -> None:
        (self.second if self.first.is_set() else self.first).set()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            before = signal.getsignal(number)
            if number == signal.SIGHUP and before == signal.SIG_IGN:
                continue
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
