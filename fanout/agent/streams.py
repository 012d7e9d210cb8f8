"""What goes up in bulk beside logs: files that are fetched, logs that are followed or collected.

Each is one stream of bytes for its call, in the numbered and acknowledged frames of logs: a lost link costs nothing
but time, and a slow root slows the reading.  A stream reads on only as the way up has room, and leaves logs some.
Travels to a machine with the first command that needs it.
"""

from __future__ import annotations

from .core import codec, frames, parcels
from .core.node import DONE, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .collecting import Collected
    from .fetching import Reader
    from .main import Agent
    from .process import Process

    Entries = Iterator[list[Any] | None]

RECORD = 30 << 10  # bytes in one record: one record, one frame
ROOM = 48 << 10  # bytes of room on the way up that a block waits for: less than a log would need to be held up
STEPS = 200  # entries read, or looks at nothing, between two looks at everything else
ENTRY = 64  # bytes that an entry takes beside its data


class Stream:
    def __init__(self, agent: Agent, call: int, entries: Entries) -> None:
        """`entries` gives None when there is nothing until something else happens, and [] to be asked again soon."""
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
        for _ in range(STEPS):
            entry = next(self._entries)
            if entry is None:
                return self._send()
            if not entry:
                return True
            self._kept.append(entry)
            self._size += ENTRY + sum([len(part) for part in entry if isinstance(part, (bytes, str))])
            if self._size >= parcels.BLOCK or entry[0] == parcels.END:
                return self._send()
        return True

    def _send(self) -> bool:
        if not self._kept:
            return False
        data = self._packer.pack(self._kept)
        self._kept, self._size = [], 0
        for at in range(0, len(data), RECORD):
            piece = data[at : at + RECORD]
            self.agent.node.record(frames.LOGS, codec.pack([self.call, self._sent, piece, None]))
            self._sent += len(piece)
        return True


class Streams:
    """All streams of this machine."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._streams: dict[int, Stream] = {}
        self._readers: dict[int, Reader] = {}
        self._collected: Collected | None = None

    def command(self, call: int, body: dict[str, Any]) -> None:
        """KeyError, TypeError, ValueError: it makes no sense."""
        what = body["what"]
        if what == "files":
            from .fetching import Reader

            reader = Reader(self.agent.work, self.agent.fill(body["pattern"]), int(body["cap"]))
            self._begin(call, reader.entries())
            self._readers[call] = reader
        elif what == "follow":
            from .following import follow

            self._begin(call, follow(self.agent.processes.get(body["process"]), int(body["tail"])))
        elif what == "full":
            if body["call"] in self._readers:
                self._readers[body["call"]].full()
            self.agent.emit(call, DONE, "")
        elif what == "stop":
            self._over(body["call"])
            self.agent.emit(call, DONE, "")
        else:
            raise ValueError("there is no stream of %r" % what)

    def _begin(self, call: int, entries: Entries) -> None:
        self._streams[call] = Stream(self.agent, call, entries)

    def _over(self, call: int) -> None:
        self._streams.pop(call, None)
        self._readers.pop(call, None)

    def clear(self) -> None:
        """The run ends: nobody waits for any of them."""
        self._streams.clear()
        self._readers.clear()

    def collect(self, call: int, collected: Collected) -> None:
        self._collected = collected
        self._begin(call, collected.entries())

    def left(self) -> int:
        """Bytes of collected logs that have not been read yet; 1 at least, until the last word of them is said."""
        return 0 if self._collected is None or not self._streams else self._collected.left + 1

    def pump(self) -> bool:
        """False: nothing to do until something else happens."""
        busy = False
        for call, stream in list(self._streams.items()):
            try:
                if stream.step():
                    busy = True
                    self._streams[call] = self._streams.pop(call)  # the others first, next time
            except StopIteration:
                self._over(call)
                self.agent.emit(call, DONE, "")
            except Exception as error:  # whatever is wrong with one stream, the agent and all else go on
                self._over(call)
                self.agent.emit(call, REFUSED, "%s: %s" % (type(error).__name__, error))
        return busy


def collect(agent: Agent, call: int, body: dict[str, Any]) -> float:
    """Begin to bring the logs of processes that say so; returns how many seconds that may take."""
    from .collecting import Collected

    wanted = [
        (process.spec["name"] + ".log", process.spool)
        for process in agent.processes.values()
        if process.spool is not None and _wanted(process, body["failed"])
    ]
    if agent.streams is None:
        agent.streams = Streams(agent)
    if wanted:
        agent.streams.collect(call, Collected(wanted, body["cap"], body["epoch"] - (agent.node.clock or 0.0)))
    return float(body["seconds"])


def _wanted(process: Process, failed: bool) -> bool:
    when = process.spec.get("collect")
    return when == "always" or (when == "on_failure" and (failed or process.failed))
