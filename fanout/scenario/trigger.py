"""Log triggers, as a scenario writes them: `spawn(..., on={r"ERROR (.*)": signal("trouble")})`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fanout.agent.core import limits
from fanout.errors import UsageError
from fanout.scenario.command import check_pattern


@dataclass(frozen=True)
class Signal:
    name: str


def signal(name: str) -> Signal:
    """For `spawn(on=)`: the machine gives this signal for each line that matches; the line does not travel as log.

    The value is {"machine", "line", "groups", "n"}: n counts the matches of that process.  `fleet.wait(name)`,
    `me.wait(name)` and `fanout wait NAME` read it.
    """
    try:
        return Signal(limits.name(name))
    except ValueError as error:
        raise UsageError(str(error)) from None


On = Mapping[str, Signal]


def check_on(on: On | None) -> list[list[str]]:
    """As the machines take it."""
    if not isinstance(on, Mapping | None):
        raise UsageError(f"on={on!r}: write {{'a pattern': signal('a name')}}")
    for pattern, what in (on or {}).items():
        if not isinstance(what, Signal):
            raise UsageError(f"on={{{pattern!r}: ...}}: write signal('a name'), imported from fanout, not {what!r}")
    return [[check_pattern(pattern), what.name] for pattern, what in (on or {}).items()]
