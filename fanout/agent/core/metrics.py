"""Metrics on their way up, merged at every node.

Merged numbers cannot be told apart again, so a message says what went into it: `cover` holds, for each machine,
the number of its latest batch inside.  The root takes a message only if all of it is new, so nothing is counted
twice when messages are repeated after a link was replaced.
"""

from __future__ import annotations

from . import codec, machineset
from .codec import ProtocolError
from .sketch import Sketch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .delivery import Origin

    Name = tuple[str, str, str]
    """(metric, unit, label)"""

FLUSH = 0.2  # s that values are gathered
NAMES = 1000  # different metrics on one node between two flushes; a scenario that has more is mistaken


class MetricMerger:
    def __init__(self) -> None:
        self._sketches: dict[Name, Sketch] = {}
        self._cover: dict[int, int] = {}
        """Machine -> its latest batch in here."""
        self._origins: list[Origin] = []
        self._since: float | None = None
        self._batch = 0

    def add(self, machine: int, name: str, unit: str, label: str, value: float, now: float) -> None:
        """A value of this machine.  ValueError: too many names, or no finite number."""
        key = (name, unit, label)
        if key not in self._sketches and len(self._sketches) >= NAMES:
            raise ValueError("more than %d different metrics at once" % NAMES)
        if machine not in self._cover:
            self._batch += 1
            self._cover[machine] = self._batch
        self._sketches.setdefault(key, Sketch()).add(value)
        self._since = now if self._since is None else self._since

    def merge(self, body: bytes, subtree: int, origin: Origin, now: float) -> None:
        cover, sketches = decode(body, subtree)
        for key, sketch in sketches.items():
            self._sketches.setdefault(key, Sketch()).merge(sketch)
        for machine, batch in cover.items():
            self._cover[machine] = max(batch, self._cover.get(machine, 0))
        self._origins.append(origin)
        self._since = now if self._since is None else self._since

    def due(self) -> float | None:
        return None if self._since is None else self._since + FLUSH

    def flush(self, now: float) -> tuple[bytes, list[Origin]] | None:
        due = self.due()
        if due is None or now < due:
            return None
        batches: dict[int, int] = {}
        for machine, batch in self._cover.items():
            batches[batch] = batches.get(batch, 0) | machineset.single(machine)
        cover = [[machineset.pack(machines), batch] for batch, machines in batches.items()]
        body = codec.pack([cover, [[list(key), sketch.plain()] for key, sketch in self._sketches.items()]])
        origins = self._origins
        self._sketches, self._cover, self._origins, self._since = {}, {}, [], None
        return body, origins


def decode(body: bytes, subtree: int) -> tuple[dict[int, int], dict[Name, Sketch]]:
    """(machine -> batch, metrics); ProtocolError for a message that is none, or speaks for others than `subtree`."""
    try:
        plain_cover, plain_sketches = codec.unpack(body)
        cover: dict[int, int] = {}
        for packed, batch in plain_cover:
            machines = machineset.unpack(packed)
            if machines & ~subtree:
                raise ProtocolError("speaks for machines that are not its own")
            cover.update(dict.fromkeys(machineset.members(machines), int(batch)))
        sketches: dict[Name, Sketch] = {}
        for (name, unit, label), plain in plain_sketches:
            sketches[str(name), str(unit), str(label)] = Sketch.of(plain)
    except (TypeError, ValueError, AttributeError) as error:
        raise ProtocolError("metrics that are none: %s" % error) from None
    return cover, sketches
