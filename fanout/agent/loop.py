"""A small event loop: descriptors by `poll`, timers by a heap, ended children by SIGCHLD.

No asyncio: its import alone costs more than the whole agent may.  The signal module is used through its C part,
because the Python part imports `enum`.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select
import time
from _heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.POLLIN | select.POLLHUP | select.POLLERR
WRITE = select.POLLOUT


def read(fd: int, size: int) -> bytes | None:
    """What can be read now: None for nothing yet, empty when the other end is gone."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Timer:
    def __init__(self, when: float, act: Callable[[], None]) -> None:
        self.when = when
        self._act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self._act = None

    def fire(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self.now = time.monotonic()

    def watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` while `fd` is ready; again to change the mask or the handler."""
        self._handlers[fd] = handler
        self._poll.register(fd, mask)

    def forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def __contains__(self, fd: int) -> bool:
        return fd in self._handlers

    def after(self, seconds: float, act: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, act)
        heappush(self._timers, timer)
        return timer

    def listen(self, path: str, backlog: int, came: Callable[[int], None]) -> _socket.socket:
        """A Unix socket at a path: `came(descriptor)` for each connection.  OSError when it cannot be made."""
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        server.setblocking(False)
        server.bind(path)
        server.listen(backlog)

        def accept(_: int) -> None:
            try:
                fd, _address = server._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            os.set_blocking(fd, False)
            came(fd)

        self.watch(server.fileno(), READ, accept)
        return server

    def on_child(self, handler: Callable[[], None]) -> None:
        """Call `handler` when a child process may have ended."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)

        def woken(_: int) -> None:
            try:
                while os.read(read, 4096):
                    pass
            except BlockingIOError:
                pass
            handler()

        self.watch(read, select.POLLIN, woken)

    def once(self, timeout: float | None) -> None:
        """Wait for descriptors or timers (at most `timeout` seconds) and call their handlers."""
        self.now = time.monotonic()
        if self._timers:
            due = max(0.0, self._timers[0].when - self.now)
            timeout = due if timeout is None else min(timeout, due)
        ready = self._poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999)))
        self.now = time.monotonic()
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        while self._timers and self._timers[0].when <= self.now:
            heappop(self._timers).fire()
