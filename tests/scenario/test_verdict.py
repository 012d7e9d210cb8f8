"""Checks that fail are failures, everything else is an error; the reason has the scenario's own lines."""

from __future__ import annotations

import asyncio

import pytest

from fanout.errors import ScenarioFailure, UsageError
from fanout.root.outcomes import Failure, Outcome, RunOutcome
from fanout.scenario.failures import ProcessFailed
from fanout.scenario.verdict import Verdict, judge


def verdict(error: BaseException) -> Verdict:
    with pytest.raises(type(error)) as caught:
        raise error
    return judge(caught.value)


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (ScenarioFailure("it did not come true"), RunOutcome.FAILED, "it did not come true"),
        (AssertionError("3 is not 4"), RunOutcome.FAILED, "AssertionError: 3 is not 4"),
        (AssertionError(), RunOutcome.FAILED, "AssertionError"),
        (UsageError("no such role"), RunOutcome.ERROR, "no such role"),
        (KeyError("x"), RunOutcome.ERROR, "KeyError: 'x'"),
        (SystemExit(3), RunOutcome.ERROR, "the scenario called sys.exit"),
        (asyncio.CancelledError(), RunOutcome.ERROR, "cancelled from within"),
        (ExceptionGroup("several", [AssertionError("a"), ScenarioFailure("b")]), RunOutcome.FAILED, "(and 1 more"),
        (ExceptionGroup("several", [AssertionError("a"), KeyError("b")]), RunOutcome.ERROR, "KeyError: 'b'"),
    ],
)
def test_what_an_exception_means(error: BaseException, outcome: RunOutcome, said: str) -> None:
    found = verdict(error)
    assert found.outcome is outcome
    assert said in found.reason
    assert "test_verdict.py" in found.reason


def test_failures_of_machines_are_gathered() -> None:
    lost = Failure("a", Outcome.LOST, "gone")
    late = Failure("b", Outcome.TIMED_OUT, "late")
    group = ExceptionGroup("", [ProcessFailed("x", [lost]), ProcessFailed("y", [late])])
    assert verdict(group).failures == [lost, late]
