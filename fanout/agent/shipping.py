"""Files on their way down the tree: taken in, passed on, checked, put in place.

A machine writes what comes to a file of its own, passes it on from there, and lets nobody see it before it is
complete and its hash is right.  One machine's full disk is that machine's failure alone: a relay without room
says so, and what is below it is told that it will not come.
"""

from __future__ import annotations

import os
from _blake2 import blake2b

from .core import frames
from .core.feed import WINDOW, Feed
from .core.node import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .main import Agent

QUEUE = 128 << 10  # bytes of files waiting on one link
COPY = 4 << 20  # bytes copied, hashed or unpacked between two looks at everything else
ATTEMPTS = 2  # a file that arrives damaged is fetched once more


class Transfer:
    """One file, or one folder as a tar archive, on this machine."""

    def __init__(self, agent: Agent, call: int, body: dict[str, Any]) -> None:
        """KeyError, TypeError, ValueError: the body makes no sense."""
        self.agent = agent
        self.call = call
        self.target = False
        """It is to be put in place here, not only passed on."""
        self.feed = Feed(int(body["size"]))
        self._digest: bytes = body["digest"]
        self._to: str = agent.fill(body["to"])
        self._mode = int(body["mode"])
        self._tree = bool(body["tree"])
        self._attempts = 0
        self._allowed = 0
        self._fd = -1
        self._hash = blake2b(digest_size=32)
        self.failed = ""
        self.path = os.path.join(agent.folder, "ship-%d" % call)

    def begin(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            self._fail("cannot keep it: %s" % error.strerror)
            return
        self._attempts += 1
        self._hash = blake2b(digest_size=32)
        self.feed.have = 0
        if self.feed.size:
            self.ask()
        else:
            self._complete()

    def ask(self) -> None:
        """Tell the parent what is here, after the start or on a new link."""
        if not self.failed and self.feed.have < self.feed.size:
            self._allowed = min(self.feed.size, self.feed.have + WINDOW)
            self.agent.node.want(self.call, self.feed.have, self._allowed, True)

    def take(self, offset: int, data: bytes) -> None:
        """The next piece; one that is out of place (sent before a link was replaced) is passed over."""
        if self.failed or offset != self.feed.have or self._fd < 0:
            return
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], offset + written)
        except OSError as error:
            self._fail("cannot keep it: %s" % error.strerror)
            return
        self._hash.update(data)
        self.feed.have += len(data)
        if self.feed.have >= self.feed.size:
            self._complete()
        elif self._allowed - self.feed.have <= WINDOW // 2:
            self._allowed = min(self.feed.size, self.feed.have + WINDOW)
            self.agent.node.want(self.call, self.feed.have, self._allowed, False)

    def wanted(self, child: int, offset: int, allowed: int, again: bool) -> None:
        if self.failed:
            self.agent.node.cannot(child, self.call, self.failed)
        elif again:
            self.feed.want(child, offset, allowed)
        else:
            self.feed.more(child, allowed)

    def pump(self) -> bool:
        """Send each child what it may have, as far as its link has room; False when there was nothing to send."""
        sent = False
        for child in self.feed.children():
            link = self.agent.node.children.get(child)
            if link is None:
                self.feed.forget(child)
                continue
            while link.queued(frames.BULK) < QUEUE:
                piece = self.feed.next(child)
                if piece is None:
                    break
                offset, size = piece
                body = offset.to_bytes(8, "big") + os.pread(self._fd, size, offset)
                link.send(frames.BULK, frames.DATA, self.call, b"", body)
                sent = True
        return sent

    # The end of it.

    def _complete(self) -> None:
        if self._hash.digest() != self._digest:
            if self._attempts < ATTEMPTS:
                os.close(self._fd)
                self.begin()
            else:
                self._fail("it arrived damaged %d times" % self._attempts)
        elif self.target:
            try:
                self._place()
            except (OSError, ValueError) as error:
                self._fail("cannot put it at %s: %s" % (self._to, getattr(error, "strerror", None) or error))

    def _place(self) -> None:
        to = os.path.join(self.agent.work, os.path.expanduser(self._to))
        os.makedirs(os.path.dirname(to) or ".", exist_ok=True)
        if self._tree:
            from . import unpack

            self._steps(unpack.steps(self.path, to), to)
        else:
            self._steps(self._copy(to), to)

    def _copy(self, to: str) -> Any:
        """Written beside, then renamed: nobody ever sees half of it.  Holes stay holes."""
        beside = "%s.fanout-%d" % (to, os.getpid())
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            at = 0
            while at < self.feed.size:
                piece = os.pread(self._fd, COPY, at)
                if piece.count(0) != len(piece):
                    os.pwrite(fd, piece, at)
                at += len(piece)
                yield
            os.ftruncate(fd, self.feed.size)
            os.fchmod(fd, self._mode)
            os.rename(beside, to)
        except BaseException:
            os.unlink(beside)
            raise
        finally:
            os.close(fd)

    def _steps(self, steps: Any, to: str) -> None:
        """Do a long thing in pieces, so that all else goes on meanwhile."""
        try:
            next(steps)
        except StopIteration:
            self.agent.emit(self.call, DONE, ["ok", ""])
            return
        except (OSError, ValueError) as error:
            self._fail("cannot put it at %s: %s" % (to, getattr(error, "strerror", None) or error))
            return
        self.agent.loop.after(0.0, lambda: self._steps(steps, to))

    def _fail(self, reason: str) -> None:
        """It will not be here; nor below, where it would have come from here."""
        if self.failed:
            return
        self.failed = reason
        if self.target:
            self.agent.emit(self.call, DONE, ["failed", reason])
        for child in self.feed.children():
            self.agent.node.cannot(child, self.call, reason)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            os.unlink(self.path)

    def refused(self, reason: str) -> None:
        """The parent cannot give it."""
        self._fail("its relay has not got it: %s" % reason)


class Shipping:
    """All transfers of this machine."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._transfers: dict[int, Transfer] = {}

    def ship(self, call: int, body: dict[str, Any], target: bool) -> None:
        transfer = self._transfers.get(call)
        if transfer is None:
            transfer = self._transfers[call] = Transfer(self._agent, call, body)
            transfer.target = target
            transfer.begin()
        else:
            transfer.ask()  # it is told again where the way to it has changed

    def data(self, call: int, body: bytes) -> None:
        transfer = self._transfers.get(call)
        if transfer is not None and len(body) > 8:
            transfer.take(int.from_bytes(body[:8], "big"), body[8:])

    def wanted(self, child: int, call: int, offset: int, allowed: int, again: bool) -> None:
        transfer = self._transfers.get(call)
        if transfer is not None:
            transfer.wanted(child, offset, allowed, again)

    def refused(self, call: int, reason: str) -> None:
        transfer = self._transfers.get(call)
        if transfer is not None:
            transfer.refused(reason)

    def resumed(self) -> None:
        """There is a new parent: what is not complete is asked for from where it stands."""
        for transfer in self._transfers.values():
            transfer.ask()

    def pump(self) -> bool:
        sent = [transfer.pump() for transfer in self._transfers.values()]  # each, not only until one has
        return any(sent)
