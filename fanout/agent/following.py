"""A process's log as it grows, for those who look: read from its file on the machine, so that the process never waits.

What is rotated out before the way up had room for it is counted, and said.
"""

from __future__ import annotations

import os

from .core.parcels import PIECE, SKIPPED, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .process import Process
    from .spool import Spool


def follow(process: Process | None, tail: int) -> Iterator[list[Any] | None]:
    """The last `tail` bytes, from the begin of a line, and what comes.  ValueError: nothing is kept of it here."""
    if process is None:
        raise ValueError("it does not run here")
    spool = process.spool
    if spool is None:
        raise ValueError("nothing is kept of what it prints (logs='none'), or it was never started")
    return _follow(spool, tail)


def _follow(spool: Spool, tail: int) -> Iterator[list[Any] | None]:
    at = max(spool.dropped, spool.total - tail)
    if at > spool.dropped:
        begun = read(spool, at - 1, PIECE)
        at += begun.find(b"\n") if b"\n" in begun else 0
    while True:
        if at < spool.dropped:
            yield [SKIPPED, spool.dropped - at]
            at = spool.dropped
        data = read(spool, at, PIECE) if at < spool.total else b""
        at += len(data)
        yield [TEXT, data] if data else None


def read(spool: Spool, offset: int, size: int) -> bytes:
    """What was written from that byte on, as far as it is in one of the two files."""
    at = offset - spool.dropped
    path = spool.path
    if at < spool.older:
        path += ".0"
    else:
        at -= spool.older
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, at)
    finally:
        os.close(fd)
