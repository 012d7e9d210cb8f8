"""What goes on in a run, for other programs of the same user: logs as they grow, by a socket in the run's folder.

One who asks says which processes, in a line of JSON; then gets, as msgpack, `[machine, process, bytes]` as it comes,
and `[machine, process, text]` for what is to be known.  Only while someone asks do machines send anything for it, and
no process ever waits for it: who is too slow misses a part, and is told how much.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack

from fanout.agent.core import frames, machineset, parcels
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.node import REFUSED
from fanout.root.call import Call
from fanout.root.parcels import Opener
from fanout.scenario.context import Context
from fanout.scenario.sockets import listen

LOOK = 0.5  # s between looks for processes that are new
BEHIND = 4 << 20  # bytes that one who reads slowly may be behind
ASKED = 1 << 20  # bytes of the line that asks
PATIENCE = 5.0  # s that it may take to come
WATCHERS = 16


@contextlib.asynccontextmanager
async def live(context: Context, path: Path | None) -> AsyncIterator[None]:
    """Serve those who ask, until the block ends.  A run goes on without it where it cannot be had."""
    if path is None:
        yield
        return
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(tasks) < WATCHERS:
            tasks.add(task)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, re.error, asyncio.CancelledError):
                await _Watcher(context, writer).serve(reader)
            tasks.discard(task)
        writer.close()

    try:
        server = await asyncio.start_unix_server(serve, sock=listen(path), limit=ASKED)
    except OSError as error:
        context.observer.note(f"fanout logs -f cannot follow this run: {path}: {error.strerror or error}")
        yield
        return
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await asyncio.to_thread(path.unlink, missing_ok=True)


class _Watcher:
    def __init__(self, context: Context, writer: asyncio.StreamWriter) -> None:
        self._context = context
        self._writer = writer
        self._calls: dict[int, Call] = {}
        """Call of a spawn -> the call that follows it."""
        self._openers: dict[tuple[int, int], Opener] = {}
        self._missed: dict[tuple[str, str], int] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the other end is gone."""
        async with asyncio.timeout(PATIENCE):
            asked = json.loads(await reader.readline())
        machines = None if asked["machines"] is None else set(map(str, asked["machines"]))
        process, tail = asked["process"], int(asked["tail"])
        bits = machineset.of(m.id for m in self._context.machines if machines is None or m.name in machines)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not gone.done():
                for number, name in list(self._context.processes.items()):
                    if number not in self._calls and process in (None, name):
                        self._follow(number, name, bits & self._context.spawned[number], tail)
                await asyncio.wait({gone}, timeout=LOOK)
                tail = 1 << 40  # of what starts now, all
        finally:
            gone.cancel()
            self._stop()

    def _follow(self, number: int, name: str, bits: int, tail: int) -> None:
        session = self._context.session
        if not bits:
            return
        call = session.call(frames.FETCH, bits, {"what": "follow", "process": number, "tail": tail})
        self._calls[number] = call
        session.streams[call.number] = lambda machine, data: self._take(call, name, machine, data)

        def told(phase: int, value: bytes, machines: int) -> None:
            if phase == REFUSED:
                why = msgpack.unpackb(value).partition(": ")[2]
                for machine in machineset.members(machines):
                    self._send(self._context.machines[machine].name, name, why)

        call.on_event = told

    def _take(self, call: Call, process: str, machine: int, data: bytes) -> None:
        if not call.targets >> machine & 1:
            return
        name = self._context.machines[machine].name
        opener = self._openers.setdefault((call.number, machine), Opener())
        try:
            for entry in opener.feed(data):
                if entry[0] == parcels.TEXT:
                    self._send(name, process, entry[1])
                elif entry[0] == parcels.SKIPPED:
                    self._send(name, process, f"{entry[1]} bytes were rotated out before they could be sent")
        except ProtocolError as error:
            self._send(name, process, f"what it sent makes no sense: {error}")

    def _send(self, machine: str, process: str, what: bytes | str) -> None:
        key = machine, process
        if self._writer.transport.get_write_buffer_size() > BEHIND:
            self._missed[key] = self._missed.get(key, 0) + len(what)
            return
        missed = self._missed.pop(key, 0)
        messages: list[list[Any]] = [[*key, what]]
        if missed:
            messages.insert(0, [*key, f"{missed} bytes were left out: this reader is too slow"])
        self._writer.write(b"".join(map(msgpack.packb, messages)))

    def _stop(self) -> None:
        session = self._context.session
        for call in self._calls.values():
            still = call.targets & session.up
            if still:
                session.forget(session.call(frames.FETCH, still, {"what": "stop", "call": call.number}))
            session.streams[call.number] = lambda machine, data: None
            session.forget(call)
