"""Files on their way down the tree: taken in, passed on, checked, put in place.

A block is checked where it comes, passed on from disk (or, where the disk has no room, from a few in memory), and
put in place as it comes; nobody sees a file before it is complete and its digest is right.  One machine's full disk
is that machine's failure alone.
"""

from __future__ import annotations

import errno
import os
from _collections import deque

from . import blobs, contention
from .core import blocks, frames, machineset
from .core.concurrency import PERIOD, Concurrency
from .core.feed import Feed
from .core.node import DONE
from .unpack import Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .main import Agent

QUEUE = 128 << 10  # bytes of files waiting on one link
ATTEMPTS = 3  # times that one block, or a whole whose blocks were right, may come damaged
TURN = 1 << 20  # bytes that are put in place from a blob between two looks at everything else
MOMENT = 0.02  # s that small files may take between two such looks
SPARE = 64 << 20  # bytes that stay free on the disk of a relay


class Transfer:
    """One file or folder on this machine."""

    def __init__(self, agent: Agent, call: int, body: dict[str, Any], target: bool) -> None:
        """KeyError, TypeError, ValueError: the body makes no sense."""
        self._agent = agent
        self._call = call
        self._digest: bytes = body["digest"]
        self._size = int(body["size"])
        self._bytes = int(body["bytes"])
        """Of `size`, those that are no zeros."""
        self._to = os.path.join(agent.work, os.path.expanduser(agent.fill(body["to"])))
        self._mode = int(body["mode"])
        self._target = target
        self._cache = blobs.folder() if body["cache"] else None
        self._blob = os.path.join(self._cache, self._digest.hex()) if self._cache else ""
        self._part = ""
        """The file that becomes the blob."""
        self._fd = -1
        """Where blocks are, each at its place: the blob, what becomes one, or a file without a name."""
        self._from_cache = False
        self._full = False
        """The disk has no room."""
        self._stored = 0
        """How far the file has what came, from `feed.start` on."""
        self._recent: dict[int, bytes] = {}
        """The blocks from there on."""
        self._damaged = 0
        self._unpacker: Unpacker | None = None
        self._seen = 0
        """How far the stream was checked."""
        self._pending: deque[tuple[int, bytes | None]] = deque()
        """What was checked, and is not in its place yet: (size, content)."""
        self._fed = False
        self._done = 0
        """How far it is in its place, where this machine is a target."""
        self._sum = blocks.Digest()
        self.failed = ""
        """Why it will never be here."""
        self.held = False
        """A leaf waits until others have enough."""
        self.feed = Feed(self._size, False)

    def begin(self) -> None:
        if self._target:
            mark = "%s-%d-%d" % (self._agent.identity["run"], self._agent.identity["id"], self._call)
            try:
                self._unpacker = Unpacker(self._to, self._mode, mark)
            except OSError as error:
                self._cannot_place(error)
        if self._open_blob():
            self._from_blob()
            return
        self._open_store()
        self.demand()

    # What is here.

    def _open_blob(self) -> bool:
        if not self._blob:
            return False
        try:
            self._fd = blobs.open_blob(self._blob)
        except OSError:
            return False
        self._from_cache = self.feed.roomy = True
        self.feed.start, self.feed.end = 0, self._size
        return True

    def _open_store(self) -> None:
        """A file for what comes, where there is room: to be passed on, and to be kept when it is whole."""
        if self._fd >= 0 or self._full:
            return
        mark = "ship-%s-%d-%d" % (self._agent.identity["run"], self._agent.identity["id"], self._call)
        path = os.path.join(self._agent.folder, mark)
        try:
            if self._cache and not self.feed.end and (
                    self._bytes * blobs.SHARE < min(blobs.room(self._cache), blobs.MOST)):
                self._part = path = os.path.join(self._cache, blobs.PART + mark)
            elif not self._agent.node.children or (
                    blobs.room(self._agent.folder) < (2 if self._target else 1) * self._bytes + SPARE):
                return
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if not self._part:
                os.unlink(path)
        except OSError:
            self._part = ""
            return
        self.feed.roomy = True
        self.feed.start = self._stored = self.feed.end
        self._recent.clear()

    def _close_store(self) -> None:
        self._from_cache = self.feed.roomy = False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._part:
            os.unlink(self._part)
            self._part = ""

    def _block(self, offset: int) -> bytes:
        """ValueError: it was damaged on the disk."""
        block = self._recent.get(offset)
        if block is None:
            block = self._stored_block(offset)
            if self._from_cache:
                blocks.decode(block)
        return block

    def _stored_block(self, offset: int) -> bytes:
        return blocks.whole(os.pread(self._fd, blocks.SLOT, blocks.place(offset)), offset)

    def _spoilt(self) -> None:
        """The blob was damaged on the disk: it goes, and what is missing anywhere comes from the parent."""
        blobs.drop(self._fd, self._blob)
        self._close_store()
        self._blob, self._cache = "", None
        self.feed.restart(min([self._seen, *self.feed.positions()]))
        self._open_store()
        self.demand()

    def _release(self) -> None:
        """Everyone has it: no file stays open; who asks later gets it from the blob, or from above again."""
        if self._done >= self._size <= self.feed.end and min(self.feed.positions(), default=self._size) >= self._size:
            self._close_store()
            self.feed.start = self._size

    # From the parent.

    def demand(self) -> None:
        """Tell the parent what may come, if that is news."""
        if self.failed or self._pending:
            return
        wanted = self.feed.demand(self._agent.loop.now)
        for offset in [offset for offset in self._recent if offset < self.feed.start]:
            del self._recent[offset]
        if not self.feed.roomy and self.feed.start >= self._stored:
            self._close_store()  # nobody needs what is on a disk that is full
        if wanted is not None:
            self._agent.node.want(self._call, *wanted)

    def renew(self) -> None:
        """There is a new parent, or a new way: what is not here is asked for from where it stands."""
        self.feed.renew()
        self.demand()

    def take(self, block: bytes) -> None:
        """The next block; one that is out of place (sent before a link was replaced) is passed over."""
        if self.failed:
            return
        try:
            offset, size, data, known = blocks.decode(block)
        except ValueError:
            self._damaged += 1
            if self._damaged >= ATTEMPTS:
                self.refused("it came damaged %d times" % self._damaged)
            else:
                self.renew()
            return
        if offset != self.feed.end or size > self._size - offset:
            return
        self._damaged = 0
        if self.feed.roomy:
            try:
                _write(self._fd, block, blocks.place(offset))
                self._stored = offset + size
            except OSError:
                self.feed.roomy, self._full = False, True
        if not self.feed.roomy and self.feed.children():
            self._recent[offset] = block
        self.feed.came(size, self._agent.loop.now)
        self._put(offset, size, data, known)
        self.demand()
        self._release()

    def refused(self, reason: str) -> None:
        """It will not come: nor to those below, who would have it from here."""
        if self.failed:
            return
        self.failed = reason
        self._over("failed", reason)
        for child in self.feed.children():
            self._agent.node.cannot(child, self._call, reason)
        self._recent.clear()
        self._close_store()

    # To the children.

    def wanted(self, child: int, offset: int, allowed: int, again: bool) -> None:
        if self.failed:
            self._agent.node.cannot(child, self._call, self.failed)
            return
        self.feed.want(child, offset, allowed, again, self._agent.loop.now)
        if self._fd < 0 and offset < allowed and not (self.feed.end >= self._size and self._open_blob()):
            self._open_store()
        self.demand()

    def pump(self, limit: int) -> bool:
        """Send each child what it may have, as far as its link has room; True when there is more for one that had.

        `limit`: to how many leaves at once; to relays always, for the sake of all that are below them.
        """
        feed, now = self.feed, self._agent.loop.now
        sent = gone = more = self.held = False
        if self.failed:
            return False
        read: dict[int, bytes] = {}
        for child in feed.children():
            link = self._agent.node.children.get(child)
            if link is None:
                feed.forget(child)
                gone = True  # nobody waits for it any more
                continue
            leaf = feed.roomy and link.subtree == machineset.single(child)  # without room, what waits is let go of
            if leaf and limit <= 0:
                self.held = True
                continue
            begun = False
            while (offset := feed.next(child)) is not None:
                if link.queued(frames.BULK) >= QUEUE:
                    more = more or begun
                    break
                if offset not in read:
                    try:
                        read[offset] = self._block(offset)
                    except ValueError:
                        if self._from_cache:
                            self._spoilt()
                            return True
                        feed.forget(child)  # it asked for what begins where no block does
                        break
                link.send(frames.BULK, frames.DATA, self._call, b"", read[offset])
                feed.sent(child, blocks.size_of(read[offset]), now)
                sent = begun = True
            limit -= leaf and feed.engaged(child, now)
        if sent or gone or feed.due() is not None:
            self.demand()
            self._release()
            due = feed.due()
            if due is not None:
                self._agent.loop.after(max(0.0, due - now), lambda: None)
        return more

    # Into its place.

    def _put(self, offset: int, size: int, data: bytes | None, known: bytes) -> None:
        """The next block into its place; those that are fetched again for a child are passed over."""
        if offset != self._seen:
            return
        self._seen += size
        if data is not None:
            self._sum.add(known)
        if self._unpacker is None:
            self._placed(size)
            return
        self._pending.append((size, data))
        if len(self._pending) == 1:
            self._work()

    def _work(self) -> None:
        """Put in place what is pending, a moment at a time: thousands of small files are in a few blocks."""
        while self._pending:
            size, data = self._pending[0]
            if self._unpacker is not None:
                try:
                    if data is None:
                        self._unpacker.skip(size)
                    else:
                        if not self._fed:
                            self._unpacker.feed(data)
                        self._fed = True
                        if not self._unpacker.work(MOMENT):
                            self._agent.loop.after(0.0, self._work)
                            return
                except (OSError, ValueError) as error:
                    self._cannot_place(error)
            self._fed = False
            self._pending.popleft()
            self._placed(size)
        self.demand()

    def _placed(self, size: int) -> None:
        self._done += size
        if self._done >= self._size:
            self._complete()
            self._release()

    def _complete(self) -> None:
        if self._sum.result(self._size) != self._digest:
            self._over("failed", "it is not what was sent, though every part of it arrived well")
            return
        if self._part and not self.feed.start:
            blobs.keep(self._part, self._blob)
            self._part = ""
        if self._unpacker is not None:
            try:
                self._unpacker.finish()
                self._over("ok", "")
            except (OSError, ValueError) as error:
                self._cannot_place(error)

    def _cannot_place(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            reason += "; free some there, or choose another place"
        self._over("failed", "cannot put it at %s: %s" % (self._to, reason))

    def _over(self, outcome: str, reason: str) -> None:
        """This machine's own part is over, well or not."""
        unpacker, self._unpacker = self._unpacker, None
        if unpacker is not None and outcome != "ok":
            unpacker.abort()
        if self._target:
            self._target = False
            self._agent.emit(self._call, DONE, [outcome, reason])

    def _from_blob(self) -> None:
        """Put in place what was here already, in turns, so that all else goes on meanwhile."""
        until = min(self._seen + TURN, self._size)
        try:
            while self._from_cache and self._seen < until and not self._pending:
                self._put(*blocks.decode(self._stored_block(self._seen)))
        except ValueError:
            self._spoilt()
        if self._from_cache and self._seen < self._size:
            self._agent.loop.after(0.0, self._from_blob)
        else:
            self._release()

    def end(self) -> None:
        """The run is over."""
        self.refused("the run has ended here")


def _write(fd: int, data: bytes, at: int) -> None:
    written = os.pwrite(fd, data, at)
    while written < len(data):
        written += os.pwrite(fd, data[written:], at + written)


class Shipping:
    """All transfers of this machine."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._transfers: dict[int, Transfer] = {}
        self._concurrency = Concurrency()
        self._looked = agent.loop.now
        self._turn = 0.0
        """When those that are held get another turn, though nothing comes in."""
        agent.uplink.widen()

    def ship(self, call: int, body: dict[str, Any], target: bool) -> None:
        transfer = self._transfers.get(call)
        if transfer is None:
            transfer = self._transfers[call] = Transfer(self._agent, call, body, target)
            transfer.begin()
        else:
            transfer.renew()  # it is told again where the way to it has changed

    def data(self, call: int, body: bytes) -> None:
        transfer = self._transfers.get(call)
        if transfer is not None:
            transfer.take(body)

    def wanted(self, child: int, call: int, offset: int, allowed: int, again: bool) -> None:
        transfer = self._transfers.get(call)
        if transfer is not None and not offset % blocks.BLOCK:
            try:
                transfer.wanted(child, offset, allowed, again)
            except ValueError:
                pass  # a child that asks for what there is not gets nothing

    def refused(self, call: int, reason: str) -> None:
        transfer = self._transfers.get(call)
        if transfer is not None:
            transfer.refused(reason)

    def resumed(self) -> None:
        """There is a new parent: what is not complete is asked for from where it stands."""
        self._agent.uplink.widen()
        for transfer in self._transfers.values():
            transfer.renew()

    def pump(self) -> bool:
        """True: there may be more to send once this is on its way."""
        agent = self._agent
        if agent.node.children and agent.loop.now - self._looked >= PERIOD:
            self._looked = agent.loop.now
            self._concurrency.look(*contention.times())
        more = [transfer.pump(self._concurrency.limit) for transfer in self._transfers.values()]
        if agent.loop.now >= self._turn and any(transfer.held for transfer in self._transfers.values()):
            self._turn = agent.loop.now + PERIOD
            agent.loop.after(PERIOD, lambda: None)  # those that were preferred may take nothing any more
        return any(more)

    def end(self) -> None:
        for transfer in self._transfers.values():
            transfer.end()
