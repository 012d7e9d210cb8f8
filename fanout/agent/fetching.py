"""Reads what a pattern names, for `fetch`: files, folders with all below them, links.

Nothing here is read at once that could be large, and nothing is silent: what is not brought is named, with the
reason.  A generator gives [] after each folder looked at, so that the agent lives while it searches.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import sys

from .core.parcels import DATA, END, FOLDER, LEFT, LINK, OPEN, PIECE, SHUT, WHOLE, Sum, whole_sum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Entry = list[Any]

DEPTH = 90  # folders below each other
LOOKED = 500  # names looked at in one folder before all else gets its turn


def magic(name: bytes) -> bool:
    return any(sign in name for sign in (b"*", b"?", b"["))


def names(pattern: bytes) -> list[bytes]:
    return [name for name in pattern.split(b"/") if name not in (b"", b".")]


class Reader:
    def __init__(self, work: str, pattern: str, cap: int) -> None:
        """`pattern` names what is to be read, from `work` on; `cap`: bytes of it.  ValueError: it names no file."""
        pattern = os.path.expanduser(pattern)
        self._base = b"/" if pattern.startswith("/") else os.fsencode(work)
        self._parts = names(os.fsencode(pattern))
        if not self._parts:
            raise ValueError("the pattern names no file")
        self._room = cap
        self._beyond = "it is beyond the cap of this machine"

    def full(self) -> None:
        """The root has no room for more: from now on, what there is is only counted."""
        self._room, self._beyond = 0, "it is beyond the cap of all machines together"

    def entries(self) -> Iterator[Entry]:
        parts = self._parts
        fixed = 0
        while fixed < len(parts) - 1 and not magic(parts[fixed]):
            fixed += 1
        top = os.path.join(self._base, *parts[:fixed])
        rest = parts[fixed:]
        deep = b"**" in rest
        if rest[-1] == b"**":  # all that is below, whole folders
            rest, deep = [*rest[:-1], b"*"], b"**" in rest[:-1]
        for found in self._matches(top, b"", rest):
            if isinstance(found, bytes):
                yield from self._match(os.path.join(top, found), found, deep)
            else:
                yield found
        yield [END]

    def _matches(self, top: bytes, below: bytes, rest: list[bytes]) -> Iterator[bytes | Entry]:
        """What the pattern names below `top`, as paths below it; and what cannot be looked into."""
        name, *more = rest
        here = os.path.join(top, below)
        if not magic(name):
            found = os.path.join(below, name)
            if more:
                yield from self._matches(top, found, more)
            elif os.path.lexists(os.path.join(top, found)):
                yield found
            return
        if name == b"**":
            yield from self._matches(top, below, more)
        try:
            for entry in _listed(here):
                if entry is None:
                    yield []
                elif entry.name.startswith(b".") and not name.startswith(b"."):
                    pass
                elif name == b"**":
                    if below.count(b"/") < DEPTH and entry.is_dir(follow_symlinks=False):
                        yield from self._matches(top, os.path.join(below, entry.name), rest)
                elif fnmatch.fnmatchcase(entry.name, name):
                    if not more:
                        yield os.path.join(below, entry.name)
                    elif entry.is_dir():
                        yield from self._matches(top, os.path.join(below, entry.name), more)
        except PermissionError as error:
            yield [LEFT, below or here, error.strerror, 0]
        except OSError:  # it is no folder, or gone: there is nothing in it
            pass

    def _match(self, path: bytes, name: bytes, deep: bool) -> Iterator[Entry]:
        """A link that the pattern names is followed; those below a folder stay links."""
        try:
            path = os.path.realpath(path)
            if not stat.S_ISDIR(os.stat(path).st_mode):
                yield from self._file(path, name)
            elif not deep:
                yield from self._folder(path, name)
        except OSError as error:
            yield [LEFT, name, error.strerror or str(error), 0]

    def _folder(self, path: bytes, name: bytes) -> Iterator[Entry]:
        yield [FOLDER, name, stat.S_IMODE(os.stat(path).st_mode)]
        try:
            for entry in _listed(path):
                if entry is None:
                    yield []
                    continue
                below = os.path.join(name, entry.name)
                try:
                    if entry.is_symlink():
                        yield [LINK, below, os.readlink(entry.path)]
                    elif not entry.is_dir(follow_symlinks=False):
                        yield from self._file(entry.path, below)
                    elif below.count(b"/") < DEPTH:
                        yield from self._folder(entry.path, below)
                    else:
                        yield [LEFT, below, "it is more than %d folders deep" % DEPTH, 0]
                except OSError as error:
                    yield [LEFT, below, error.strerror or str(error), 0]
        except OSError as error:
            yield [LEFT, name, error.strerror or str(error), 0]

    def _file(self, path: bytes, name: bytes) -> Iterator[Entry]:
        """OSError: it cannot be opened."""
        kind = _special(os.lstat(path).st_mode)
        if kind:  # before it is opened: that alone can do something
            yield [LEFT, name, "it is %s" % kind, 0]
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            yield from self._read(fd, name)
        finally:
            os.close(fd)

    def _read(self, fd: int, name: bytes) -> Iterator[Entry]:
        state = os.fstat(fd)
        kind = _special(state.st_mode)
        size = state.st_size
        mode = stat.S_IMODE(state.st_mode)
        expected = min(size, state.st_blocks * 512)
        if kind:
            yield [LEFT, name, "it is %s" % kind, 0]
        elif expected > self._room:
            yield [LEFT, name, self._beyond, expected]
        elif size <= PIECE:
            # One more than it has: files of /proc say that they have none.
            data = os.pread(fd, PIECE, 0)[: size or PIECE]
            self._room = max(0, self._room - len(data))
            yield [WHOLE, name, mode, data, whole_sum(data)]
        else:
            yield [OPEN, name, mode, size, expected]
            self._room -= expected
            digest = Sum(size)
            note = ""
            holes = expected < size and sys.platform == "linux"  # APFS has told of holes where data was
            reading = _extents(fd, size) if holes else _pieces(fd, 0, size)
            while True:
                try:
                    piece = next(reading, None)
                except OSError as error:
                    note = error.strerror or str(error)
                    break
                if piece is None:
                    break
                offset, data = piece
                if not data:
                    yield []
                    continue
                if len(data) > expected + self._room:  # it holds more than the file system said
                    note = self._beyond
                    break
                self._room -= max(0, len(data) - expected)
                expected = max(0, expected - len(data))
                digest.add(offset, data)
                yield [DATA, offset, data]
            if note:
                yield [SHUT, b"", note]
                return
            after = os.fstat(fd)
            changed = (after.st_mtime_ns, after.st_size) != (state.st_mtime_ns, size) and after.st_size <= size
            yield [SHUT, digest.digest(), "it was written to while it was read" if changed else ""]


def _special(mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISLNK, "a link"))
    return next((kind for test, kind in kinds if test(mode)), "a device")


def _listed(path: bytes) -> Iterator[Any]:
    """The entries of a folder, and a None now and then."""
    with os.scandir(path) as entries:
        for count, entry in enumerate(entries, 1):
            yield entry
            if count % LOOKED == 0:
                yield None
    yield None


def _pieces(fd: int, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, data); no data where there are only zeros."""
    while at < end:
        data = os.pread(fd, min(PIECE, end - at), at)
        if not data:
            return
        yield at, b"" if data.count(0) == len(data) else data
        at += len(data)


def _extents(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """... where the file system knows what holds data."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == 6:  # ENXIO: nothing but a hole from here on
                return
            end = size
        yield from _pieces(fd, at, end)
        at = max(end, at + 1)
