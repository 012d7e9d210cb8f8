"""What runs to its end and has one result: commands, and member functions.

Output is read to the exit and no further, so a program that was left behind holds up no result; what is beyond the
cap is cut, and counted.
"""

from __future__ import annotations

import os

from .core.node import CAPTURE_MOST, DONE
from .loop import READ, read
from .program import DRAINED, READ_SIZE, Program, exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Timer
    from .main import Agent

CAPTURE = 1 << 20  # bytes of each stream that a command's result holds, unless told otherwise


class Command(Program):
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
    """A member function: a command whose result comes through the agent's socket, and goes behind the others."""

    def __init__(self, agent: Agent, call: int, spec: dict[str, Any]) -> None:
        super().__init__(agent, call, spec)
        self.result = b""
        """Packed; empty until it has come."""

    def outcome(self, code: int) -> list[Any]:
        outcome = super().outcome(code)
        if outcome[0] == "ok" and not self.result:
            outcome[0], outcome[3] = "failed", outcome[3] + b"it ended without returning a result\n"
        return [*outcome, self.result]
