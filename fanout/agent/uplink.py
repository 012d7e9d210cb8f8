"""The descriptors that lead to the parent: bytes between them and the node's link."""

from __future__ import annotations

import os
import time

from .core.codec import ProtocolError
from .loop import READ, WRITE, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Agent

READ_SIZE = 256 << 10  # bytes: what has gathered while the machine was busy is taken in one turn
F_SETPIPE_SZ = 1031  # fcntl(2), Linux; named by Python from 3.10 on
LAST_WORDS = 2.0  # s that the last bytes may take


class Uplink:
    def __init__(self, agent: Agent, in_fd: int, out_fd: int) -> None:
        self.agent = agent
        self._in, self._out = in_fd, out_fd
        self._pending = b""
        self._writing = False
        self.open = True
        """The parent has not closed it."""
        os.set_blocking(in_fd, False)
        os.set_blocking(out_fd, False)
        agent.loop.watch(in_fd, READ, self._readable)

    def _readable(self, _: int) -> None:
        data = read(self._in, READ_SIZE)
        if data is None:
            return
        if not data:
            self.open = False
            self.agent.loop.forget(self._in)
            self.agent.parent_gone()
            return
        try:
            self.agent.node.receive(None, data, self.agent.loop.now)
        except ProtocolError as error:
            self.agent.refuse_parent("the parent broke the protocol: %s" % error)

    def pump(self, _: int = 0) -> None:
        """Write what the link has, as far as it is taken."""
        link = self.agent.node.parent
        assert link is not None
        try:
            while True:
                if not self._pending:
                    self._pending = link.pull(READ_SIZE)
                if not self._pending:
                    break
                self._pending = self._pending[os.write(self._out, self._pending) :]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self.agent.loop.watch(self._out, WRITE, self.pump)
            return
        except OSError:  # reading tells
            self._pending = b""
        if self._writing:
            self._writing = False
            self.agent.loop.forget(self._out)

    def widen(self) -> None:
        """Let more gather while this process waits for its turn; where that is no pipe, or not allowed, it stays."""
        import fcntl

        try:
            fcntl.fcntl(self._in, F_SETPIPE_SZ, READ_SIZE)
        except OSError:
            pass

    def deaf(self) -> None:
        """Read nothing more."""
        self.open = False
        self.agent.loop.forget(self._in)

    def close(self) -> None:
        self.deaf()
        self.agent.loop.forget(self._out)
        os.close(self._in)
        os.close(self._out)

    def last_words(self) -> None:
        """What is queued still; the reader may be gone, so not for long."""
        until = time.monotonic() + LAST_WORDS
        while time.monotonic() < until:
            self.pump()
            if not self._writing:
                break
            self.agent.loop.once(0.1)
