"""A child says nothing: is it gone, or has its agent no share of its machine's CPUs?

The kernel there acknowledges what comes without waiting for any program, and the one here knows of it (proc(5),
/proc/net/tcp).  What the agent itself waits for, the machine is asked.
"""

from __future__ import annotations

import os
import time

from . import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Agent

ESTABLISHED = "01"
STATE, RETRANSMITTED, INODE = 3, 6, 9
"""Columns of /proc/net/tcp."""


def standing() -> dict[str, int]:
    """By inode, of each TCP connection that stands: how often what was sent last had to be sent again.

    Empty where nobody knows.
    """
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            with open("/proc/self/net/%s" % name) as file:
                rows = [line.split() for line in file]
            found.update({row[INODE]: int(row[RETRANSMITTED], 16) for row in rows if row[STATE] == ESTABLISHED})
        except (OSError, ValueError, IndexError):
            pass
    return found


def acknowledges(pid: int, connections: dict[str, int]) -> bool:
    """One of these is the process's, and nothing on it had to be sent again."""
    folder = "/proc/%d/fd" % pid
    again = []
    try:
        for fd in os.listdir(folder):
            inode = os.readlink(os.path.join(folder, fd))[8:-1]  # socket:[INODE]
            again += [connections[inode]] if inode in connections else []
    except OSError:  # the process is gone, or closes something
        pass
    return bool(again) and not any(again)


def asking(pid: int) -> str:
    """The command that succeeds where a process runs, or waits for a CPU or a disk."""
    return "grep -q '^State:.[RD]' /proc/%d/status" % pid


class Probe:
    """Asks it of a machine, by a connection of its own."""

    def __init__(self, agent: Agent, argv: list[str]) -> None:
        """`argv`: ends by itself in bounded time."""
        self.starved = self.over = False
        self.since = time.monotonic()
        try:
            pid = launch.silent(argv, agent.own_environment)
        except OSError:
            self.over = True
            return
        agent.pids[pid] = self

    def exited(self, status: int) -> None:
        self.starved, self.over = status == 0, True
