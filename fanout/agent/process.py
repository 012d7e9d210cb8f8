"""What runs on this machine: commands, whose output is captured, and long-lived processes.

Each has a session and process group of its own.  Stopping is TERM, a grace period, KILL, for the whole group and
for what left it (double forks, new sessions): those are known by their ancestry and by FANOUT_PROCESS in their
environment.
"""

from __future__ import annotations

import _signal
import os
import time

from . import launch, proctree
from .core import codec, frames
from .core.lines import Lines, LogPolicy, groups, text
from .core.node import CAPTURE_MOST, DONE, EXITED, INSTANT, MATCHED, READY, STARTED
from .loop import READ, WRITE, read
from .spool import Spool
from .triggers import Triggers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .loop import Timer
    from .main import Agent

READ_SIZE = 64 << 10
RECORD_SIZE = 16 << 10  # bytes of log in one record
GATHER = 0.01  # s that output rests in its pipe after a small read: a program that prints line by line must not
GATHER_BELOW = 16 << 10  # bytes ... cost a record, and two frames of ssh, a line
WATCH_STOP = 0.03  # s between looks at what is still there while stopping
KILLED_WAIT = 3.0  # s after KILL until a process counts as one that cannot be killed
DRAINED = 32  # reads after the exit: a pipe holds 1 MB at most; what others still write to it is not waited for
TAIL = 2 << 10  # bytes of output told with an exit that failed
CAPTURE = 1 << 20  # bytes of each stream that a command's result holds, unless told otherwise
CLOCK_WAIT = 5.0  # s that a start at an instant waits until the clock is known
CLOCK_LOOK = 0.05  # s between looks at whether it is
AWAKE = 0.003  # s before an instant from which on it is waited for by a finer clock than that of `poll`


def exit_code(status: int) -> int:
    """0 and up: exit code; below 0: the signal that ended it."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Child:
    """One program that was started: its pipes, its exit, and the way to stop it."""

    def __init__(self, agent: Agent, call: int, spec: dict[str, Any]) -> None:
        """KeyError, TypeError, ValueError: the spec makes no sense; nothing was started."""
        self.agent = agent
        self.call = call
        self.spec = spec
        fill = agent.fill
        self._argv = ["/bin/sh", "-c", fill(spec["shell"])] if "shell" in spec else [fill(w) for w in spec["argv"]]
        if not self._argv:
            raise ValueError("the command is empty")
        self._cwd = fill(spec.get("cwd") or "") or agent.work
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
            self.pid = launch.start(self._argv, self._env, self._cwd, stdin, stdout, stderr)
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
            if pid not in found and proctree.has_environment(pid, self._token):
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


class Command(Child):
    """`run`: one result, with its output up to a cap."""

    def __init__(self, agent: Agent, call: int, spec: dict[str, Any]) -> None:
        super().__init__(agent, call, spec)
        self._cap = min(spec.get("capture", CAPTURE), CAPTURE_MOST)
        self._limit = float(spec.get("timeout") or 0.0)
        self._output = [b"", b""]
        self._sizes = [0, 0]
        self._fds: list[int] = []
        self._status: int | None = None
        self._timer: Timer | None = None
        self._timed_out = False

    def begin(self) -> None:
        pipes: list[tuple[int, int]] = []
        try:
            pipes.append(os.pipe())
            pipes.append(os.pipe())
            self.launch(pipes[0][1], pipes[1][1])
        except OSError as error:
            for read, _ in pipes:
                os.close(read)
            what = "fanout: cannot start %s: %s\n" % (error.filename or "it", error.strerror)
            code = 127 if isinstance(error, FileNotFoundError) else 126
            self.agent.emit(self.call, DONE, ["failed", code, b"", what.encode(), 0])
            return
        finally:
            for _, write in pipes:
                os.close(write)
        for which, (read, _) in enumerate(pipes):
            os.set_blocking(read, False)
            self._fds.append(read)
            self.agent.loop.watch(read, READ, self._reader(which, read))
        self.write(self._stdin, True)
        if self._limit:
            self._timer = self.agent.loop.after(self._limit, self._overdue)

    def _reader(self, which: int, fd: int) -> Callable[[int], None]:
        def read(_: int) -> None:
            self._read(which, fd)

        return read

    def _read(self, which: int, fd: int) -> bool:
        """True: there may be more at once."""
        data = read(fd, READ_SIZE)
        if data is None:
            return False
        if not data:
            self.agent.loop.forget(fd)
            return False
        self._sizes[which] += len(data)
        room = self._cap - len(self._output[which])
        if room > 0:
            self._output[which] += data[:room]
        return True

    def _overdue(self) -> None:
        self._timed_out = True
        self.stop(0.5, lambda _: None)

    def exited(self, status: int) -> None:
        self.pid = None
        if self._timer is not None:
            self._timer.cancel()
        # What it wrote is in the pipes by now; what a child that it left behind writes later is not its output.
        for which, fd in enumerate(self._fds):
            for _ in range(DRAINED):
                if not self._read(which, fd):
                    break
            self.agent.loop.forget(fd)
            os.close(fd)
        self._close_stdin()
        self.agent.emit(self.call, DONE, self.outcome(exit_code(status)))
        self.agent.finished(self)

    def outcome(self, code: int) -> list[Any]:
        """[outcome, code, stdout, stderr, bytes cut]"""
        outcome = "timed out" if self._timed_out else "ok" if code == 0 else "failed"
        cut = sum(size - len(kept) for size, kept in zip(self._sizes, self._output))
        return [outcome, code, self._output[0], self._output[1], cut]


class Member(Command):
    """A member function: a command whose result comes through the agent's socket."""

    def __init__(self, agent: Agent, call: int, spec: dict[str, Any]) -> None:
        super().__init__(agent, call, spec)
        self.result = b""
        """Packed; empty until it has come."""

    def outcome(self, code: int) -> list[Any]:
        outcome = super().outcome(code)
        if outcome[0] == "ok" and not self.result:
            outcome[0], outcome[3] = "failed", outcome[3] + b"it ended without returning a result\n"
        outcome[2] = self.result
        return outcome


class Process(Child):
    """`spawn`: runs until it ends or is stopped, may be started again, and is watched line by line."""

    def __init__(self, agent: Agent, call: int, spec: dict[str, Any]) -> None:
        super().__init__(agent, call, spec)
        if "/" in spec["name"]:
            raise ValueError("the name of a process is the name of a file: %r" % spec["name"])
        self.generation = 0
        """1 for the first start."""
        self.spool: Spool | None = None
        self._policy = LogPolicy(spec.get("logs") or "file", agent.compile)
        self._lines = Lines()
        self._sent = 0
        self._fd = -1
        self._paused = False
        self._ready_regex = agent.compile(spec["ready"].encode()) if spec.get("ready") else None
        self._ready: Any = None
        self._watches: dict[int, Any] = {}
        self._triggers = Triggers(agent, spec.get("on") or ())
        self._timer: Timer | None = None
        """A start at an instant that is yet to come."""
        self._begun = 0
        """Bytes of output before the latest start."""
        self.failed = False
        """It ended badly, and was not stopped."""
        self.broken = ""
        """Why output could not be kept, if so."""

    @property
    def rotated(self) -> int:
        """Bytes of output that the size cap (or a full disk) has cost."""
        return self.spool.dropped if self.spool is not None else 0

    @property
    def forwarded(self) -> int:
        return self._policy.forwarded

    def begin(self) -> None:
        """Start it; STARTED tells '' or why not.  ValueError: it is running."""
        self._need_stopped()
        self.stopping = False
        self.generation += 1
        try:
            if self.spool is None and self._policy.to_file:
                path = os.path.join(self.agent.folder, self.spec["name"] + ".log")
                if os.path.exists(path):  # another process of this name
                    path = os.path.join(self.agent.folder, "%s-%d.log" % (self.spec["name"], self.call))
                self.spool = Spool(path, self.spec.get("cap") or 64 << 20)
            self._finish_output()
            self._begun = self.spool.total if self.spool is not None else 0
            read, write = os.pipe()
            try:
                self.launch(write, write)
            except OSError:
                os.close(read)
                raise
            finally:
                os.close(write)
        except OSError as error:
            self.agent.emit(self.call, STARTED, "cannot start %s: %s" % (error.filename or "it", error.strerror),
                            self._extra())
            return
        os.set_blocking(read, False)
        self._fd = read
        self._ready = self._ready_regex
        self.write(self._stdin, self.spec.get("stdin") is not None)
        self.agent.loop.watch(read, READ, self._readable)
        self.agent.emit(self.call, STARTED, "", self._extra())

    def _need_stopped(self) -> None:
        if self.pid is not None or self._timer is not None:
            raise ValueError("it is running already" if self.pid is not None else "it is about to start already")

    def begin_at(self, at: float | None) -> None:
        """Start it at an instant of the root's clock (None: at once).

        INSTANT tells by how many seconds that was missed; STARTED, why it was not to be.
        """
        if at is None:
            self.begin()
        else:
            self._need_stopped()
            self._aim(at, time.monotonic() + CLOCK_WAIT)

    def _aim(self, at: float, patience: float) -> None:
        clock = self.agent.node.clock
        if clock is None and time.monotonic() < patience:
            self._timer = self.agent.loop.after(CLOCK_LOOK, lambda: self._aim(at, patience))
        elif clock is None:
            self._not_started("its clock has not been compared with the root's within %g s" % CLOCK_WAIT)
        else:
            instant = at + clock
            delay = max(0.0, instant - time.monotonic() - AWAKE)
            self._timer = self.agent.loop.after(delay, lambda: self._begin_now(instant))

    def _begin_now(self, instant: float) -> None:
        self._timer = None
        time.sleep(max(0.0, instant - time.monotonic()))  # exact to some 0.1 ms; `poll` is to 1 ms
        missed = time.monotonic() - instant
        self.begin()
        self.agent.emit(self.call, INSTANT, missed, self._extra())

    def _not_started(self, reason: str) -> None:
        self._timer = None
        self.generation += 1
        self.agent.emit(self.call, STARTED, reason, self._extra())

    def stop(self, grace: float, then: Callable[[str], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._not_started("it was stopped before its instant")
        super().stop(grace, then)

    def _extra(self) -> bytes:
        return self.generation.to_bytes(4, "big")

    # Output.

    def _readable(self, _: int) -> None:
        if self._policy.kind in ("all", "match") and not self.agent.node.room(frames.BULK):
            # The way up is full: the pipe fills, and the program waits.  Nothing is lost, nothing swells.
            self.agent.loop.forget(self._fd)
            self._paused = True
            return
        if self._read() < GATHER_BELOW and self._fd >= 0:
            self.agent.loop.forget(self._fd)
            self.agent.loop.after(GATHER, self._gathered)

    def _gathered(self) -> None:
        if self._fd >= 0 and not self._paused:
            self.agent.loop.watch(self._fd, READ, self._readable)

    def resume(self) -> None:
        """There is room again."""
        if self._paused and self._fd >= 0:
            self._paused = False
            self.agent.loop.watch(self._fd, READ, self._readable)

    def _read(self) -> int:
        """Bytes that came."""
        data = read(self._fd, READ_SIZE)
        if data is None:
            return 0
        if not data:
            self._finish_output()
            return 0
        self._take(data)
        return len(data)

    def _take(self, data: bytes) -> None:
        if self.spool is not None:
            try:
                self.spool.write(data, self.agent.loop.now)
            except OSError as error:
                self.broken = self.broken or "its output could not be kept: %s" % error.strerror
        lines = self._lines.feed(data)  # always: a watch that comes in the middle of a line sees all of it
        self._look(lines)
        self._forward(self._policy.feed(data, lines))

    def _look(self, lines: list[bytes]) -> None:
        for line in lines:
            if self._ready is not None:
                match = self._ready.search(line)
                if match:
                    self._ready = None
                    self.agent.emit(self.call, READY, groups(match), self._extra())
            self._triggers.look(line)
            for watch, regex in list(self._watches.items()):
                match = regex.search(line)
                if match:
                    del self._watches[watch]
                    self.agent.emit(watch, MATCHED, [text(line), groups(match), time.time()])

    def _forward(self, data: bytes) -> None:
        clock = self.agent.node.clock
        when = None if clock is None else self.agent.loop.now - clock  # by the root's clock
        for at in range(0, len(data), RECORD_SIZE):
            piece = data[at : at + RECORD_SIZE]
            self.agent.node.record(frames.LOGS, codec.pack([self.call, self._sent, piece, when]))
            self._sent += len(piece)

    def _finish_output(self) -> None:
        if self._fd >= 0:
            self.agent.loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        lines = self._lines.finish()
        self._look(lines)
        self._forward(self._policy.finish(lines))

    def watch(self, call: int, pattern: str, since: str) -> None:
        """MATCHED for the first line that matches: from "now" on; or in what was kept as well, from the first
        "start" or from the "last start" on."""
        regex = self.agent.compile(pattern.encode())
        if since != "now" and self.spool is not None:
            for line in self._past(self._begun if since == "last start" else 0):
                match = regex.search(line)
                if match:
                    self.agent.emit(call, MATCHED, [text(line), groups(match), time.time()])
                    return
        if self.pid is None:
            self.agent.emit(call, MATCHED, None)
        else:
            self._watches[call] = regex

    def _past(self, begin: int) -> Iterator[bytes]:
        """The lines in the files from that byte on; the last one only if nothing more can come to it."""
        assert self.spool is not None
        past = Lines()
        skip = max(0, begin - self.spool.dropped)
        for piece in self.spool.read():
            yield from past.feed(piece[skip:])
            skip = max(0, skip - len(piece))
        if self.pid is None:
            yield from past.finish()

    def unwatch(self, call: int) -> None:
        self._watches.pop(call, None)

    # The end of it.

    def exited(self, status: int) -> None:
        self.pid = None
        self._drain()
        self._close_stdin()
        for watch in self._watches:
            self.agent.emit(watch, MATCHED, None)
        self._watches.clear()
        self._ready = None
        code = exit_code(status)
        tail = b""
        self.failed = code != 0 and not self.stopping
        if self.failed and self.spool is not None:
            tail = self.spool.tail(TAIL)
        self.agent.emit(self.call, EXITED, [code, self.stopping, tail], self._extra())

    def _drain(self) -> None:
        for _ in range(DRAINED):
            if self._fd < 0 or not self._read():
                break

    def problems(self) -> list[str]:
        """What the user must know at the end."""
        told = [self.broken] if self.broken else []
        if self._triggers.refused:
            told.append("%d signals of its log triggers were not given: %s"
                        % (self._triggers.refused, self._triggers.reason))
        return told

    def close(self) -> None:
        """The run is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._drain()
        self._finish_output()
        if self.spool is not None:
            self.spool.close()
