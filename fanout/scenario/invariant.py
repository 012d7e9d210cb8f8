"""`always`: something must hold all the time while a block runs; where it does not, the block ends there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fanout.durations import parse_duration
from fanout.errors import FanoutError, UsageError
from fanout.scenario.failures import InvariantBroken

Check = Callable[[], object | Awaitable[object]]


@asynccontextmanager
async def always(check: Check, every: str | float, timeout: str | float) -> AsyncIterator[None]:
    interval, limit = parse_duration(every), parse_duration(timeout)
    if not interval or not limit:
        raise UsageError("always: every and timeout must be more than 0")
    name = getattr(check, "__name__", repr(check))
    await _look(check, name, limit)
    body = asyncio.current_task()
    assert body is not None
    broken: list[InvariantBroken] = []

    async def watch() -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                await _look(check, name, limit)
            except InvariantBroken as error:
                broken.append(error)
                body.cancel()
                return

    watching = asyncio.create_task(watch())
    try:
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    except asyncio.CancelledError:
        if broken and body.uncancel() == 0:
            raise broken[0] from broken[0].__cause__
        raise
    if broken:  # and the block has caught its cancellation
        raise broken[0]
    await _look(check, name, limit)


async def _look(check: Check, name: str, limit: float) -> None:
    """InvariantBroken when it does not hold, raises, or takes too long."""
    try:
        async with asyncio.timeout(limit):
            holds = check()
            if inspect.isawaitable(holds):
                holds = await holds
    except asyncio.CancelledError:
        raise
    except Exception as error:
        said = str(error) if isinstance(error, FanoutError) else f"{type(error).__name__}: {error}"
        raise InvariantBroken(f"what must always hold, {name}, broke: {said}") from error
    if not holds:
        hint = "; a check returns True while it holds" if holds is None else ""
        raise InvariantBroken(f"what must always hold, {name}, broke: it returned {holds!r}{hint}")
