"""What a machine keeps of what was shipped to it, for the next run: a private folder, by digest, the oldest go first.

A blob is as it came, block by block with their checks, so it is served to children and put in place like what
comes from a parent, and one that was damaged meanwhile is noticed.  The folder is used only if it is a real folder
of this user that nobody else may enter.
"""

from __future__ import annotations

import os
import stat
import time

MOST = 2 << 30  # bytes of all blobs on disk
SHARE = 4  # a blob is kept where it takes at most 1 / SHARE of what is free
PART = "part-"
STALE = 86400.0  # s after which a part whose agent did not end well is removed


def folder() -> str | None:
    """The folder, made when it is missing; None: there is none that can be trusted."""
    home = os.path.expanduser("~")
    if home != "~" and os.path.isdir(home) and os.access(home, os.W_OK):
        path = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "fanout", "blobs")
    else:
        path = "/var/tmp/fanout-%d/blobs" % os.geteuid()
    try:
        for part in (os.path.dirname(path), path):
            os.makedirs(part, 0o700, exist_ok=True)
            state = os.lstat(part)
            mine = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
            if not mine or state.st_mode & (0o077 if part == path else 0o022):
                return None
    except OSError:
        return None
    return path


def open_blob(path: str) -> int:
    """The file of a blob that is there; it is the newest now.  OSError when there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.utime(fd)
    return fd


def drop(fd: int, path: str) -> None:
    """The blob that is open is of no use; one that another agent has put in its place since stays."""
    try:
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            os.unlink(path)
    except OSError:
        pass  # another agent was faster


def room(path: str) -> int:
    """Bytes that are free to this user on the file system of a folder."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def keep(part: str, path: str) -> None:
    """A part is whole: it gets its name, and the oldest go until all are MOST at most."""
    try:
        os.rename(part, path)
        names = os.listdir(os.path.dirname(path))
    except OSError:
        return
    found = []
    for name in names:
        one = os.path.join(os.path.dirname(path), name)
        try:
            state = os.lstat(one)
            if not name.startswith(PART):
                found.append((state.st_mtime, state.st_blocks * 512, one))
            elif time.time() - state.st_mtime > STALE:
                os.unlink(one)
        except OSError:
            pass  # another agent of this user was faster
    total = sum(size for _, size, _ in found)
    for _, size, one in sorted(found):
        if total <= MOST or one == path:
            break
        total -= size
        try:
            os.unlink(one)
        except OSError:
            pass
