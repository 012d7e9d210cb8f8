"""A program dies when the agent does, however the agent dies.

The kernel can signal whoever owns a descriptor when something happens to it (fcntl(2): F_SETOWN, F_SETSIG, O_ASYNC).
A pipe of which the agent alone has both ends is closed by nothing but the agent's death; whichever end goes first,
the other one's owner gets the signal: the program's process group, SIGKILL.  Unlike a parent-death signal it needs
nothing of the child between fork and exec, so that programs are started by `posix_spawn`, which costs a third.
"""

from __future__ import annotations

import _signal
import fcntl
import os

ABLE = hasattr(fcntl, "F_SETSIG")
"""Linux has it; elsewhere programs are ended by whoever comes next."""


class Leash:
    """Made before the program, so that it cannot fail for want of descriptors when there is one."""

    def __init__(self) -> None:
        """OSError: no descriptors are left."""
        self._ends = os.pipe() if ABLE else ()
        for fd in self._ends:
            fcntl.fcntl(fd, fcntl.F_SETSIG, _signal.SIGKILL)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.FASYNC)

    def hold(self, group: int) -> None:
        for fd in self._ends:
            fcntl.fcntl(fd, fcntl.F_SETOWN, -group)

    def let_go(self) -> None:
        """The program has ended, or never began; what it has left in its group is spared."""
        for fd in self._ends:
            fcntl.fcntl(fd, fcntl.F_SETOWN, 0)
        for fd in self._ends:
            os.close(fd)
