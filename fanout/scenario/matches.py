"""Which processes printed the line that was waited for, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanout.agent.core import machineset
from fanout.errors import UsageError
from fanout.scenario.group import Group, Machine

if TYPE_CHECKING:
    from fanout.scenario.context import Context


@dataclass(frozen=True)
class Match:
    """A line, as one machine printed it."""

    line: str
    groups: list[str]
    """What the groups of the pattern matched; the whole match where it has none."""
    time: float
    """Seconds since the epoch, by the machine's clock, when the line was read; for a line that was already there
    (`since="start"`), when it was found."""


class Matches:
    """By machine; those that had not printed the line when the quorum was reached are `missing`."""

    def __init__(self, context: Context, asked: int, found: dict[int, Match], began: float) -> None:
        self._context = context
        self._asked = asked
        self._found = found
        self._began = began

    @property
    def machines(self) -> Group:
        return Group(self._context, machineset.of(self._found))

    @property
    def missing(self) -> Group:
        return Group(self._context, self._asked & ~machineset.of(self._found))

    @property
    def times(self) -> list[float]:
        """Seconds from the begin of the wait to each line, ascending; clocks that differ show, but not below 0."""
        return sorted(max(0.0, match.time - self._began) for match in self._found.values())

    def __getitem__(self, machine: Machine) -> Match:
        if machine.id not in self._found:
            raise UsageError(f"{machine.name} did not print the line")
        return self._found[machine.id]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"<Matches {len(self)} of {machineset.count(self._asked)}: {self.machines}>"
