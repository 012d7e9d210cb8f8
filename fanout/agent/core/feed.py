"""What a node may be sent of a stream, and what goes to which child next.  Pure: offsets and time, no bytes.

A node passes on what it has while more is coming in, to each child at that child's own pace: a child says how far
it may be sent (`want`), and asks on as it takes things in, so a slow one holds up nobody and nothing is buffered
beyond its window.  After a new link it says what it has, and goes on from there.

A node keeps a stretch of the stream, `start` to `end`.  One that is roomy (its disk has room) keeps all that came.
Any other keeps its window at most, and waits for the children: for one that takes nothing, PATIENCE, after which that
one is *behind*.  When the stream has ended for the others, it is fetched again from where the children stand that
are behind.  A leaf is a node without room and children.

What urgent messages wait for on their way down is what a child has allowed.  So it allows what it takes in a
moment: the window shrinks while what was asked for takes longer than it did at best, and grows while it does not.

What holds: nothing outside `start` to `end` is sent, and no child is sent more than it allowed.
"""

from __future__ import annotations

from _collections import deque

LEAST, MOST = 120 << 10, 4 << 20  # bytes that a child lets its parent send ahead
DELAY = 0.025  # s that what was allowed may take longer than at best (or half as long again), before less is
PATIENCE = 0.5  # s that a node without room waits for a child that takes nothing, while others could go on


class _Child:
    def __init__(self, sent: int, allowed: int, since: float) -> None:
        self.sent = sent
        self.allowed = allowed
        self.since = since
        """When it was last sent anything."""


class Feed:
    def __init__(self, size: int, roomy: bool, end: int = 0) -> None:
        """`end`: so much is here from the start, for good."""
        self.size = size
        self.roomy = roomy
        self.start = 0
        self.end = end
        self._reached = end
        """How far it ever came."""
        self.window = LEAST
        self._asked: deque[tuple[int, float]] = deque()
        """(how far the parent may send, when that was said), of what is still to come."""
        self._best = float("inf")
        """s from saying so until the last of it was there, at least."""
        self._allowed = -1
        """How far the parent may send; less than nothing: it has not been told."""
        self._children: dict[int, _Child] = {}

    # Below.

    def want(self, child: int, offset: int, allowed: int, again: bool, now: float) -> None:
        """A child takes things up to `allowed`; `again`: it starts from `offset`, whatever it was sent.

        ValueError: that cannot be.
        """
        if not 0 <= offset <= allowed <= self.size:
            raise ValueError("a child wants %d to %d of %d bytes" % (offset, allowed, self.size))
        known = self._children.get(child)
        if known is None or again:
            self._children[child] = _Child(offset, allowed, now)
        else:
            known.allowed = max(known.allowed, allowed)

    def forget(self, child: int) -> None:
        self._children.pop(child, None)

    def children(self) -> list[int]:
        return list(self._children)

    def positions(self) -> list[int]:
        """How far each child has been sent it."""
        return [one.sent for one in self._children.values()]

    def next(self, child: int) -> int | None:
        """Where the block begins that is to be sent now; None when there is none, or it may not be sent yet."""
        one = self._children[child]
        return one.sent if self.start <= one.sent < min(self.end, one.allowed) else None

    def engaged(self, child: int, now: float) -> bool:
        """It was sent something a moment ago, and lacks more."""
        one = self._children[child]
        return one.sent < self.size and now - one.since < PATIENCE

    def sent(self, child: int, size: int, now: float) -> None:
        one = self._children[child]
        one.sent, one.since = one.sent + size, now

    # Above.

    def came(self, size: int, now: float) -> None:
        """The next block is here."""
        self.end += size
        while self._asked and self._asked[0][0] <= self.end:
            took = now - self._asked.popleft()[1]
            self._best = min(self._best, took)
            delay = max(DELAY, self._best / 2)
            if took > self._best + delay:
                self.window = max(LEAST, self.window * 3 // 4)
            elif took < self._best + delay / 2:
                self.window = min(MOST, self.window * 5 // 4)
        self._reached = max(self._reached, self.end)

    def renew(self) -> None:
        """The parent is a new one, or what it sent is of no use."""
        self._allowed = -1
        self._asked.clear()

    def restart(self, offset: int) -> None:
        """Nothing is kept; the stream is wanted from there."""
        self.start = self.end = offset
        self.renew()

    def demand(self, now: float) -> tuple[int, int, bool] | None:
        """(offset, allowed, again) to ask the parent for; None when that has been done."""
        floor = self._floor(now)
        if not self.roomy:
            self.start = max(self.start, floor)
        if self.end >= self.size:
            behind = [one.sent for one in self._children.values() if one.sent < self.start]
            if not behind or floor < self.size:
                return None
            self.restart(min(behind))
            floor = self.end
        # What came stays allowed: the window may have shrunk since, and without room it begins at the slowest child.
        allowed = min(self.size, max(self.end, (self.end if self.roomy else floor) + self.window))
        again = self._allowed < 0
        news = allowed - self._allowed
        if not again and (news <= 0 or (news < max(LEAST // 2, self.window // 4) and allowed < self.size)):
            return None
        allowed = self._allowed = max(allowed, self._allowed)
        self._asked.append((allowed, now))
        return self.end, allowed, again

    def _floor(self, now: float) -> int:
        """How far the slowest child is that is not behind, nor to be left behind now."""
        following = [one for one in self._children.values() if self.start <= one.sent <= self.end]
        if not self.roomy and 0 <= self._allowed <= self.end < self.size:  # nothing more may come, for their sake
            taking = [one for one in following if one.sent == self.end or now - one.since <= PATIENCE]
            if taking or self.end >= self._reached:  # someone is waiting, be it this node itself
                following = taking
        return min([one.sent for one in following], default=self.end)

    def due(self) -> float | None:
        """When `demand` is to be asked again though nothing happens."""
        if self.roomy or self.end >= self.size:
            return None
        since = [one.since for one in self._children.values() if self.start <= one.sent < self.end]
        return min(since) + PATIENCE + 0.01 if since else None
