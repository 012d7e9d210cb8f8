"""A command on its way through the tree, and what came back, folded.

One call goes to a set of machines.  Each machine answers with events in phases (DONE for a command; STARTED,
READY, EXITED for a process); a machine that is lost answers no more, and counts as settled for every wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core.node import DONE, ENDED, EXITED, REFUSED
from fanout.root.outcomes import Outcome

_SHAPES: dict[tuple[int, int], tuple[Any, ...]] = {
    (frames.RUN, DONE): (str, int, bytes, bytes, int),
    (frames.EACH, DONE): (str, int, bytes, bytes, int, bytes),
    (frames.SPAWN, EXITED): (int, bool, bytes),
    (frames.END, ENDED): (int, int, list),
    (frames.REMOTE, DONE): (str, (int, type(None)), str, int, int, bytes, bytes),
}
"""What the answers to a kind of command look like, where they are taken apart: machines are not believed blindly."""


class Call:
    def __init__(self, number: int, targets: int, kind: int = 0) -> None:
        self.number = number
        self.kind = kind
        self.targets = targets
        self.lost = 0
        """Targets that were lost, or never reached; the session's `down` says why."""
        self.refused: list[tuple[int, str]] = []
        """(set, reason): machines that could not make sense of the command."""
        self.on_event: Callable[[int, bytes, int], None] = lambda phase, value, machines: None
        """Told of (phase, packed value, machines that had not answered before)."""
        self._groups: dict[tuple[int, bytes], dict[bytes, int]] = {}
        self._heard: dict[tuple[int, bytes], int] = {}
        self._waiters: set[asyncio.Event] = set()

    def groups(self, phase: int, extra: bytes = b"") -> list[tuple[int, Any]]:
        """(set, value): equal answers of many machines are one entry.  Sets are disjoint."""
        return [(machines, codec.unpack(value)) for value, machines in self._groups.get((phase, extra), {}).items()]

    def heard(self, phase: int, extra: bytes = b"") -> int:
        """The set of machines that answered."""
        return self._heard.get((phase, extra), 0)

    def settled(self, phase: int, extra: bytes = b"") -> int:
        """The targets that have answered, or never will."""
        refused = 0
        for machines, _ in self.refused:
            refused |= machines
        return self.heard(phase, extra) | self.lost | refused

    async def wait(self, phase: int, *, timeout: float, extra: bytes = b"", enough: int | None = None) -> bool:
        """Until all targets are settled (or `enough` have answered); False when `timeout` seconds passed first."""

        def done() -> bool:
            if enough is not None and machineset.count(self.heard(phase, extra)) >= enough:
                return True
            return not self.targets & ~self.settled(phase, extra)

        return await self.until(done, timeout)

    async def until(self, done: Callable[[], bool], timeout: float) -> bool:
        """Until `done()`, which is asked again whenever something is heard; False after `timeout` seconds."""
        changed = asyncio.Event()
        self._waiters.add(changed)
        try:
            async with asyncio.timeout(timeout):
                while not done():
                    changed.clear()
                    await changed.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(changed)

    # What the session tells.

    def in_shape(self, phase: int, value: bytes) -> bool:
        """Whether an answer can be one to this command."""
        shape = _SHAPES.get((self.kind, phase))
        try:
            if shape is None:
                codec.unpack(value)
            elif shape[0] is str:
                Outcome(codec.fields(value, *shape)[0])
            else:
                codec.fields(value, *shape)
        except (codec.ProtocolError, ValueError):
            return False
        return True

    def event(self, phase: int, extra: bytes, value: bytes, machines: int) -> None:
        """`value` is packed.  Idempotent: a target's first answer in a phase counts, repetitions do not."""
        key = (phase, extra)
        new = machines & self.targets & ~self._heard.get(key, 0)
        if not new:
            return
        self._heard[key] = self._heard.get(key, 0) | new
        groups = self._groups.setdefault(key, {})
        groups[value] = groups.get(value, 0) | new
        self.on_event(phase, value, new)
        self.wake()

    def refuse(self, machines: int, reason: str) -> None:
        self.refused.append((machines, reason))
        self.on_event(REFUSED, codec.pack(reason), machines)
        self.wake()

    def lose(self, machines: int) -> None:
        if machines & self.targets & ~self.lost:
            self.lost |= machines & self.targets
            self.wake()

    def wake(self) -> None:
        """Let those who wait look again."""
        for waiter in self._waiters:
            waiter.set()
