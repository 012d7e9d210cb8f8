"""Bounds on what a client may send: how large, how slowly, how often."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fanout.broker.problems import MEDIA_TYPE, Problem

BODY = 64 << 10  # bytes; a request with a hundred roles has four
DRAINED = 1 << 20  # bytes that are taken, and not kept: who is cut off while sending does not hear the answer
BODY_TIMEOUT = 10.0  # s
RATE = 50.0  # requests a second of one tenant, or of one address without a token
BURST = 200.0  # at once, after a while of silence
CALLERS = 10_000  # that are remembered


class Bounded:
    """ASGI: reads each body before anything else happens, up to a size and for so long; answers if that is too much."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        size, more = 0, True
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size <= BODY:
                        body += message.get("body", b"")
                    elif not more or size > DRAINED:
                        await _answer(send, _too_large())
                        return
        except TimeoutError:
            await _answer(send, _too_slow())
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)


class Rates:
    """A token bucket for each caller; for any thread."""

    def __init__(self, clock: Callable[[], float], rate: float = RATE, burst: float = BURST) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Problem when this caller has asked too often."""
        now = self._clock()
        with self._lock:
            level, at = self._buckets.pop(caller, (self._burst, now))
            level = min(self._burst, level + (now - at) * self._rate)
            self._buckets[caller] = (max(level - 1.0, 0.0), now) if level >= 1.0 else (level, now)
            if len(self._buckets) > CALLERS:
                self._buckets.popitem(last=False)
        if level < 1.0:
            wait = math.ceil((1.0 - level) / self._rate)
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests",
                f"more than {self._rate:g} requests a second", f"ask again in {wait} s", {"Retry-After": str(wait)},
            )  # fmt: skip


async def _answer(send: Send, problem: Problem) -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": int(problem.status), "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(problem.body).encode()})


def _too_large() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"the request has more than {BODY >> 10} KiB",
        "ask for less in one request",
    )  # fmt: skip


def _too_slow() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_TIMEOUT, "too-slow", f"the request was not complete within {BODY_TIMEOUT:g} s", "ask again"
    )
