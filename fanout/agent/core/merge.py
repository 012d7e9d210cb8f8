"""Events on their way up, merged: equal ones from many machines become one with the set of machines.

An event is (key, value, set): the key is the call's id, the phase, and what else makes it unique; the value
is opaque here.  Both stay bytes on the way: only the root and the machine itself decode them.

Events are held back until every machine expected below has spoken, or HOLD has passed, so a command to a
thousand machines, or a barrier over them, comes back as about one message per relay.  Who is expected is known
for a call from its command, and for a request (phase SYNC) from the members named in its key.  Events that
nobody is expected to join wait only GAP after the message before.  No event is held longer than HOLD.
"""

from __future__ import annotations

from struct import Struct

from . import codec, machineset
from .codec import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .delivery import Origin

KEY = Struct(">IB")
UP, DOWN = 1, 2  # the phases whose order counts: the last one said of a machine is what holds
SYNC = 10  # the phase of requests: barriers, signals, topics
HOLD = 0.05  # s
GAP = 0.005  # s between two messages without expectations
FLUSH_BYTES = 256 << 10  # of keys and values in one message, unless a single event is larger
REMEMBERED = 4096  # calls whose expectations are kept


def key(call: int, phase: int, extra: bytes = b"") -> bytes:
    return KEY.pack(call, phase) + extra


def split_key(packed: bytes) -> tuple[int, int, bytes]:
    if len(packed) < KEY.size:
        raise ProtocolError("an event key of %d bytes" % len(packed))
    call, phase = KEY.unpack_from(packed)
    return call, phase, packed[KEY.size :]


def sync_extra(members: int, op: bytes) -> bytes:
    """The end of a request's key: who is expected to ask the same (0: nobody in particular), and what is asked."""
    packed = machineset.pack(members)
    return len(packed).to_bytes(3, "big") + packed + op


def split_sync(extra: bytes) -> tuple[int, bytes]:
    """(expected machines, op) of a request's key."""
    size = int.from_bytes(extra[:3], "big")
    if len(extra) < 3 + size:
        raise ProtocolError("a request's key cut short")
    try:
        return machineset.unpack(extra[3 : 3 + size]), extra[3 + size :]
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def decode(body: bytes) -> list[tuple[bytes, bytes, int]]:
    """The events of one message."""
    events = codec.unpack(body)
    try:
        if not events or not all(isinstance(part, bytes) for event in events for part in event):
            raise ValueError("not lists of bytes")
        return [(k, v, machineset.unpack(s)) for k, v, s in events]
    except (TypeError, ValueError) as error:
        raise ProtocolError("events that are none: %s" % error) from None


class Merger:
    def __init__(self, below: Callable[[], int]) -> None:
        """`below`: the machines of this node and its subtree."""
        self._below = below
        self._flushed = float("-inf")
        self._pending: dict[tuple[bytes, bytes], int] = {}
        self._earlier: list[tuple[tuple[bytes, bytes], int]] = []
        """What must leave before all that is pending."""
        self._origins: list[Origin] = []
        self._expected: dict[int, int] = {}
        self._missing: dict[bytes, int] = {}
        """Key -> who is expected, of whom nothing has come."""
        self._since: float | None = None
        self._complete = False
        """Something pending need not wait."""
        self._held = False
        """Something pending waits for others."""

    def expect(self, call: int, machines: int) -> None:
        """From now on, events of this call wait for these machines."""
        while len(self._expected) >= REMEMBERED:
            del self._expected[next(iter(self._expected))]
        self._expected[call] = machines

    def gone(self, machines: int) -> None:
        """Wait for these no longer."""
        for call in self._expected:
            self._expected[call] &= ~machines
        for k in self._missing:
            self._missing[k] &= ~machines
        self._complete = True

    def add(self, events: list[tuple[bytes, bytes, int]], origin: Origin | None, now: float) -> None:
        """`origin` is the frame they came in; it is settled when the frame they leave in is."""
        for k, value, machines in events:
            if k[4] in (UP, DOWN) and self._spoke_otherwise((k, value), machines):
                self._earlier += self._pending.items()
                self._pending = {}
            self._pending[k, value] = self._pending.get((k, value), 0) | machines
            missing = self._missing.pop(k, None)
            if missing is None:
                missing = self._expecting(k)
            if missing is None:
                continue
            missing &= ~machines
            if not missing:
                self._complete = True
            else:
                self._held = True
                while len(self._missing) >= REMEMBERED:
                    del self._missing[next(iter(self._missing))]
                self._missing[k] = missing
        if origin is not None:
            self._origins.append(origin)
        if self._since is None:
            self._since = now

    def _spoke_otherwise(self, event: tuple[bytes, bytes], machines: int) -> bool:
        """Something else is pending of these: folded into an earlier event, this one would overtake it."""
        return event in self._pending and any(m & machines for e, m in self._pending.items() if e != event)

    def _expecting(self, k: bytes) -> int | None:
        call, phase = KEY.unpack_from(k)
        if phase != SYNC:
            return self._expected.get(call)
        members = split_sync(k[KEY.size :])[0]
        return members & self._below() if members else None

    def due(self) -> float | None:
        """When `flush` is wanted at the latest."""
        if self._since is None:
            return None
        if self._complete:
            return self._since
        return self._since + HOLD if self._held else max(self._since, self._flushed + GAP)

    def flush(self, now: float) -> list[tuple[bytes, list[Origin]]]:
        """The bodies to send now, each with the frames it settles."""
        due = self.due()
        if due is None or now < due:
            return []
        bodies: list[bytes] = []
        batch: list[list[bytes]] = []
        size = 0
        for (k, value), machines in self._earlier + list(self._pending.items()):
            event = [k, value, machineset.pack(machines)]
            if batch and size + len(event[1]) > FLUSH_BYTES:
                bodies.append(codec.pack(batch))
                batch, size = [], 0
            batch.append(event)
            size += len(event[0]) + len(event[1]) + len(event[2])
        if batch:
            bodies.append(codec.pack(batch))
        origins = self._origins
        self._pending, self._earlier, self._origins, self._since, self._flushed = {}, [], [], None, now
        self._complete = self._held = False
        # What came in is settled with the last body: earlier ones travel in front of it on the same link.
        return [(body, origins if i == len(bodies) - 1 else []) for i, body in enumerate(bodies)]
