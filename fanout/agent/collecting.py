"""The logs of processes, for the end of a run: each as one file, its end where there is no room for all of it."""

from __future__ import annotations

from .core.parcels import DATA, END, LEFT, OPEN, PIECE, SHUT, Sum
from .following import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .spool import Spool


class Collected:
    def __init__(self, logs: Iterable[tuple[str, Spool]], cap: int) -> None:
        """`cap`: bytes of all of them together."""
        self.left = 0
        """Bytes that have not been read yet."""
        self._logs = []
        for name, spool in logs:
            kept = spool.total - spool.dropped
            size = min(cap, kept)
            cap -= size
            self.left += size
            self._logs.append((name.encode("utf-8", "surrogateescape"), spool, kept, size))

    def entries(self) -> Iterator[list[Any] | None]:
        for name, spool, kept, size in self._logs:
            if size < kept:
                yield [LEFT, name, "its begin is beyond the cap of this machine", kept - size]
            yield [OPEN, name, 0o600, size]
            digest = Sum(size)
            at, begin = 0, spool.total - size
            while at < size:
                data = read(spool, begin + at, min(PIECE, size - at))
                if not data:
                    break
                digest.add(at, data)
                yield [DATA, at, data]
                at += len(data)
                self.left -= len(data)
            yield [SHUT, digest.digest(), ""]
        yield [END]
