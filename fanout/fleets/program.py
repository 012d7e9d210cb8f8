"""One run of a program of the user's: what it prints is kept, what it complains is passed on, its time is bounded.

It has a process group of its own, so Ctrl-C is for fanout alone to handle, and the whole group can be ended.
What it leaves running in the background when it ends by itself stays: that may be the machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from fanout.fleets.base import Say

GRACE = 10.0  # s between TERM and KILL
SETTLE = 0.5  # s for the last words to come, once the program has ended: a background process may hold its pipes
MAX_OUTPUT = 16 << 20  # bytes; more than a million hosts need
LINE = 2000  # bytes of a line of stderr; a longer one is passed on in pieces
TAIL = 5  # last lines of stderr that an error tells
READ = 64 << 10


class Program:
    """Running from the moment it is made until `wait` or `stop` has returned; on the event loop."""

    def __init__(
        self,
        argv: Sequence[str],
        given: bytes,
        environment: Mapping[str, str],
        say: Say,
        printed: Callable[[int], None] = lambda lines: None,
        folder: str | None = None,
    ) -> None:
        """`given` is its stdin; `say` hears each line of its stderr, `printed` how many lines its stdout has.
        `folder`: where it runs, unless here.

        OSError when it cannot be started.
        """
        self.output = bytearray()
        """What it has printed so far."""
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.overflow = False
        """It was ended because it printed more than MAX_OUTPUT."""
        self._say = say
        self._printed = printed
        self._lines = 0
        self._line = bytearray()
        with tempfile.TemporaryFile() as stdin:  # a file, not a pipe: whether it reads it all is its own business
            stdin.write(given)
            stdin.seek(0)
            self._process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        assert self._process.stdout and self._process.stderr
        self._pipes = {self._process.stdout.fileno(): self._heard, self._process.stderr.fileno(): self._complained}
        self._quiet = asyncio.Event()
        loop = asyncio.get_running_loop()
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
            loop.add_reader(pipe, self._readable, pipe)
        self._exited = asyncio.ensure_future(asyncio.to_thread(self._process.wait))
        self._ending: asyncio.Task[None] | None = None

    async def wait(self, timeout: float) -> int | None:
        """Its exit code, negative for a signal; None when it did not end within `timeout` seconds and was stopped.

        Stopped as well when the wait is cancelled.
        """
        try:
            done, _ = await asyncio.wait({self._exited}, timeout=timeout)
        finally:
            await self.stop()
        return self._process.returncode if done else None

    async def stop(self) -> None:
        """End it if it still runs, by TERM, then KILL; then take its last words.  Idempotent, bounded."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        try:
            if not self._exited.done():
                self._signal(signal.SIGTERM)
                await asyncio.wait({self._exited}, timeout=GRACE)
                self._signal(signal.SIGKILL)  # also for what its group has left over
                await self._exited
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), SETTLE)
        finally:  # also when the event loop ends before we do
            if self._process.poll() is None:
                self._signal(signal.SIGKILL)
            self._close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the latter for a group of zombies
            os.killpg(self._process.pid, number)

    def _close(self) -> None:
        for pipe in list(self._pipes):
            self._readable(pipe)
            self._forget(pipe)
        if self._line:
            self._complained(b"\n")
        for file in (self._process.stdout, self._process.stderr):
            assert file is not None
            file.close()

    def _forget(self, pipe: int) -> None:
        if self._pipes.pop(pipe, None) is not None:
            asyncio.get_running_loop().remove_reader(pipe)
        if not self._pipes:
            self._quiet.set()

    def _readable(self, pipe: int) -> None:
        try:
            data = os.read(pipe, READ)
        except BlockingIOError:
            return
        if data:
            self._pipes[pipe](data)
        else:
            self._forget(pipe)

    def _heard(self, data: bytes) -> None:
        if len(self.output) + len(data) > MAX_OUTPUT:
            if not self.overflow:
                self.overflow = True
                self._signal(signal.SIGTERM)
            return
        self.output += data
        if b"\n" in data:
            self._lines += data.count(b"\n")
            self._printed(self._lines)

    def _complained(self, data: bytes) -> None:
        self._line += data
        while b"\n" in self._line or len(self._line) > LINE:
            line, newline, _ = self._line[:LINE].partition(b"\n")
            self._line[: len(line) + len(newline)] = b""
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self.tail.append(text)
                self._say(text)
