"""`each`: a member function on every machine of a set, in a Python process of its own, waited for."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import fanout
from fanout.agent.core import codec, frames, limits, machineset
from fanout.agent.core.node import DONE
from fanout.durations import parse_duration
from fanout.durations import show as show_duration
from fanout.errors import UsageError
from fanout.root.call import Call
from fanout.root.outcomes import Outcome
from fanout.scenario import code, failures
from fanout.scenario.code import Member
from fanout.scenario.context import Context
from fanout.scenario.failures import MemberFailed, Trouble
from fanout.scenario.group import Group
from fanout.scenario.results import Result, Results
from fanout.scenario.running import MARGIN, said, unanswered


async def each(
    context: Context, bits: int, member: Member, args: tuple[Any, ...], kwargs: dict[str, Any], *,
    timeout: str | float, check: bool,
) -> Results:
    place = code.find(member, context.folder)
    seconds = parse_duration(timeout)
    if not seconds:
        raise UsageError("timeout=0: a member function needs some time")
    _check(member, place.function, args, kwargs)
    if not bits:
        raise UsageError(f"{place.function}: the group is empty")
    files = code.collect(context.folder)
    body = {
        "code_id": files.id, "files": None, "module": place.module, "function": place.function, "args": list(args),
        "kwargs": kwargs, "origin": str(context.folder), "timeout": seconds,
        "public": fanout.__all__,
    }  # fmt: skip
    calls = []
    sent = context.sent.get(files.id, 0)
    if bits & ~sent:
        calls.append(context.call(frames.EACH, bits & ~sent, {**body, "files": files.files}))
        context.sent[files.id] = sent | bits
    if bits & sent:
        calls.append(context.call(frames.EACH, bits & sent, body))
    try:
        with context.doing(f"running {place.function} on {context.names(bits)}"):
            for call in calls:
                await call.wait(DONE, timeout=seconds + MARGIN)
    finally:
        for call in calls:
            context.session.forget(call)
    results = Results(context, [one for call in calls for one in _collect(context, call, seconds)])
    if check and not results.ok:
        raise _failed(context, place.function, results)
    return results


def _check(member: Member, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """What the machines would say anyway, before anything starts."""
    try:
        inspect.signature(member).bind(None, *args, **kwargs)
        for number, value in enumerate(args, 1):
            limits.plain(value, f"argument {number}")
        for key, value in kwargs.items():
            limits.plain(value, f"argument {key!r}")
    except (TypeError, ValueError) as error:
        raise UsageError(f"each({name}): {error}") from None


def _collect(context: Context, call: Call, seconds: float) -> list[Result]:
    """Every target is in exactly one of the results."""
    found = []
    for bits, (outcome, _, stdout, stderr, cut, value) in call.groups(DONE):
        one = Result(Group(context, bits), Outcome(outcome), stdout_bytes=stdout, stderr_bytes=stderr, cut=cut)
        if one.outcome is Outcome.OK:
            one = replace(one, value=codec.unpack(value))
        elif one.outcome is Outcome.TIMED_OUT:
            one = replace(one, reason=f"killed after {show_duration(seconds)}")
        else:
            lines = one.stderr.strip().splitlines()
            one = replace(one, reason=lines[-1] if lines else "it ended without a word")
        found.append(one)
    return found + unanswered(context, call, seconds)


def _failed(context: Context, name: str, results: Results) -> MemberFailed:
    troubles = [
        Trouble(one.reason if one.outcome is Outcome.FAILED else one.status, one.machines.bits, one.outcome, said(one))
        for one in results if not one.ok
    ]  # fmt: skip
    total = sum(machineset.count(one.machines.bits) for one in results)
    where = f"{len(results.failed)} of {total} machines" if total > 1 else str(results.failed)
    head = f"member {name} failed on {where}"
    text = failures.message(context, head, troubles, lines=TRACE_LINES)
    return MemberFailed(text, failures.failures(context, troubles), results)


TRACE_LINES = 30
"""Lines of a remote traceback in a message."""
