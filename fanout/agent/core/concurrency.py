"""How many leaves a relay sends a file to at once.  Pure.

On a machine whose CPUs are all taken, many are sent a file no sooner than few, and everything else there waits behind
all of them.  So the limit follows how long this process waits for a CPU: it halves while that is more than the CPU time
it gets, and doubles while it is less (multiplicative both ways: what is best is often all, or one).
"""

from __future__ import annotations

FIRST, MOST = 8, 1024  # leaves at once: at first, and at most
PERIOD = 0.1  # s between two looks


class Concurrency:
    def __init__(self) -> None:
        self.limit = FIRST
        self._ran = self._waited = 0

    def look(self, ran: int, waited: int) -> None:
        """How much CPU time this process had so far, and for how long it waited for more (`contention.times`)."""
        if waited - self._waited > ran - self._ran:
            self.limit = max(1, self.limit // 2)
        else:
            self.limit = min(MOST, self.limit * 2)
        self._ran, self._waited = ran, waited
