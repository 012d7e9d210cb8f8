"""What an exception that ended a scenario means for the run.  Pure."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from typing import NamedTuple

from fanout.errors import FanoutError, ScenarioFailure
from fanout.root.outcomes import Failure, RunOutcome

PACKAGE = str(Path(__file__).parent.parent)
LIBRARY = str(Path(asyncio.__file__).parent.parent)
FRAMES = 8
"""Most lines of the scenario's traceback in a reason."""


class Verdict(NamedTuple):
    outcome: RunOutcome
    reason: str
    failures: list[Failure]


def judge(error: BaseException) -> Verdict:
    """FAILED for checks and assertions, ERROR for everything else; the reason has the scenario's own lines."""
    leaves = _leaves(error)
    failed = all(isinstance(leaf, ScenarioFailure | AssertionError) for leaf in leaves)
    # Of several at once, one that is no mere failure says most.
    first = next((leaf for leaf in leaves if failed or not isinstance(leaf, ScenarioFailure | AssertionError)), error)
    notes = getattr(first, "__notes__", [])
    text = "\n".join([str(first), *notes]) if isinstance(first, FanoutError) else _plain(first)
    if len(leaves) > 1:
        text += f"\n(and {len(leaves) - 1} more at the same time)"
    reason = "\n".join([text, *_lines(error if error.__traceback__ else first, last=1 if failed else FRAMES)])
    failures = [failure for leaf in leaves for failure in getattr(leaf, "failures", [])]
    return Verdict(RunOutcome.FAILED if failed else RunOutcome.ERROR, reason, failures)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _plain(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "the scenario called sys.exit: return, or raise an error, instead"
    if isinstance(error, asyncio.CancelledError):
        return "the scenario was cancelled from within"
    return "".join(traceback.format_exception_only(error)).strip()


def _lines(error: BaseException, last: int) -> list[str]:
    """The frames that are neither fanout's nor Python's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, LIBRARY, "<frozen"))
    ]
    return [f"  {frame.filename}, line {frame.lineno}: {frame.line}" for frame in frames[-last:]]
