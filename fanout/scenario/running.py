"""`run`: a command on a set of machines, waited for."""

from __future__ import annotations

from collections.abc import Mapping

from fanout.agent.core import frames, machineset
from fanout.agent.core.node import CAPTURE_MOST, DONE
from fanout.durations import parse_duration
from fanout.durations import show as show_duration
from fanout.errors import UsageError
from fanout.root.call import Call
from fanout.root.outcomes import Outcome
from fanout.scenario import failures
from fanout.scenario.command import Command, Place, launch, show
from fanout.scenario.context import Context
from fanout.scenario.failures import CommandFailed, Trouble
from fanout.scenario.group import Group
from fanout.scenario.results import Result, Results
from fanout.scenario.sizes import parse_size

MARGIN = 15.0
"""Seconds that an answer may take beyond the command's own timeout: to kill it, and to come through the tree."""
MAX_CAPTURE = CAPTURE_MOST
"""A machine keeps no more, so that both outputs fit into one answer."""


async def run(
    context: Context,
    bits: int,
    command: Command,
    *,
    check: bool,
    timeout: str | float,
    env: Mapping[str, str] | None,
    cwd: Place | None,
    stdin: str | bytes | None,
    capture: str | int,
) -> Results:
    body = launch(command, env=env, cwd=cwd, stdin=stdin)
    seconds = body["timeout"] = parse_duration(timeout)
    if not seconds:
        raise UsageError("timeout=0: a command needs some time")
    body["capture"] = parse_size(capture)
    if body["capture"] > MAX_CAPTURE:
        raise UsageError(f"capture={capture!r}: at most {MAX_CAPTURE} bytes; let the command write to a file instead")
    text = show(command)
    if not bits:
        raise UsageError(f"{text!r}: the group is empty")
    call = context.call(frames.RUN, bits, body)
    try:
        with context.doing(f"running {text!r} on {context.names(bits)}"):
            await call.wait(DONE, timeout=seconds + MARGIN)
    finally:
        context.session.forget(call)
    results = collect(context, call, seconds)
    if check and not results.ok:
        raise failed(context, text, results)
    return results


def collect(context: Context, call: Call, seconds: float) -> Results:
    """Every target is in exactly one of the results: nothing is ever merely missing."""
    found: list[Result] = []
    for bits, (outcome, code, stdout, stderr, cut) in call.groups(DONE):
        reason = f"killed after {show_duration(seconds)}" if outcome == Outcome.TIMED_OUT else ""
        found.append(Result(Group(context, bits), Outcome(outcome), code, stdout, stderr, cut, reason))
    return Results(context, found + unanswered(context, call, seconds))


def unanswered(context: Context, call: Call, seconds: float) -> list[Result]:
    """Why the others did not."""
    found: list[Result] = []
    left = call.targets & ~call.heard(DONE)
    for refused, why in call.refused:
        found.append(Result(Group(context, refused & left), Outcome.FAILED, reason=why))
        left &= ~refused
    for bits, outcome, reason in context.why_down(left & call.lost):
        found.append(Result(Group(context, bits), outcome, reason=reason))
    left &= ~call.lost
    if left:
        waited = show_duration(seconds + MARGIN)
        found.append(Result(Group(context, left), Outcome.TIMED_OUT, reason=f"no answer within {waited}"))
    return [one for one in found if one.machines.bits]


def failed(context: Context, text: str, results: Results) -> CommandFailed:
    bad = results.failed
    troubles = [
        Trouble(one.status, one.machines.bits, one.outcome, said(one))
        for one in results
        if not one.ok
    ]
    total = sum(machineset.count(one.machines.bits) for one in results)
    where = f"{len(bad)} of {total} machines" if total > 1 else str(bad)
    head = f"{text!r} failed on {where}"
    return CommandFailed(failures.message(context, head, troubles), failures.failures(context, troubles), results)


def said(result: Result) -> list[tuple[str, bytes]]:
    """The end of its standard error; where that is empty, of its output."""
    said = result.stderr_bytes.strip() or result.stdout_bytes
    return [(result.machines[0].name, said)] if said else []
