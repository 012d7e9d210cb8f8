"""Frames: how messages stand on the byte stream of a link.

    size u32 | class u8 | kind u8 | route size u16 | number u32 | route | body

`size` counts route and body.  A frame that is only passed on is never decoded further than this.
Sizes are checked from the header alone, before any memory is taken for the rest.
"""

from __future__ import annotations

from struct import Struct

from .codec import ProtocolError

# Classes of traffic, most urgent first: a lower one never waits behind a higher one.
CONTROL, REPORT, BULK = 0, 1, 2

# Between the two ends of a link.
HELLO, WELCOME, PING, PONG, ACK, BYE, RESUME = 1, 2, 3, 4, 5, 6, 7
# Files between the two ends of a link: a child WANTs, its parent sends DATA or says that it CANNOT.
WANT, DATA, CANNOT = 8, 9, 10
FROM_PARENT = frozenset((RESUME, DATA, CANNOT))
# Upward; `number` counts the frames of a class on this link.
EVENTS, REPORTS, LOGS, METRICS = 16, 17, 18, 19
FENCED, METRICS_AGAIN = 20, 21  # events behind all metrics sent before; metrics that were perhaps told before
# Downward commands; `route` is the set of targets and `number` the id of the call.
CONNECT, RUN, SPAWN, PROCESS, END, NETWORK, EACH, SHIP, REMOTE, PART, FETCH = range(32, 43)
# Downward answers to what machines asked, many in one message; each node passes on what its children need.
ANSWERS = 48

COMMANDS = frozenset((CONNECT, RUN, SPAWN, PROCESS, END, NETWORK, EACH, SHIP, REMOTE, PART, FETCH, ANSWERS))

CLASS = {
    EVENTS: CONTROL, REPORTS: REPORT, METRICS: REPORT, FENCED: REPORT, METRICS_AGAIN: REPORT, LOGS: BULK,
}
UPWARD = frozenset(CLASS)
"""The only class that a kind goes up in: or it would escape the window of its own."""

RECORDS = frozenset((REPORTS, LOGS))
"""Kinds whose bodies are records, so that two bodies joined are one."""

HEADER = Struct(">IBBHI")
MAX_SIZE = (4 << 20, 1 << 20, 64 << 10)
"""Bytes of route and body, by class.  Bulk is small so that control never waits long behind one frame."""

RECORD = Struct(">II")
"""Reports and logs travel as records, `source u32 | size u32 | payload`, so that batches are joined without
decoding and each hop can check the source."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Frame = tuple[int, int, int, bytes, bytes]
    """(class, kind, number, route, body)"""


def encode(cls: int, kind: int, number: int, route: bytes, body: bytes) -> bytes:
    size = len(route) + len(body)
    if size > MAX_SIZE[cls]:
        raise ValueError("a frame of %d bytes; class %d holds at most %d" % (size, cls, MAX_SIZE[cls]))
    return HEADER.pack(size, cls, kind, len(route), number) + route + body


class Decoder:
    """Bytes in, in any pieces; whole frames out.  Holds at most one frame and one piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now.  ProtocolError ends the stream for good."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= HEADER.size:
                size, cls, kind, route_size, number = HEADER.unpack_from(buffer, at)
                if cls > BULK:
                    raise ProtocolError("class %d" % cls)
                if size > MAX_SIZE[cls]:
                    raise ProtocolError("a frame of %d bytes, more than class %d may have" % (size, cls))
                if route_size > size:
                    raise ProtocolError("a route longer than its frame")
                start = at + HEADER.size
                if len(buffer) - start < size:
                    break
                middle, at = start + route_size, start + size
                # By a view: a slice of the buffer would be one more copy of every byte that passes.
                yield cls, kind, number, bytes(buffer[start:middle]), bytes(memoryview(buffer)[middle:at])
        finally:
            del buffer[:at]


def record(source: int, payload: bytes) -> bytes:
    return RECORD.pack(source, len(payload)) + payload


def records(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The (source, payload) pairs of a body."""
    at, end = 0, len(body)
    while at < end:
        if end - at < RECORD.size:
            raise ProtocolError("a record cut short")
        source, size = RECORD.unpack_from(body, at)
        at += RECORD.size
        if size > end - at:
            raise ProtocolError("a record longer than its frame")
        yield source, body[at : at + size]
        at += size
