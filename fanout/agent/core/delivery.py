"""Nothing that goes up is forgotten before the root has it.

Each link numbers its upward frames per class.  The sender keeps a frame until it is acknowledged, and a relay
acknowledges a frame only when everything made from it was acknowledged further up: an acknowledgement is the
root's word, handed down hop by hop.  The same numbers are the credits: a class with a window stops at that many
bytes unacknowledged, so a slow root slows the machines and nobody in between buffers without bound.

A window may grow, up to what the parent grants: on a long way to the root it is used up long before the first
acknowledgement is back.  It grows while it is what is waited for and acknowledgements take no longer than at best,
and shrinks when they take twice that: then what is on its way only waits in some queue, and urgent messages behind it.

Invariant of Sender:    acked <= every retained number <= last
Invariant of Receiver:  acked + 1 is the first number not yet settled
"""

from __future__ import annotations

from _collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    Origin = tuple["Receiver", int]
    """A frame from below, whose settlement waits for a frame of ours."""


LONGER, TOO_LONG = 1.25, 2.0  # times the best, that an acknowledgement may take for a window to grow, or to stay


class Sender:
    """One class of one uplink."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        """Most bytes unacknowledged; None: no limit, for what is bounded otherwise."""
        self._least = self.granted = window or 0
        """... that it may shrink and grow to."""
        self._best = float("inf")
        """s from sending to the acknowledgement, at least."""
        self._timed: tuple[int, float] | None = None
        """(frame, when it was sent), while its acknowledgement is timed."""
        self.last = 0
        self.unacked_bytes = 0
        self._kept: deque[tuple[int, int, bytes, list[Origin]]] = deque()

    def may_send(self) -> bool:
        return self.window is None or self.unacked_bytes < self.window

    def keep(self, kind: int, body: bytes, origins: list[Origin]) -> int:
        """Number a frame and retain it; returns its number."""
        self.last += 1
        self._kept.append((self.last, kind, body, origins))
        self.unacked_bytes += len(body)
        return self.last

    def acknowledged(self, number: int, now: float) -> None:
        """Everything up to `number` has reached the root.  Repetitions and old numbers do nothing."""
        waited = not self.may_send()
        while self._kept and self._kept[0][0] <= number:
            _, _, body, origins = self._kept.popleft()
            self.unacked_bytes -= len(body)
            for receiver, settled in origins:
                receiver.settle(settled)
        if self._timed is not None and self._timed[0] <= number:
            self._fit(now - self._timed[1])
            self._timed = None
        if waited and self._timed is None:
            self._timed = (self.last + 1, now)  # what has waited for this leaves now

    def _fit(self, took: float) -> None:
        assert self.window is not None
        self._best = min(self._best, took)
        if took <= self._best * LONGER:
            self.window = self.window * 5 // 4
        elif took > self._best * TOO_LONG:
            self.window = self.window * 3 // 4
        self.window = max(self._least, min(self.window, self.granted))

    def unacked(self) -> list[tuple[int, bytes, list[Origin]]]:
        """(kind, body, origins) of what a new parent must be sent again, oldest first."""
        return [entry[1:] for entry in self._kept]


class Receiver:
    """The other end: which numbers of one class of one child are settled."""

    def __init__(self) -> None:
        self.acked = 0
        self.told = 0
        """The last number that the child was told."""
        self.unsettled = 0
        """Bytes that came and are not settled."""
        self._sizes: dict[int, int] = {}
        self._settled: set[int] = set()

    def came(self, number: int, size: int) -> None:
        self._sizes[number] = size
        self.unsettled += size

    def settle(self, number: int) -> None:
        self.unsettled -= self._sizes.pop(number, 0)
        self._settled.add(number)
        while self.acked + 1 in self._settled:
            self.acked += 1
            self._settled.discard(self.acked)
