"""The logs of processes, for the end of a run: each as one file, its end where there is no room for all of it.

Beside NAME.log, NAME.times tells when what follows from which byte on was printed, as the root's own does.
"""

from __future__ import annotations

from .core.parcels import DATA, END, LEFT, OPEN, PIECE, SHUT, WHOLE, Sum, whole_sum
from .following import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .spool import Spool


class Collected:
    def __init__(self, logs: Iterable[tuple[str, Spool]], cap: int, epoch: float) -> None:
        """`cap`: bytes of all of them together; `epoch`: what turns our clock into the root's time of day."""
        self._epoch = epoch
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
            yield [OPEN, name, 0o600, size, size]
            digest = Sum(size)
            at, begin, note = 0, spool.total - size, ""
            while at < size:
                try:
                    data = read(spool, begin + at, min(PIECE, size - at))
                except OSError as error:
                    note = error.strerror or str(error)
                    break
                if not data:
                    break
                digest.add(at, data)
                yield [DATA, at, data]
                at += len(data)
                self.left -= len(data)
            yield [SHUT, b"" if note else digest.digest(), note]
            times = "".join(["%d %.3f\n" % (max(0, offset - begin), when + self._epoch)
                             for offset, when in spool.marks]).encode()
            yield [WHOLE, name[:-4] + b".times", 0o600, times, whole_sum(times)]
        yield [END]
