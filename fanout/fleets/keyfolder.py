"""Folders for the keys of one run: below $TMPDIR, private, and gone with the run, also when its process was killed.

Each is locked by its owner for as long as that lives; the kernel drops the lock of a process that is killed.  Whoever
makes the next one removes those that nobody has locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


class KeyFolder:
    def __init__(self, prefix: str) -> None:
        """Private, empty and locked; what others of this prefix have left is removed."""
        sweep(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))  # 0700
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


def sweep(prefix: str) -> int:
    """Remove this user's folders whose owner is gone; how many that were."""
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # An empty one may be about to be locked.
                if os.fstat(fd).st_uid == os.getuid() and any(path.iterdir()):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                    removed += 1
            finally:
                os.close(fd)
    return removed
