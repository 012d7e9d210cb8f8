"""A program that the agent starts: a command, a member function, or a process.

Each has a process group of its own.  Stopping is TERM, a grace period, KILL, for the whole group and
for what left it (double forks, new sessions): those are known by their ancestry and by FANOUT_PROCESS in their
environment.
"""

from __future__ import annotations

import _signal
import os
import time

from . import launch, proctree
from .loop import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .main import Agent

READ_SIZE = 64 << 10
DRAINED = 32  # reads after the exit: a pipe holds 1 MB at most; what others still write to it is not waited for
WATCH_STOP = 0.03  # s between looks at what is still there while stopping
KILLED_WAIT = 3.0  # s after KILL until a process counts as one that cannot be killed


def exit_code(status: int) -> int:
    """0 and up: exit code; below 0: the signal that ended it."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Program:
    """One program: how it starts, its input, and the way to stop it."""

    def __init__(self, agent: Agent, call: int, spec: dict[str, Any]) -> None:
        """KeyError, TypeError, ValueError: the spec makes no sense; nothing was started."""
        self.agent = agent
        self.call = call
        self.spec = spec
        fill = agent.fill
        self._argv = ["/bin/sh", "-c", fill(spec["shell"])] if "shell" in spec else [fill(w) for w in spec["argv"]]
        if not self._argv:
            raise ValueError("the command is empty")
        cwd = fill(spec.get("cwd") or "")
        self._cwd = os.path.join(agent.work, os.path.expanduser(cwd)) if cwd else agent.work
        self._stdin = b"" + (spec.get("stdin") or b"")
        mark = "%s/%d/%d" % (agent.identity["run"], agent.identity["id"], call)
        self._token = b"FANOUT_PROCESS=" + mark.encode()
        self._env = dict(agent.environment)
        for key, value in (spec.get("env") or {}).items():
            self._env[key] = fill(value)
        self._env["FANOUT_PROCESS"] = mark
        self._own_path = "PATH" in (spec.get("env") or {})
        self.pid: int | None = None
        """None: not running."""
        self._group = 0
        """Of the latest start."""
        self.stopping = False
        self._stdin_fd = -1
        self._stdin_data = b""
        self._stdin_close = False

    def launch(self, stdout: int, stderr: int) -> None:
        """OSError: it cannot be started."""
        self.agent.prepare()
        if not self._own_path:
            self._env["PATH"] = self.agent.environment["PATH"]
        stdin, self._stdin_fd = os.pipe()
        try:
            self.pid = self._group = launch.start(self._argv, self._env, self._cwd, stdin, stdout, stderr)
        except OSError:
            self._close_stdin()
            raise
        finally:
            os.close(stdin)
        self.agent.pids[self.pid] = self
        os.set_blocking(self._stdin_fd, False)

    def exited(self, status: int) -> None:
        raise NotImplementedError

    # Standard input.

    def write(self, data: bytes, close: bool) -> None:
        """ValueError when nothing can be written to it any more."""
        if self._stdin_fd < 0:
            raise ValueError("it is not running, or its input is closed")
        self._stdin_data += data
        self._stdin_close = self._stdin_close or close
        self._pump_stdin(0)

    def _pump_stdin(self, _: int) -> None:
        try:
            while self._stdin_data:
                self._stdin_data = self._stdin_data[os.write(self._stdin_fd, self._stdin_data[:READ_SIZE]) :]
        except BlockingIOError:
            self.agent.loop.watch(self._stdin_fd, WRITE, self._pump_stdin)
            return
        except OSError:  # it does not read any more
            self._stdin_data, self._stdin_close = b"", True
        self.agent.loop.forget(self._stdin_fd)
        if self._stdin_close:
            self._close_stdin()

    def _close_stdin(self) -> None:
        self._stdin_data, self._stdin_close = b"", False
        if self._stdin_fd >= 0:
            self.agent.loop.forget(self._stdin_fd)
            os.close(self._stdin_fd)
            self._stdin_fd = -1

    # Stopping.

    def members(self) -> list[int]:
        """The processes that belong to it now: its descendants, and those that carry its mark."""
        found = set()
        if self.pid is not None:
            found.add(self.pid)
            found.update(proctree.below(self.pid))
        for pid in self.agent.mine():
            if pid not in found and (pid == -self._group or proctree.has_environment(pid, self._token)):
                found.add(pid)
        return sorted(found)

    def signal(self, number: int) -> None:
        """To the whole group, and to what has left it."""
        members = self.members()
        if self.pid is not None:
            try:
                os.kill(-self.pid, number)
            except OSError:
                pass
        proctree.signal([pid for pid in members if not self._in_group(pid)], number)

    def _in_group(self, pid: int) -> bool:
        try:
            return self.pid is not None and os.getpgid(pid) == self.pid
        except OSError:
            return True  # gone

    def stop(self, grace: float, then: Callable[[str], None]) -> None:
        """TERM, KILL after `grace` seconds; `then` gets '' or what is still there."""
        self.stopping = True
        started = time.monotonic()
        self.signal(_signal.SIGTERM)
        self.signal(_signal.SIGCONT)  # one that is stopped could not act on TERM

        def look() -> None:
            members = self.members()
            waited = time.monotonic() - started
            if not members:
                then("")
            elif waited > grace + KILLED_WAIT:
                then("cannot be killed: process %s" % ", ".join(map(str, members[:5])))
            else:
                if waited > grace:
                    self.signal(_signal.SIGKILL)
                self.agent.loop.after(WATCH_STOP, look)

        look()
