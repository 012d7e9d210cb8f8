"""How tests wait for what has no event of its own, and which time limits they let strike."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 20.0  # s for any one thing to come about, on a busy machine
LIMITS = (0.3, 3.0, 30.0)
"""Time limits, in seconds, that a test tries in turn until one has left what it strikes the time to begin."""


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)
