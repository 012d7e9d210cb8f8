"""What machines have measured, as it stands at the root: each batch counted once, however often it comes.  Pure."""

from __future__ import annotations

from fanout.agent.core.sketch import Sketch

Name = tuple[str, str, str]
"""(metric, unit, label)"""


class Measured:
    def __init__(self) -> None:
        self.metrics: dict[Name, Sketch] = {}
        self._batches: dict[int, int] = {}
        """Machine -> its latest batch in here."""

    def take(self, cover: dict[int, int], metrics: dict[Name, Sketch]) -> None:
        """`cover`: the latest batch of each machine in a message.  One that came another way before adds nothing."""
        if all(batch <= self._batches.get(machine, 0) for machine, batch in cover.items()):
            return
        for machine, batch in cover.items():
            self._batches[machine] = max(batch, self._batches.get(machine, 0))
        for key, sketch in metrics.items():
            self.metrics.setdefault(key, Sketch()).merge(sketch)
