"""What was shipped, put in place as it comes: written beside, and renamed when all of it is there and right.

Nothing is ever written outside of the place: names that are absolute, that contain `..` or that go through a link
are refused, and links that lead out, though the root has made them all.
"""

from __future__ import annotations

import os
import time

from .core.blocks import ENTRY, FILE, FOLDER, LINK
from .ending import remove


def leads_out(name: bytes, link: bytes) -> bool:
    """Whether the link of this name in a folder points to what is not in it."""
    leads = os.path.normpath(os.path.join(os.path.dirname(name), link))
    return leads.startswith(b"/") or leads.split(b"/")[0] == b".."


class Unpacker:
    """`feed` and `work`, or `skip`, until the stream is through, then `finish`; or `abort`."""

    def __init__(self, to: str, mode: int, mark: str) -> None:
        """`mode`: that of a single file; `mark` makes the name beside its own.  OSError."""
        self.to = to
        self._mode = mode
        parent = os.path.dirname(to) or "."
        try:
            os.makedirs(parent, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            while parent and not os.path.lexists(parent):
                parent = os.path.dirname(parent)
            raise NotADirectoryError(error.errno, "%s is not a folder" % parent) from None
        self._beside = os.path.join(parent, ".fanout-%s" % mark)
        self._rest = b""
        self._done = 0
        """What was fed, and how much of it is written."""
        self._fd = -1
        self._at = 0
        self._size = 0
        """Of the file that is being written: how far, and how large it will be."""
        self._folders: dict[bytes, int] = {}
        self._now = 0

    def feed(self, data: bytes) -> None:
        """The next of the stream; `work` writes it."""
        self._rest = self._rest[self._done :] + data if self._done < len(self._rest) else data
        self._done = 0

    def work(self, seconds: float) -> bool:
        """Write what was fed; False when that takes longer, and there is more to do.

        OSError: it cannot be written.  ValueError: it must not be.
        """
        data, until = self._rest, time.monotonic() + seconds
        while self._done < len(data):
            if self._fd >= 0:
                piece = data[self._done : self._done + self._size - self._at]
                written = 0
                while written < len(piece):
                    written += os.pwrite(self._fd, piece[written:] if written else piece, self._at + written)
                self._at += len(piece)
                self._done += len(piece)
                self._close_full()
            elif not self._entry(data):
                break
            if time.monotonic() > until:
                return self._done >= len(data)
        return True

    def _entry(self, data: bytes) -> bool:
        """Begin with the next entry; False when it is not there in full."""
        start = self._done + ENTRY.size
        if start > len(data):
            return False
        kind, mode, size, name_size, link_size = ENTRY.unpack_from(data, self._done)
        end = start + name_size + link_size
        if end >= len(data):
            return False
        self._begin(kind, data[start : start + name_size], mode, size, data[start + name_size : end])
        self._done = end + 1
        return True

    def skip(self, size: int) -> None:
        """So many zeros: a hole.  All that was fed before is written."""
        while size:
            if self._fd < 0:
                raise ValueError("zeros where no file is")
            step = min(size, self._size - self._at)
            self._at += step
            size -= step
            self._close_full()

    def _begin(self, kind: int, name: bytes, mode: int, size: int, link: bytes) -> None:
        path = os.fsencode(self._beside)
        if name:
            parts = name.split(b"/")
            if b"" in parts or b"." in parts or b".." in parts or os.path.dirname(name) not in self._folders:
                raise ValueError("%r leads out of the folder" % name)
            path = os.path.join(path, name)
        elif kind == FOLDER:
            self._remove(self._beside)
        if kind == FOLDER:
            os.mkdir(path, 0o700)
            self._folders[name] = mode
        elif kind == LINK:
            if not name or leads_out(name, link):
                raise ValueError("the link %r leads out of the folder" % name)
            os.symlink(link, path)
        elif kind == FILE:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            self._at, self._size, self._now = 0, size, mode if name else self._mode
            self._close_full()
        else:
            raise ValueError("%r is no file, folder or link" % name)

    def _close_full(self) -> None:
        if self._at >= self._size:
            os.ftruncate(self._fd, self._size)  # a hole may be last
            os.fchmod(self._fd, self._now & 0o777)
            os.close(self._fd)
            self._fd = -1

    def finish(self) -> None:
        """All of it came, and it is right: let it be seen."""
        if self._fd >= 0 or self._done < len(self._rest):
            raise ValueError("it ends in the middle of a file")
        for name, mode in reversed(list(self._folders.items())):
            os.chmod(os.path.join(os.fsencode(self._beside), name), mode & 0o777)
        old = ""
        if self._folders and os.path.isdir(self.to) and not os.path.islink(self.to):
            old = self._beside + "-old"
            os.rename(self.to, old)
        try:
            os.rename(self._beside, self.to)
        except OSError:
            if old:
                os.rename(old, self.to)
            raise
        if old:
            remove(old)

    def abort(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._remove(self._beside)

    def _remove(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            remove(path)
        else:
            try:
                os.unlink(path)
            except OSError:
                pass
