"""Files that machines send to the root: taken apart as they come, checked, and put where they belong.

What always holds: a machine is not believed, neither its names nor its sizes; what is not brought is counted with its
reason, by the machine or here; and what a machine sends costs the root no more memory than one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanout.agent.core import frames, machineset, parcels
from fanout.agent.core.codec import ProtocolError
from fanout.root.call import Call
from fanout.root.landing import Landing, Refused
from fanout.root.parcels import Opener

if TYPE_CHECKING:
    from fanout.root.session import Session

NAMED = 5  # of the files that are left out for one reason on one machine
REASONS = 50  # different reasons that one machine may have
BEYOND = "it is beyond the cap of all machines together"


@dataclass
class Left:
    """What was not brought from one machine, for one reason."""

    files: int = 0
    bytes: int = 0
    """As far as they are known."""
    names: list[str] = field(default_factory=list)
    """The first few."""


class Intake:
    """What comes from one machine."""

    def __init__(self, fetch: Fetch, machine: int) -> None:
        self.files: list[Path] = []
        self.bytes = 0
        self.left: dict[str, Left] = {}
        self.notes: dict[str, Left] = {}
        """What was brought, and is to be known of it."""
        self.over = False
        """All has come that this machine will send."""
        self.failed = ""
        """Why no more is taken from it."""
        self._fetch = fetch
        self._opener = Opener()
        self._landing = Landing(fetch.place(machine))
        self._room = fetch.cap
        self._name = b""
        self._size = self._reserved = 0
        self._skip = ""
        """Why the file under way is not taken."""

    def take(self, data: bytes) -> None:
        if self.over or self.failed:
            return
        try:
            for entry in self._opener.feed(data):
                self._entry(*entry)
        except ProtocolError as error:
            self._fail(f"what it sent makes no sense: {error}")
        except OSError as error:
            self._fail(f"it cannot be written to {self._landing.folder}: {error.strerror or error}")

    def _entry(self, kind: int, *parts: Any) -> None:
        if self.over:
            raise ProtocolError("more than all")
        if kind == parcels.WHOLE:
            path, mode, data, digest = parts
            self._open(path, mode, len(data), len(data))
            self._data(0, data)
            self._shut(digest, "")
        elif kind == parcels.OPEN:
            self._open(*parts)
        elif kind == parcels.DATA:
            self._data(*parts)
        elif kind == parcels.SHUT:
            self._shut(*parts)
        elif kind == parcels.FOLDER:
            self._try(parts[0], lambda: self._landing.make(parts[0]))
        elif kind == parcels.LINK:
            path, target = parts
            self._try(path + b" -> " + target, lambda: self._landing.link(path, target))
        elif kind == parcels.LEFT:
            path, reason, size = parts
            self._leave(path, reason, size)
        elif kind == parcels.END:
            self._end()
        else:
            raise ProtocolError("that is no part of a file")

    def _try(self, name: bytes, do: Callable[[], object]) -> None:
        try:
            do()
        except Refused as error:
            self._leave(name, str(error))

    def _open(self, path: bytes, mode: int, size: int, expected: int) -> None:
        if self._name:
            raise ProtocolError("a file within another")
        self._name, self._size = path, expected
        if not self._reserve(expected):
            return
        try:
            self._landing.open(path, mode, size)
        except Refused as error:
            self._skip = str(error)

    def _data(self, offset: int, data: bytes) -> None:
        if not self._name:
            raise ProtocolError("data of no file")
        if self._skip or not self._reserve(len(data) - self._reserved):
            return
        try:
            self._landing.write(offset, data)
        except Refused as error:
            self._skip = str(error)
        self._reserved -= len(data)
        self.bytes += len(data)

    def _reserve(self, size: int) -> bool:
        """Room for so many bytes more of the file under way; False: there is none, and it is skipped."""
        if size <= 0:
            return True
        if size > self._room:
            raise ProtocolError("it sends more than it may")
        if size > self._fetch.room:
            self._skip = BEYOND
            self._fetch.full()
            return False
        self._room -= size
        self._fetch.room -= size
        self._reserved += size
        return True

    def _shut(self, digest: bytes, note: str) -> None:
        if not self._name:
            raise ProtocolError("the end of no file")
        name, self._name = self._name, b""
        reason, self._skip = self._skip, ""
        self._room += self._reserved
        self._fetch.room += self._reserved
        self._reserved = 0
        if not reason and digest:
            try:
                self.files.append(self._landing.shut(digest))
            except Refused as error:
                reason = str(error)
            else:
                if note:
                    _count(self.notes, name, note, 0)
                return
        self._landing.give_up()
        self._leave(name, reason or note or "it was given up there", self._size)

    def _leave(self, name: bytes, reason: str, size: int = 0) -> None:
        _count(self.left, name, reason, size)

    def _end(self) -> None:
        if self._name:
            raise ProtocolError("it ends within a file")
        for path, problem in self._landing.links():
            if problem:
                self._leave(str(path).encode("utf-8", "surrogateescape"), problem)
            else:
                self.files.append(path)
        self._landing.close()
        self.over = True
        self._fetch.call.wake()

    def _fail(self, reason: str) -> None:
        self.failed = reason
        self._landing.close()
        self._fetch.call.wake()

    def close(self) -> None:
        """Nothing more is taken; a file under way goes."""
        self._landing.close()


def _count(counts: dict[str, Left], name: bytes, reason: str, size: int) -> None:
    reason = reason[:200]
    if reason not in counts and len(counts) >= REASONS:
        reason = "other reasons"
    left = counts.setdefault(reason, Left())
    left.files += 1
    left.bytes += size
    if len(left.names) < NAMED:
        left.names.append(name.decode("utf-8", "backslashreplace"))


def told(intake: Intake) -> Iterator[str]:
    """What was not brought from a machine, or is to be known of what was, in words: one text a reason."""
    for counts, what in ((intake.left, "not brought"), (intake.notes, "brought, but")):
        for reason, left in counts.items():
            more = f" and {left.files - len(left.names)} more" if left.files > len(left.names) else ""
            size = f" ({left.bytes} bytes)" if left.bytes else ""
            yield f"{what}: {', '.join(left.names)}{more}{size}: {reason}"


class Fetch:
    """One call that files come for."""

    def __init__(self, session: Session, place: Callable[[int], Path], cap: int, total: int) -> None:
        """`place`: where the files of a machine go; `cap`: most bytes of one; `total`: of all."""
        self.place = place
        self.cap = cap
        self.room = total
        self.call: Call
        self.intakes: dict[int, Intake] = {}
        self._session = session
        self._full = False

    def begin(self, targets: int, pattern: str) -> Call:
        """Ask for what a pattern names; `close` ends it."""
        body = {"what": "files", "pattern": pattern, "cap": self.cap}
        return self.of(self._session.call(frames.FETCH, targets, body))

    def of(self, call: Call) -> Call:
        """Take what comes for this call."""
        self.call = call
        self._session.streams[call.number] = self._take
        return call

    def _take(self, machine: int, data: bytes) -> None:
        if not self.call.targets >> machine & 1:
            return
        intake = self.intakes.get(machine)
        if intake is None:
            intake = self.intakes[machine] = Intake(self, machine)
        intake.take(data)

    def full(self) -> None:
        """There is no room for more of any machine: what they still have is only counted."""
        if not self._full:
            self._full = True
            self._ask("full")

    def open_yet(self) -> int:
        """The targets that more is awaited from."""
        done = machineset.of(m for m, intake in self.intakes.items() if intake.over or intake.failed)
        refused = 0
        for machines, _ in self.call.refused:
            refused |= machines
        return self.call.targets & ~(done | refused | self.call.lost)

    async def wait(self, timeout: float) -> bool:
        """Until all has come from everyone who is there; False after `timeout` seconds."""
        return await self.call.until(lambda: not self.open_yet(), timeout)

    def close(self) -> None:
        """What still comes is dropped."""
        if self.open_yet() and self.call.kind == frames.FETCH:
            self._ask("stop")
        for intake in self.intakes.values():
            intake.close()
        self._session.streams[self.call.number] = _drop
        self._session.forget(self.call)

    def _ask(self, what: str) -> None:
        """Of those who may still send; nobody waits for the answer."""
        still = self.open_yet()
        if still and self.call.kind == frames.FETCH:
            self._session.forget(self._session.call(frames.FETCH, still, {"what": what, "call": self.call.number}))


def _drop(machine: int, data: bytes) -> None:
    """Too late."""
