"""Unix sockets by the path of their folder: that may be longer than the 107 bytes that a socket's own path has."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A new socket that only this user reaches.  OSError where it cannot be made."""
    found = _by_folder(path, lambda made, name: made.bind(name))
    try:
        path.chmod(0o600)
        found.listen()
    except OSError:
        found.close()
        raise
    return found


def connect(path: Path) -> socket.socket:
    """OSError: nobody is there."""
    return _by_folder(path, lambda made, name: made.connect(name))


def _by_folder(path: Path, use: Callable[[socket.socket, str], None]) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        use(made, short if Path("/proc/self/fd").is_dir() else str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.close(folder)
    return made
