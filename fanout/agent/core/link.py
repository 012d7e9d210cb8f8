"""One end of one parent-child connection: handshake, heartbeat, priorities, delivery.

Bytes and `now` go in (`receive`, `tick`); frames for the node and bytes for the wire (`pull`) come out.
The child speaks first (HELLO), the parent answers who the child is (WELCOME); nothing else is said before that.

    NEW --HELLO sent or seen--> GREETED --WELCOME sent or seen--> OPEN --> CLOSED
"""

from __future__ import annotations

from _collections import deque

from . import codec, frames
from .codec import ProtocolError
from .delivery import Receiver, Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .delivery import Origin
    from .frames import Frame

NEW, GREETED, OPEN, CLOSED = "new", "greeted", "open", "closed"

HEARTBEAT = 2.0  # s between pings, from parent to child
EARLY = (0.1, 0.3)  # s between the first pings: one at once, so that clocks are known soon, and better soon after
DRIFT = 1e-4  # s per s that two clocks may part: a measurement grows older, and a newer one is worth more
SILENCE = 5.0  # s without a byte after which the other end is given up; noticed within 6 s, on a busy machine too
PATIENCE = 30.0  # s ... at most, where the other end has been vouched for
VOUCHED = 0.5  # s that a word for it holds
ACK_DELAY = 0.5  # s that a settled number may wait to be told
ACK_HURRY = 0.01  # ... while the run ends, and everyone waits for it
ACK_BYTES = 64 << 10  # ... unless this much has come in since
WINDOW = {frames.REPORT: 256 << 10, frames.BULK: 256 << 10}  # bytes sent up and not yet at the root
WINDOW_MOST = 4 << 20  # ... that the window of BULK may grow to, of all children together
BATCH = 32 << 10  # bytes of records joined into one frame


class Link:
    """`up` is the end at the child (it looks up at its parent); otherwise the end at the parent."""

    __slots__ = (  # a node may have many
        "_ack_bytes", "_ack_due", "_child", "_decoder", "_due", "_early", "_error", "_granted", "_heard",
        "_measured", "_own", "_ping", "_ping_due", "_ponged", "_queued", "_queues", "_received", "_receivers",
        "_sendable", "_senders", "_told_clock", "_vouched", "alarm", "bytes_in", "bytes_out", "grant", "hurry",
        "messages_in", "messages_out", "offset", "past", "pid", "reason", "state", "subtree", "up",
    )

    def __init__(self, up: bool, now: float, child: int = 0, sendable: set[int] | None = None) -> None:
        """`sendable`: holds `child` while there is something to send to it."""
        self.up = up
        self._child = child
        self._sendable: set[int] = set() if sendable is None else sendable
        self.state = NEW
        self.reason = ""
        """Why it is closed."""
        self.subtree = 0
        """At the parent's end: the machines that this link leads to."""
        self.past = 0
        """... and those that it has led to: that one is down overtakes what it said before, in other classes."""
        self.pid = 0
        """At the parent's end: the child's process id on its machine; 0: not known."""
        self.hurry = False
        """Acknowledge at once: the run ends."""
        self.grant = self._granted = WINDOW[frames.BULK]
        """At the parent's end: what the child's window of BULK may grow to, now and at most so far."""
        self.alarm = float("inf")
        """At the parent's end: when its node looks at it next, though nothing comes in."""
        self.offset: float | None = None
        """At the parent's end: the child's clock minus ours, in s, within `error`."""
        self._error = float("inf")
        self._measured = now
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self._heard = now
        self._ping_due = now
        self._early = list(EARLY)
        self._told_clock = False
        self._ping: float | None = None
        """At the child's end: when the parent sent its last ping, by its own clock."""
        self._ponged = now
        self._due: float | None = None
        self._vouched = now
        """Until when silence is borne with."""
        self._decoder = frames.Decoder()
        self._queues: tuple[deque[Any], ...] = (deque(), deque(), deque())
        self._queued = [0, 0, 0]
        self._own = [0, 0, 0]
        self._senders = (Sender(None), Sender(WINDOW[frames.REPORT]), Sender(WINDOW[frames.BULK]))
        self._receivers = (Receiver(), Receiver(), Receiver())
        self._received = [0, 0, 0]
        self._ack_due: float | None = None
        self._ack_bytes = 0

    # What is to be sent.

    def send(self, cls: int, kind: int, number: int = 0, route: bytes = b"", body: bytes = b"") -> None:
        """A frame that is not numbered: link-level ones and commands."""
        self._queue(cls, (kind, number, route, body, None))

    def send_up(self, cls: int, kind: int, body: bytes, origins: list[Origin]) -> None:
        """A frame that is kept until the root has it."""
        self._queue(cls, (kind, 0, b"", body, origins))

    def _queue(self, cls: int, entry: tuple[int, int, bytes, bytes, list[Origin] | None]) -> None:
        if self.state != CLOSED:
            self._queues[cls].append(entry)
            self._sendable.add(self._child)
            self._count(cls, entry, 1)

    def _count(self, cls: int, entry: tuple[int, int, bytes, bytes, list[Origin] | None], sign: int) -> None:
        self._queued[cls] += sign * len(entry[3])
        if not entry[4]:
            self._own[cls] += sign * len(entry[3])

    def queued(self, cls: int) -> int:
        """Bytes that wait to be sent."""
        return self._queued[cls]

    def own(self, cls: int) -> int:
        """... of this machine alone: what others queue must not keep it from queueing too."""
        return self._own[cls]

    def pull(self, limit: int) -> bytes:
        """About `limit` bytes for the wire, the most urgent first; empty when nothing may be sent."""
        out: list[bytes] = []
        size = 0
        for cls, queue in enumerate(self._queues):
            sender = self._senders[cls]
            while queue and size < limit and (not self.up or sender.may_send()):
                out.append(self._next(cls))
                size += len(out[-1])
        self.messages_out += len(out)
        self.bytes_out += size
        if not any(self._queues):
            self._sendable.discard(self._child)
        return b"".join(out)

    def _next(self, cls: int) -> bytes:
        queue = self._queues[cls]
        entry = queue.popleft()
        self._count(cls, entry, -1)
        kind, number, route, body, origins = entry
        if origins is not None:
            if kind in frames.RECORDS and queue and len(body) + len(queue[0][3]) <= BATCH:
                origins = list(origins)
                parts, size = [body], len(body)
                while queue and queue[0][0] == kind and size + len(queue[0][3]) <= BATCH:
                    following = queue.popleft()
                    self._count(cls, following, -1)
                    parts.append(following[3])
                    size += len(following[3])
                    origins += following[4]
                body = b"".join(parts)
            number = self._senders[cls].keep(kind, body, origins)
        return frames.encode(cls, kind, number, route, body)

    def delivered(self) -> bool:
        """All reports and logs are known to be at the root."""
        return not any(self._queues[1:]) and not any(sender.unacked_bytes for sender in self._senders[1:])

    def told(self) -> bool:
        """All events are known to be at the root."""
        return not self._queues[frames.CONTROL] and not self._senders[frames.CONTROL].unacked_bytes

    def undelivered(self) -> list[tuple[int, int, bytes, list[Origin]]]:
        """(class, kind, body, origins) of all that the root may not have, in order: for the next parent."""
        rest = []
        for cls, (sender, queue) in enumerate(zip(self._senders, self._queues)):
            rest += [(cls, kind, body, origins) for kind, body, origins in sender.unacked()]
            rest += [(cls, entry[0], entry[3], entry[4]) for entry in queue if entry[4] is not None]
        return rest

    # What comes in.

    def receive(self, data: bytes, now: float) -> Iterator[Frame]:
        """The frames that concern the node.  ProtocolError: the link must be closed with its text."""
        self._heard = now
        self.bytes_in += len(data)
        awaited = frames.WELCOME if self.up else frames.HELLO
        for frame in self._decoder.feed(data):
            self.messages_in += 1
            cls, kind, number, _, body = frame
            if self.state == OPEN:
                if kind == frames.PING and self.up:
                    self._ping = codec.fields(body, (float, int), int, (float, int, type(None)))[0]
                    self._pong(now)
                    yield frame  # the node takes the lease and the clock from it
                elif kind == frames.PONG and not self.up:
                    self._measure(codec.fields(body, (float, int), (float, int)), now)
                elif kind == frames.ACK:
                    *numbers, self._senders[frames.BULK].granted = codec.fields(body, int, int, int, int)
                    for sender, acked in zip(self._senders, numbers):
                        sender.acknowledged(acked, now)
                elif kind == frames.BYE or (
                    kind in frames.COMMANDS or kind in frames.FROM_PARENT if self.up else kind == frames.WANT
                ):
                    yield frame
                elif kind in frames.UPWARD and not self.up:
                    self._received[cls] += 1
                    if number != self._received[cls]:
                        raise ProtocolError("frame %d where %d was next" % (number, self._received[cls]))
                    if cls != frames.CLASS[kind]:
                        raise ProtocolError("message %d in class %d" % (kind, cls))
                    receiver = self._receivers[cls]
                    receiver.came(number, len(body))
                    window = self._granted if cls == frames.BULK else WINDOW.get(cls)
                    if window is not None and receiver.unsettled > window + frames.MAX_SIZE[cls]:
                        raise ProtocolError("sent more than its window in class %d" % cls)
                    self._ack_bytes += len(body)
                    yield frame
                else:
                    raise ProtocolError("message %d is not for this direction" % kind)
            elif kind == frames.BYE or (kind == awaited and self.state != CLOSED):
                yield frame
            else:
                raise ProtocolError("message %d before the handshake" % kind)

        if self.up and self._ping is not None and now - self._ponged >= HEARTBEAT:
            self._pong(now)  # a large frame is on its way, with the next ping behind it: we live

    def _pong(self, now: float) -> None:
        self._ponged = now
        self.send(frames.CONTROL, frames.PONG, 0, b"", codec.pack([self._ping, now]))

    def receiver(self, cls: int) -> Receiver:
        return self._receivers[cls]

    def _measure(self, pong: list[Any], now: float) -> None:
        """The child looked at its clock between our two looks: the middle is off by half the round trip at most."""
        sent, theirs = pong
        error = (now - sent) / 2
        if 0 <= error <= self.error(now):
            self._error, self._measured = error, now
            self.offset = theirs - (sent + now) / 2

    def error(self, now: float) -> float:
        """By how many seconds `offset` may be wrong."""
        return self._error + DRIFT * (now - self._measured)

    # Time.

    def tick(self, now: float, lease: int, clock: float | None, spared: Callable[[], bool]) -> str | None:
        """Heartbeat, acknowledgements, silence.  Returns why the child must be given up, or None.

        `spared` is asked about a child that is silent: whether that is to be borne with, for now.
        `lease` is the root's last word and `clock` how far our clock is ahead of the root's; both ride on pings.
        Time in which this process itself did not run (stopped, or starved) does not count as silence.
        A child never gives up a silent parent: the parent may be back, a new one may come, or the lease ends.
        """
        if self.state != OPEN or self.up:
            return None
        if self._due is not None and now - self._due > 0.5:
            self._heard = min(now, self._heard + now - self._due)  # what was heard on waking is not in the future
        self._due = now  # until `timeout` says more: what passes before that is our own work
        silence = now - self._heard
        if silence > SILENCE and now >= self._vouched:
            if silence > PATIENCE or not spared():
                return "no sign of life for %.0f s" % silence
            self._vouched = now + VOUCHED
        ahead = None if clock is None or self.offset is None else clock + self.offset
        if now >= self._ping_due or (ahead is not None and not self._told_clock):
            self._ping_due = now + (self._early.pop(0) if self._early else HEARTBEAT)
            self._told_clock = ahead is not None
            self.send(frames.CONTROL, frames.PING, 0, b"", codec.pack([now, lease, ahead]))
        a, b, c = self._receivers
        if a.acked != a.told or b.acked != b.told or c.acked != c.told:
            self._acknowledge(now)
        return None

    def _acknowledge(self, now: float) -> None:
        due = now + (ACK_HURRY if self.hurry else ACK_DELAY)
        if self._ack_due is None or self._ack_due > due:
            self._ack_due = due
        if now >= self._ack_due or self._ack_bytes >= ACK_BYTES:
            self._ack_due = None
            self._ack_bytes = 0
            for receiver in self._receivers:
                receiver.told = receiver.acked
            numbers = [receiver.acked for receiver in self._receivers]
            self._granted = max(self._granted, self.grant)
            self.send(frames.CONTROL, frames.ACK, 0, b"", codec.pack(numbers + [self.grant]))

    def timeout(self) -> float | None:
        """When `tick` is wanted next at the latest, on the clock of `now`."""
        if self.state != OPEN or self.up:
            return None
        due = min(self._ping_due, max(self._vouched, self._heard + SILENCE + 0.01))
        if self._ack_due is not None:
            due = min(due, self._ack_due)
        self._due = due
        return due
