"""When to dial which child: a bound on handshakes in flight, and retries with jitter within the deadline.

An sshd drops connections at random beyond `MaxStartups` (10 unauthenticated ones by default).  So the bound
starts just below that, each success raises it by one (which doubles it each round), and a refusal halves it.
60 hosts behind one sshd are reached without tuning, and 60 hosts of their own as fast as the CPU allows.
"""

from __future__ import annotations

from _collections import deque

START = 9.0  # handshakes in flight at first
RETRY = 0.2  # s before the second attempt, doubled each time ...
RETRY_MOST = 3.0  # ... up to this; each wait is stretched by a random half


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Dialer:
    """`random` gives numbers in [0, 1); time is an argument.  Keys are machine ids."""

    def __init__(self, bound: int, random: Callable[[], float]) -> None:
        self.bound = 0.0
        self.most(bound)
        self._random = random
        self._fresh: deque[int] = deque()
        self._waiting: list[tuple[float, int]] = []
        self._tries: dict[int, int] = {}
        self._deadlines: dict[int, float] = {}
        self._active: set[int] = set()

    def most(self, bound: int) -> None:
        """Set the most handshakes in flight that the bound may grow to."""
        self._most = float(bound)
        self.bound = min(self._most, START)

    def active(self, machine: int) -> bool:
        return machine in self._active

    def add(self, machine: int, deadline: float) -> None:
        """To be dialled, once; what was to become of it before is forgotten."""
        self._drop(machine)
        self._fresh.append(machine)
        self._deadlines[machine] = deadline

    def _drop(self, machine: int) -> None:
        self._tries.pop(machine, None)
        if self._deadlines.pop(machine, None) is not None and machine not in self._active:
            if machine in self._fresh:
                self._fresh.remove(machine)
            self._waiting = [entry for entry in self._waiting if entry[1] != machine]

    def start(self, now: float) -> list[int]:
        """The machines to dial now; each is in flight until `succeeded` or `failed`."""
        started = []
        while len(self._active) < max(1, int(self.bound)):
            if self._waiting and min(self._waiting)[0] <= now:
                machine = min(self._waiting)[1]
                self._waiting.remove(min(self._waiting))
            elif self._fresh:
                machine = self._fresh.popleft()
            else:
                break
            self._active.add(machine)
            started.append(machine)
        return started

    def succeeded(self, machine: int) -> None:
        """It is connected, by whichever attempt: there is no other."""
        self._drop(machine)
        if machine in self._active:
            self._active.discard(machine)
            self.bound = min(self._most, self.bound + 1)

    def failed(self, machine: int, again: bool, now: float) -> bool:
        """True: it will be dialled again.  `again`: the failure is one that may pass."""
        self._active.discard(machine)
        tries = self._tries[machine] = self._tries.get(machine, 0) + 1
        if again and tries == 1:
            self.bound = max(1.0, self.bound / 2)
        wait = min(RETRY_MOST, RETRY * 2 ** (tries - 1)) * (1 + self._random() / 2)
        if again and now + wait < self._deadlines.get(machine, 0.0):
            self._waiting.append((now + wait, machine))
            return True
        self._tries.pop(machine, None)
        self._deadlines.pop(machine, None)
        return False

    def tries(self, machine: int) -> int:
        """Attempts that have failed so far."""
        return self._tries.get(machine, 0)

    def timeout(self) -> float | None:
        """When `start` is wanted next because a retry falls due."""
        if self._waiting and len(self._active) < max(1, int(self.bound)):
            return min(self._waiting)[0]
        return None
