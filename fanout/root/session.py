"""Interface only for now; see docs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fanout.root.call import Call
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome, Report
from fanout.root.settings import Settings


class Session:
    def __init__(self, machines: Sequence[Machine], parents: Sequence[int | None], settings: Settings, *,
                 relay_key: str | None = None) -> None:
        self.machines = list(machines)
        self.up = 0
        self.down: dict[int, tuple[Outcome, str]] = {}
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_log: Callable[[int, int, bytes], None] = lambda machine, call, data: None
        self.on_down: Callable[[int, Outcome, str], None] = lambda machines, outcome, reason: None

    async def connect(self, progress: Callable[[int, int], None]) -> None: ...
    def call(self, kind: int, targets: int, body: Any) -> Call: ...
    async def end(self, grace: float, timeout: float) -> None: ...
    async def abort(self) -> None: ...
    def statistics(self) -> dict[str, float]: ...
