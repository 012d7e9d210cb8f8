"""What goes up in bulk beside logs: files that are fetched, logs that are followed or collected.

Each is one stream of bytes for its call, in the numbered and acknowledged frames of logs: a lost link costs nothing
but time, and a slow root slows the reading.  A stream reads on only as the way up has room, and leaves logs some.
Travels to a machine with the first command that needs it.
"""

from __future__ import annotations

from .core import codec, frames, parcels
from .core.node import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .main import Agent

    Entries = Iterator[list[Any] | None]

RECORD = 30 << 10  # bytes in one record: one record, one frame
ROOM = 48 << 10  # bytes of room on the way up that a block waits for: less than a log would need to be held up
STEPS = 200  # entries read, or looks at nothing, between two looks at everything else
ENTRY = 64  # bytes that an entry takes beside its data


class Stream:
    def __init__(self, agent: Agent, call: int, entries: Entries) -> None:
        """`entries` gives None when there is nothing at the moment, or nothing yet."""
        self.agent = agent
        self.call = call
        self._entries = entries
        self._packer = parcels.Packer()
        self._sent = 0
        self._kept: list[list[Any]] = []
        self._size = 0

    def step(self) -> bool:
        """Send a block, if there is something and the way has room.  False: nothing to do for now.

        StopIteration: that was all.
        """
        if self.agent.node.room(frames.BULK) < ROOM:
            return False
        entry: list[Any] | None = None
        for _ in range(STEPS):
            entry = next(self._entries)
            if entry is None:
                break
            self._kept.append(entry)
            self._size += ENTRY + sum([len(part) for part in entry if isinstance(part, (bytes, str))])
            if self._size >= parcels.BLOCK:
                break
        if entry is None or self._size >= parcels.BLOCK or entry[0] == parcels.END:
            return self._send()
        return True

    def _send(self) -> bool:
        if not self._kept:
            return False
        data = self._packer.pack(self._kept)
        self._kept, self._size = [], 0
        for at in range(0, len(data), RECORD):
            piece = data[at : at + RECORD]
            self.agent.node.record(frames.LOGS, codec.pack([self.call, self._sent, piece]))
            self._sent += len(piece)
        return True


class Streams:
    """All streams of this machine."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._streams: dict[int, Stream] = {}

    def command(self, call: int, body: dict[str, Any]) -> None:
        """KeyError, TypeError, ValueError: it makes no sense."""
        what = body["what"]
        if what == "files":
            from .fetching import fetch

            self.begin(call, fetch(self.agent, body["pattern"], int(body["cap"])))
        elif what == "follow":
            from .following import follow

            self.begin(call, follow(self.agent.processes.get(body["process"]), int(body["tail"])))
        elif what == "stop":
            self._streams.pop(body["call"], None)
            self.agent.emit(call, DONE, "")
        else:
            raise ValueError("there is no stream of %r" % what)

    def begin(self, call: int, entries: Entries) -> None:
        self._streams[call] = Stream(self.agent, call, entries)

    def __contains__(self, call: int) -> bool:
        return call in self._streams

    def pump(self) -> bool:
        """False: nothing to do until something else happens."""
        busy = False
        for call, stream in list(self._streams.items()):
            try:
                busy = stream.step() or busy
            except StopIteration:
                del self._streams[call]
                self.agent.emit(call, DONE, "")
        return busy
