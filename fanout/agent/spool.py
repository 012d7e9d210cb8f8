"""The output of one process in files on the machine, with a size cap: the oldest is rotated out, and counted.

Two files, each up to half the cap: `NAME.log` and, before it, `NAME.log.0`.
Invariant: total == dropped + what is in the two files.
"""

from __future__ import annotations

import os

MARKS = 2000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Spool:
    def __init__(self, path: str, cap: int) -> None:
        self.path = path
        self._half = max(1, cap // 2)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0
        self.older = 0
        """Bytes in the older file."""
        self.total = 0
        self.dropped = 0
        self.marks: list[tuple[int, float]] = []
        """(bytes written before, when): when what follows was written, in ever longer steps."""
        self._apart = 0.01  # s
        self._next_mark = 0.0

    def write(self, data: bytes, now: float) -> None:
        """OSError when the disk is full: what was not written is counted as dropped."""
        if now >= self._next_mark:
            if len(self.marks) >= MARKS:
                del self.marks[::2]
                self._apart *= 2
            self.marks.append((self.total, now))
            self._next_mark = now + self._apart
        self.total += len(data)
        while data:
            try:
                if self._size >= self._half:
                    self._rotate()
                piece = data[: self._half - self._size]
                written = os.write(self._fd, piece)
            except OSError:
                self.dropped += len(data)
                raise
            self._size += written
            data = data[written:]

    def _rotate(self) -> None:
        os.rename(self.path, self.path + ".0")
        self.dropped += self.older
        self.older, self._size = self._size, 0
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.close(self._fd)  # only now: after a failure there must still be a file of ours behind the number
        self._fd = fd

    def read(self) -> Iterator[bytes]:
        """All that is kept, oldest first, in pieces."""
        for path in (self.path + ".0", self.path):
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                while True:
                    piece = os.read(fd, 64 << 10)
                    if not piece:
                        break
                    yield piece
            finally:
                os.close(fd)

    def tail(self, most: int) -> bytes:
        """The last `most` bytes."""
        end = b""
        for piece in self.read():
            end = (end + piece)[-most:]
        return end

    def close(self) -> None:
        os.close(self._fd)
