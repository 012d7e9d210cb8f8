"""A child says nothing: is it gone, or has its agent no share of its machine's CPUs?

The kernel there acknowledges what comes without waiting for any program, and the one here knows of it (proc(5),
/proc/net/tcp).  What the agent itself waits for, the machine is asked.
"""

from __future__ import annotations

import os
import time

from . import launch
from .core.diagnose import wants_to_run
from .loop import READ, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ESTABLISHED = "01"
STATE, RETRANSMITTED, INODE = 3, 6, 9
"""Columns of /proc/net/tcp."""
FRESH = 0.4  # s that they are good for
ANSWER = 4 << 10  # bytes that are read at once: more than the line has
PROBING = 10.0  # s for an answer; the child's patience ends first


_table: tuple[float, dict[str, int]] = (0.0, {})


def acknowledges(pid: int) -> bool:
    """This process has a TCP connection, on which nothing had to be sent again.  False where nobody knows."""
    try:
        own = _sockets(pid)
        again = [times for inode, times in _connections().items() if inode in own]
    except (OSError, ValueError, IndexError):
        return False
    return bool(again) and not any(again)


def _connections() -> dict[str, int]:
    """By inode, how often what was sent last had to be sent again.  Read once for many: a relay has long tables."""
    global _table
    now = time.monotonic()
    if now - _table[0] > FRESH:
        found: dict[str, int] = {}
        for name in ("tcp", "tcp6"):
            with open("/proc/self/net/%s" % name) as file:
                lines = [line.split() for line in file]
            stand = (words for words in lines if words[STATE] == ESTABLISHED)
            found.update((words[INODE], int(words[RETRANSMITTED], 16)) for words in stand)
        _table = (now, found)
    return _table[1]


def _sockets(pid: int) -> set[str]:
    """The inodes of its sockets."""
    found = set()
    folder = "/proc/%d/fd" % pid
    for fd in os.listdir(folder):
        try:
            to = os.readlink(os.path.join(folder, fd))
        except OSError:  # closed since
            continue
        if to.startswith("socket:["):
            found.add(to[8:-1])
    return found


def starved_here(pid: int) -> bool:
    """A process of this machine waits for a CPU, or for a disk."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return wants_to_run(file.read())
    except (OSError, ValueError):
        return False


class Probe:
    """The same of a process of another machine, by a connection of its own."""

    def __init__(self, agent: Any, argv: list[str]) -> None:
        self.over = False
        self._agent = agent
        self._said = b""
        null = os.open(os.devnull, os.O_RDWR)
        self._fd, out = os.pipe()
        os.set_blocking(self._fd, False)
        try:
            self._pid = launch.start(argv, agent.own_environment, None, null, out, null)
        except OSError:
            os.close(self._fd)
            self.over = True
            return
        finally:
            os.close(null)
            os.close(out)
        agent.pids[self._pid] = self
        agent.loop.watch(self._fd, READ, self._readable)
        self._timer = agent.loop.after(PROBING, self._give_up)

    @property
    def starved(self) -> bool:
        """To be asked once it is over."""
        return wants_to_run(self._said.decode("utf-8", "replace"))

    def _readable(self, _: int) -> None:
        data = read(self._fd, ANSWER)
        if data is not None:
            self._said = (self._said + data)[-ANSWER:]
            if not data:
                self._agent.loop.forget(self._fd)

    def _give_up(self) -> None:
        try:
            os.kill(self._pid, 9)
        except OSError:
            pass

    def exited(self, _: int) -> None:
        self._readable(0)
        self._agent.loop.forget(self._fd)
        os.close(self._fd)
        self._timer.cancel()
        self.over = True
