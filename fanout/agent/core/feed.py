"""Which piece of a file goes to which child next.  Pure: offsets and sizes, no bytes.

A node passes on what it has while more is coming in, to each child at that child's own pace: a child says how far
it may be sent (`want`), and asks on as it takes things in, so a slow one holds up nobody and nothing is buffered
beyond its window.  After a new link it says what it has, and goes on from there.

Invariant, for each child: sent <= min(have, allowed), unless it asked again from an earlier point.
"""

from __future__ import annotations

WINDOW = 1 << 20  # bytes that a child lets its parent send ahead
PIECE = 32 << 10  # bytes of one message: urgent messages never wait longer than for this


class Feed:
    def __init__(self, size: int, have: int = 0) -> None:
        self.size = size
        self.have = have
        """Bytes that are here, from the start."""
        self._children: dict[int, tuple[int, int]] = {}

    def want(self, child: int, offset: int, allowed: int) -> None:
        """A child has `offset` bytes, or knows that they are on their way, and takes them up to `allowed`.

        ValueError: that cannot be.
        """
        if not 0 <= offset <= allowed <= self.size:
            raise ValueError("a child wants %d to %d of %d bytes" % (offset, allowed, self.size))
        self._children[child] = (offset, allowed)

    def more(self, child: int, allowed: int) -> None:
        """The child has taken things in."""
        sent, _ = self._children.get(child, (0, 0))
        self.want(child, min(sent, allowed), allowed)

    def forget(self, child: int) -> None:
        self._children.pop(child, None)

    def children(self) -> list[int]:
        return list(self._children)

    def next(self, child: int) -> tuple[int, int] | None:
        """(offset, size) of the piece to send now; None when there is none, or it may not be sent yet."""
        sent, allowed = self._children.get(child, (0, 0))
        size = min(PIECE, self.have - sent, allowed - sent)
        if size <= 0:
            return None
        self._children[child] = (sent + size, allowed)
        return sent, size
