"""A one-shot through relays: each runs the agent, and logs in to its share of the machines with the `ssh` it has.

The root's work grows with the relays, and with what is printed.  A relay that cannot be reached costs only itself:
the root reaches its share directly.  One that is lost while it works loses those of its share that had not ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core.node import DONE, REFUSED
from fanout.errors import UsageError
from fanout.fleets.base import Host
from fanout.root.machine import Machine
from fanout.root.oneshot import Ended, Flat, Job, Watcher
from fanout.root.outcomes import Outcome
from fanout.root.session import Session
from fanout.root.settings import Settings

LEASE = 600.0  # s: a terminal that is stopped stops the root; a relay whose connection closes ends at once anyway
ENDING = 12.0  # s for relays to kill what runs, and to go


class Relayed:
    def __init__(self, hosts: Sequence[Host], relays: int, job: Job, settings: Settings, watcher: Watcher,
                 relay_key: str | None = None) -> None:
        """`relays` of the hosts, those marked first, reach the others; they run the command themselves too."""
        preferred = sorted(range(len(hosts)), key=lambda i: not hosts[i].relay)
        self._at = preferred  # of the ids in this tree: which host it is
        self._ids = range(len(hosts))
        self._hosts = [hosts[i] for i in preferred]
        self._relays = relays
        self._job = job
        self._settings = replace(settings, oneshot=True, recover=0.0, lease=LEASE)
        self._watcher = watcher
        self._session = Session([Machine(i, self._hosts[i], "") for i in range(relays)], [None] * relays,
                                self._settings, relay_key=relay_key)
        self._left = set(self._ids)
        self._shares = {relay: [i for i in self._ids if i % relays == relay] for relay in range(relays)}
        self._working: set[int] = set()
        self._printed: dict[tuple[int, int], int] = {}
        self._answers: dict[int, list[Any]] = {}
        """Of machines that have ended, but whose output is still on its way."""
        self._direct: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._error: Exception | None = None
        self._token = secrets.token_hex(8)

    async def run(self) -> None:
        """As `Flat.run`."""
        session = self._session
        session.on_up, session.on_down, session.on_log = self._up, self._down, self._log
        connecting = asyncio.create_task(session.connect())
        try:
            await self._over.wait()
            if self._error is not None:
                raise self._error
        finally:
            self._left.clear()  # what is killed now has not ended by itself
            connecting.cancel()
            for task in self._direct:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(connecting, *self._direct, return_exceptions=True)
            await session.end(grace=0.0, timeout=ENDING)

    def _up(self, relay: int) -> None:
        """A relay is there: it gets its share."""
        session, job, known = self._session, self._job, []
        specs: list[dict[str, Any]] = []
        self._working.add(relay)
        try:
            for i in self._shares[relay]:
                spec: dict[str, Any] = {"id": i, "local": i == relay}
                if i != relay:
                    known += session.links.address(spec, self._hosts[i])
                specs.append(spec)
            call = session.call(frames.REMOTE, machineset.single(relay), {
                "children": specs, "command": job.command, "token": self._token, "stdin": job.stdin,
                "seconds": job.connect_timeout, "timeout": job.timeout, "handshakes": self._settings.handshakes,
                "ssh": session.links.ssh(list(dict.fromkeys(known)))})
        except (OSError, ValueError) as error:
            self._error = UsageError(f"this cannot be sent to relays: {error}; use --relays 0")
            self._over.set()
            return
        call.targets |= machineset.of(self._shares[relay])
        call.on_event = self._event

    def _down(self, relays: int, outcome: Outcome, reason: str) -> None:
        for relay in machineset.members(relays):
            name = self._hosts[relay].name
            if relay in self._working:
                for i in self._shares[relay]:
                    why = reason if i == relay else f"its relay {name} is gone: {reason}"
                    self._end(i, Ended(Outcome.LOST, None, f"{why}; the command may still run"))
                continue
            share = list(self._shares[relay])
            if outcome != Outcome.NO_PYTHON:
                share.remove(relay)
                self._end(relay, Ended(outcome, None, reason))
            if share:
                flat = Flat([self._hosts[i] for i in share], self._job, self._settings, _Part(self, share))
                self._direct.add(asyncio.create_task(flat.run()))

    def _event(self, phase: int, value: bytes, machines: int) -> None:
        answer = codec.unpack(value)
        for i in machineset.members(machines):
            if phase == DONE:
                self._answers[i] = answer
                self._settle(i)
            elif phase == REFUSED:  # what the relay itself could not do
                for j in self._shares.get(i, [i]):
                    self._end(j, Ended(Outcome.FAILED, None, f"its relay could not: {answer}"))

    def _log(self, machine: int, stream: int, data: bytes, when: float) -> None:
        if machine not in self._left or stream not in (1, 2):
            return
        self._printed[machine, stream] = self._printed.get((machine, stream), 0) + len(data)
        self._watcher.output(self._at[machine], stream, data)
        self._settle(machine)

    def _settle(self, machine: int) -> None:
        """It has ended once all is here that it has printed."""
        answer = self._answers.get(machine)
        if answer is None or machine not in self._left:
            return
        outcome, code, reason, out_size, err_size, out, err = answer
        if self._printed.get((machine, 1), 0) < out_size or self._printed.get((machine, 2), 0) < err_size:
            return
        for stream, data in ((1, out), (2, err)):
            if data:
                self._watcher.output(self._at[machine], stream, data)
        self._end(machine, Ended(Outcome(outcome), code, reason))

    def output(self, machine: int, stream: int, data: bytes) -> None:
        self._watcher.output(self._at[machine], stream, data)

    def _end(self, machine: int, how: Ended) -> None:
        self._answers.pop(machine, None)
        if machine in self._left:
            self._left.discard(machine)
            self._watcher.ended(self._at[machine], how)
            if not self._left:
                self._over.set()


class _Part:
    """Watches the part of a run that the root does itself."""

    def __init__(self, whole: Relayed, machines: list[int]) -> None:
        self._whole = whole
        self._machines = machines

    def output(self, machine: int, stream: int, data: bytes) -> None:
        self._whole.output(self._machines[machine], stream, data)

    def ended(self, machine: int, how: Ended) -> None:
        self._whole._end(self._machines[machine], how)
