"""Where files of one machine are put at the root: below one folder, whatever the machine calls them.

What always holds:
- no name leads out: not by `..`, not by an absolute path, not by a link, and not by a link that was there before;
- nothing that the machine sends replaces anything else that it sent, on file systems that ignore case too: the
  second of two names that clash gets a number;
- a file has its name only when it is complete and its hash is right.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from fanout.agent.core.parcels import Sum

NAME_MOST = 255  # bytes of one name, as file systems have it
PATH_MOST = 4000  # bytes of a path below the folder
DEPTH_MOST = 100  # folders in a path
SIZE_MOST = 1 << 42  # bytes that a file may claim to have, holes included

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFTS = itertools.count(1)

Place = tuple[bytes, ...]
"""Names from the top down."""


class Refused(Exception):
    """Something is not put there; the text says why."""


def parts(path: bytes) -> Place:
    """The names of a relative path that stays below where it begins.  Refused for every other."""
    names = tuple(path.split(b"/"))
    if not path or len(path) > PATH_MOST or len(names) > DEPTH_MOST:
        raise Refused("its path is empty, or too long")
    for name in names:
        if name in (b"", b".", b"..") or b"\0" in name or len(name) > NAME_MOST:
            raise Refused("its path leads out of the folder, or is none")
    return names


def stays_inside(depth: int, target: bytes) -> bool:
    """Whether a link, `depth` folders below the top, leads to a place below it, whatever other links there are.

    `..` may only come first: behind the name of another link it would lead up from wherever that one leads to.
    """
    if target.startswith(b"/") or b"\0" in target or not 0 < len(target) <= PATH_MOST:
        return False
    names = [name for name in target.split(b"/") if name not in (b"", b".")]
    up = 0
    while up < len(names) and names[up] == b"..":
        up += 1
    return up <= depth and b".." not in names[up:]


class Names:
    """The names that paths get here: the same for the same path, and never the same for two."""

    def __init__(self, *reserved: bytes) -> None:
        """`reserved`: names at the top that none gets."""
        self._given: dict[tuple[Place, bytes], bytes] = {}
        self._taken: set[tuple[Place, str]] = {((), _alike(name)) for name in reserved}
        self._folders: set[Place] = {()}
        self._others: set[Place] = set()

    def folder(self, path: bytes) -> Place:
        return self._folder(parts(path))

    def _folder(self, names: Place) -> Place:
        here: Place = ()
        for name in names:
            here = (*here, self._name(here, name))
            if here in self._others:
                raise Refused("its path leads through what is no folder")
            self._folders.add(here)
        return here

    def other(self, path: bytes) -> Place:
        """For a file or a link.  Refused when it was there before."""
        names = parts(path)
        above = self._folder(names[:-1])
        here = (*above, self._name(above, names[-1]))
        if here in self._others or here in self._folders:
            raise Refused("it was sent before")
        self._others.add(here)
        return here

    def _name(self, above: Place, name: bytes) -> bytes:
        found = self._given.get((above, name))
        if found is None:
            found, count = name, 1
            while (above, _alike(found)) in self._taken:
                count += 1
                found = name[: NAME_MOST - 12] + b"~%d" % count
            self._taken.add((above, _alike(found)))
            self._given[above, name] = found
        return found


def _alike(name: bytes) -> str:
    """Equal for names that some file system takes for the same."""
    text = name.decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


class Landing:
    """One machine's folder at the root.  OSError: it cannot be written; Refused: that one is not put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = f".fanout-{os.getpid()}-{next(_DRAFTS)}".encode()
        """What a file is called until it is complete; none of the machine is called so."""
        self._names = Names(self._file)
        self._top = -1
        self._links: list[tuple[Place, bytes]] = []
        self._last: tuple[Place, int] = ((), -1)
        """The folder that was reached last, open."""
        self._draft = -1
        self._place: Place = ()
        self._mode = self._size = self._next = 0
        self._sum = Sum(0)

    # Files.

    def open(self, path: bytes, mode: int, size: int) -> None:
        """Begin a file; the one before is complete or given up."""
        if size > SIZE_MOST:
            raise Refused(f"it claims to have {size} bytes")
        self._place = self._names.other(path)
        self._draft = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600,
                              dir_fd=self._open_top())
        self._mode, self._size, self._next = mode, size, 0
        self._sum = Sum(size)

    def write(self, offset: int, data: bytes) -> None:
        if self._draft < 0:
            raise Refused("data of no file")
        if offset < self._next or offset + len(data) > self._size:
            raise Refused("data beyond its size, or out of order")
        view = memoryview(data)
        while view:
            done = os.pwrite(self._draft, view, offset)
            offset, view = offset + done, view[done:]
        self._next = offset
        self._sum.add(offset - len(data), data)

    def shut(self, digest: bytes) -> Path:
        """The file is complete: it gets its name.  Refused when its hash is wrong."""
        if self._draft < 0:
            raise Refused("the end of no file")
        if self._sum.digest() != digest:
            raise Refused("it arrived damaged: its hash is wrong")
        os.ftruncate(self._draft, self._size)
        os.fchmod(self._draft, self._mode & 0o777 | 0o600)
        *above, name = self._place
        os.rename(self._file, name, src_dir_fd=self._top, dst_dir_fd=self._reach(tuple(above)))
        os.close(self._draft)
        self._draft = -1
        return self.path(self._place)

    def give_up(self) -> None:
        """What there is of the file under way goes."""
        if self._draft >= 0:
            os.close(self._draft)
            self._draft = -1
            with contextlib.suppress(OSError):
                os.unlink(self._file, dir_fd=self._top)

    # What else there is.

    def make(self, path: bytes) -> None:
        """A folder."""
        self._reach(self._names.folder(path))

    def link(self, path: bytes, target: bytes) -> None:
        """Links are made at the very end, so that nothing is ever written through one."""
        if not stays_inside(path.count(b"/"), target):
            raise Refused("it is a link that leads out")
        self._links.append((self._names.other(path), target))

    def links(self) -> Iterator[tuple[Path, str]]:
        """Make the links: where each is, and why not where it could not be made."""
        for place, target in self._links:
            *above, name = place
            problem = ""
            try:
                folder = self._reach(tuple(above))
                os.symlink(target, self._file, dir_fd=folder)
                os.rename(self._file, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                problem = error.strerror or str(error)
            yield self.path(place), problem
        self._links = []

    def close(self) -> None:
        """Idempotent; a file under way is given up."""
        self.give_up()
        for fd in (self._top, self._last[1]):
            if fd >= 0:
                os.close(fd)
        self._top, self._last = -1, ((), -1)

    def path(self, place: Place) -> Path:
        return self.folder.joinpath(*map(os.fsdecode, place))

    def _open_top(self) -> int:
        if self._top < 0:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._top = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._top

    def _reach(self, place: Place) -> int:
        """A folder below the top, made where it is not there; never by way of a link.  It stays open for a while."""
        if self._last[1] >= 0 and self._last[0] == place:
            return self._last[1]
        here = os.dup(self._open_top())
        for name in place:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=here)
            try:
                below = os.open(name, _FOLDER, dir_fd=here)
            finally:
                os.close(here)
            here = below
        if self._last[1] >= 0:
            os.close(self._last[1])
        self._last = place, here
        return here
