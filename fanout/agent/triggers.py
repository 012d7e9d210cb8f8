"""Log triggers of a process: a line that matches gives a signal, from the machine, without travelling as a log.

Each value is {machine, line, groups, n}: n counts the matches of that pattern on that machine, so that who reads
them sees a gap where signals were refused.  At most OPEN signals of a trigger are on their way at one time; what
matches meanwhile is refused and counted.
"""

from __future__ import annotations

from .core.lines import groups, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .main import Agent

OPEN = 100
LINE_MOST = 4 << 10  # characters of a line or group in a value
TIMEOUT = 60.0  # s for the root to take a signal


class Triggers:
    def __init__(self, agent: Agent, on: Iterable[Any]) -> None:
        """`on`: pairs of a pattern and the name of its signal."""
        self.agent = agent
        self.refused = 0
        self.reason = ""
        """Why the last of them was."""
        self._all = [_Trigger(self, agent.compile(pattern.encode()), name) for pattern, name in on]

    def look(self, line: bytes) -> None:
        for trigger in self._all:
            match = trigger.search(line)
            if match:
                trigger.give(line, match)

    def refuse(self, reason: str) -> None:
        self.refused += 1
        self.reason = reason


class _Trigger:
    def __init__(self, triggers: Triggers, regex: Any, name: str) -> None:
        self.search = regex.search
        self._triggers = triggers
        self._name = name
        self._matches = 0
        self._open = 0

    def give(self, line: bytes, match: Any) -> None:
        self._matches += 1
        if self._open >= OPEN:
            self._triggers.refuse("more than %d at once" % OPEN)
            return
        agent = self._triggers.agent
        value = {"machine": agent.identity["name"], "line": text(line)[:LINE_MOST],
                 "groups": [group[:LINE_MOST] for group in groups(match)[:4]], "n": self._matches}
        self._open += 1
        agent.prepare().service.single("signal", self._name, value, TIMEOUT, self._given)

    def _given(self, ok: bool, value: Any) -> None:
        self._open -= 1
        if not ok:
            self._triggers.refuse(str(value))
