"""Barriers, signals and topics, as the scenario itself asks for them: the root takes part without being a member.

The same words mean the same in members (`me.barrier`) and in the `fanout` helper of any program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fanout.agent.core import limits, machineset
from fanout.durations import parse_duration
from fanout.errors import UsageError
from fanout.root.sync import Answer, Notify
from fanout.scenario.context import Context
from fanout.scenario.failures import SyncFailed


class Synchronise:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sync = context.session.sync
        self._generations: dict[str, int] = {}

    async def barrier(
        self, name: str, bits: int, count: int | None, quorum: float | None, timeout: str | float
    ) -> int:
        """`bits` 0: everyone."""
        _valid(lambda: limits.name(name))
        members = bits or self._sync.everyone
        size = machineset.count(members)
        needed = _valid(lambda: limits.needed(size, count, quorum))
        if needed > size:
            raise UsageError(f"barrier {name}: {needed} of {size} members can never arrive")
        seconds = parse_duration(timeout)
        generation = self._generations[name] = self._generations.get(name, 0) + 1
        where = self._context.names(members)
        arrived: int = await self._ask(
            f"barrier {name} of {where}", seconds,
            lambda deadline, notify: self._sync.barrier(name, generation, members, needed, deadline, notify),
        )  # fmt: skip
        return arrived

    async def wait(self, kind: str, name: str, after: int, count: int, timeout: str | float) -> list[Any]:
        _valid(lambda: limits.name(name))
        _valid(lambda: limits.whole(count))
        values: list[Any] = await self._ask(
            f"{kind} {name} for {count}", parse_duration(timeout),
            lambda deadline, notify: self._sync.wait(kind, name, after, count, deadline, notify),
        )  # fmt: skip
        return values

    def give(self, kind: str, name: str, value: Any) -> int:
        """UsageError for a value that cannot travel; SyncFailed when there are too many."""
        _valid(lambda: limits.name(name))
        _valid(lambda: limits.value(value, f"{kind} {name}: the value"))
        ok, place = (self._sync.signal if kind == "signal" else self._sync.publish)(name, value)
        self._context.session.kick()
        if not ok:
            raise SyncFailed(f"{kind} {place}")
        number: int = place
        return number

    async def _ask(self, text: str, seconds: float, ask: Callable[[float, Notify], None]) -> Any:
        session = self._context.session
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def notify(answer: Answer) -> None:
            if not answered.done():  # cancelled, when the scenario does not wait any more
                answered.set_result(answer)

        ask(session.now() + seconds, notify)
        session.kick()
        with self._context.doing(text):
            ok, value = await answered
        if not ok:
            raise SyncFailed(value)
        return value


def _valid(check: Callable[[], Any]) -> Any:
    try:
        return check()
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
