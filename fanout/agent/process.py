"""What a scenario starts and goes on with (`spawn`): a process, its log, and who watches it.

All that it prints is read, in order, and kept and forwarded as its policy says; it is read more slowly while the way
up is full, and never thrown away for that.  What a cap or a full disk costs is counted.
"""

from __future__ import annotations

import os
import time

from .core import codec, frames
from .core.lines import Lines, LogPolicy, groups, text
from .core.node import EXITED, INSTANT, MATCHED, READY, STARTED
from .loop import READ, read
from .program import DRAINED, READ_SIZE, Program, exit_code
from .spool import Spool
from .triggers import Triggers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .loop import Timer
    from .main import Agent

RECORD_SIZE = 16 << 10  # bytes of log in one record
GATHER = 0.01  # s that output rests in its pipe after a small read: a program that prints line by line must not
GATHER_BELOW = 16 << 10  # bytes ... cost a record, and two frames of ssh, a line
TAIL = 2 << 10  # bytes of output told with an exit that failed
CLOCK_WAIT = 5.0  # s that a start at an instant waits until the clock is known
CLOCK_LOOK = 0.05  # s between looks at whether it is
AWAKE = 0.003  # s before an instant from which on it is waited for by a finer clock than that of `poll`


class Process(Program):
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
