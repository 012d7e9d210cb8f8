"""Open files: what a tree needs of them at its root, and the right to them.

The limit in force is 1024 on Linux as a rule, and 256 on macOS; a process may raise its own, up to one far above.
"""

from __future__ import annotations

import contextlib
import resource

SPARE = 128  # descriptors that the root needs beside its connections
EACH = 4  # ... and for each machine: a local agent takes three pipes


def needed(machines: int) -> int:
    """As if the root reached all of them itself: that is the most that it may come to when relays are lost."""
    return SPARE + EACH * machines


def possible() -> int:
    """How far this process may raise its limit; resource.RLIM_INFINITY: as far as it likes."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def allow(machines: int) -> None:
    """Raise the limit to what so many machines need, as far as that is allowed."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed(machines) if most == resource.RLIM_INFINITY else min(needed(machines), most)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a further limit, of the kernel's own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
