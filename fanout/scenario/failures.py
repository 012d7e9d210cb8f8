"""What a scenario gets when a check fails: the text names machines, cause and last words, folded and bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fanout.agent.core import machineset
from fanout.errors import ScenarioFailure, Timeout
from fanout.root.outcomes import Failure, Outcome

if TYPE_CHECKING:
    from fanout.scenario.context import Context
    from fanout.scenario.fetching import Fetched
    from fanout.scenario.results import Results

ENTRIES = 8  # different causes in a message
LINES = 8  # last lines shown for one
LINE = 300  # characters of a line
FAILURES = 1000  # machines listed by one failure


class Trouble(NamedTuple):
    """One cause, and whom it befell."""

    what: str
    bits: int
    outcome: Outcome
    said: Sequence[tuple[str, bytes]] = ()
    """(machine, its last output)"""


class CommandFailed(ScenarioFailure):
    """A command did not succeed on every machine; `results` has all."""

    def __init__(self, message: str, failures: list[Failure], results: Results) -> None:
        super().__init__(message)
        self.failures = failures
        self.results = results


class MemberFailed(CommandFailed):
    """A member function did not return on every machine; the text has the remote tracebacks, `results` has all."""


class SyncFailed(ScenarioFailure):
    """A barrier, or a wait for signals or values, that was not granted: the text says why, and who is missing."""


class InvariantBroken(ScenarioFailure):
    """What must hold all the time does not: see `fleet.always`."""


class ProcessFailed(ScenarioFailure):
    """A process could not be started, ended too early, or could not be stopped."""

    def __init__(self, message: str, failures: list[Failure]) -> None:
        super().__init__(message)
        self.failures = failures


class ShipFailed(ScenarioFailure):
    """A file or folder could not be brought to every machine."""

    def __init__(self, message: str, failures: list[Failure]) -> None:
        super().__init__(message)
        self.failures = failures


class FetchFailed(ScenarioFailure):
    """Not everything that was to be fetched has come; `fetched` has what did."""

    def __init__(self, message: str, failures: list[Failure], fetched: Fetched) -> None:
        super().__init__(message)
        self.failures = failures
        self.fetched = fetched


class ProcessTimeout(Timeout):
    """What was waited for did not come in time."""

    def __init__(self, message: str, failures: list[Failure]) -> None:
        super().__init__(message)
        self.failures = failures


def message(context: Context, head: str, troubles: Sequence[Trouble], lines: int = LINES) -> str:
    """`lines`: the most that are shown of what was said last."""
    text = [head + ":"]
    alike: dict[str, Trouble] = {}
    for trouble in troubles:
        first = alike.setdefault(trouble.what, trouble)
        alike[trouble.what] = first._replace(bits=first.bits | trouble.bits)
    ordered = sorted(alike.values(), key=lambda trouble: -machineset.count(trouble.bits))
    for trouble in ordered[:ENTRIES]:
        text.append(f"  {trouble.what}: {context.names(trouble.bits)}")
        for machine, said in trouble.said:
            shown = last_lines(said, lines)
            if shown:
                text.append(f"    last lines of {machine}:")
                text += [f"      {line}" for line in shown]
    if len(ordered) > ENTRIES:
        rest = sum(machineset.count(trouble.bits) for trouble in ordered[ENTRIES:])
        text.append(f"  and {len(ordered) - ENTRIES} more causes on {rest} machines")
    return "\n".join(text)


def failures(context: Context, troubles: Sequence[Trouble]) -> list[Failure]:
    found = [
        Failure(context.machines[machine].name, trouble.outcome, trouble.what)
        for trouble in troubles
        for machine in machineset.members(trouble.bits)
    ]
    return found[:FAILURES]


def last_lines(output: bytes, most: int = LINES) -> list[str]:
    lines = output.decode("utf-8", "replace").rstrip().splitlines()[-most:]
    return [line if len(line) <= LINE else f"{line[:LINE]}..." for line in lines]
