"""What happens when a link is lost: the agent behind it still runs, so a way to it is found again.

A lost machine is *detached* first: its processes go on, calls to it wait.  It is attached again where it was, or
under a sibling relay with room, or by the root itself.  When its relay cannot be reached at the first attempt,
what hung below that relay is attached elsewhere without waiting for it.  A machine that stays unreachable for
the recovery time, or whose agent turns out to be dead, is lost, with the reason; nothing else is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fanout.agent.core import machineset
from fanout.root.outcomes import Outcome

if TYPE_CHECKING:
    from fanout.root.session import Session

ATTEMPT = 3.0  # s for one attempt to attach: what cannot be reached in that time is tried another way
PAUSE = 0.5  # s between attempts at a machine
FINAL = (Outcome.AUTH_FAILED, Outcome.HOST_KEY, Outcome.NO_PYTHON)
"""What is wrong with a machine that was never there, and does not pass: once every parent has met it, it is so."""


class Recovery:
    def __init__(self, session: Session) -> None:
        self.session = session
        self._answers: dict[int, asyncio.Future[tuple[str, Any]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._since: dict[int, float] = {}
        self.recovered: list[float] = []
        """Seconds from the loss of each machine until it was attached again."""

    def detached(self, machines: int, reason: str) -> None:
        """These cannot be reached any more, for now.  The topmost are attached again, with all below them."""
        now = self.session.now()
        for machine in machineset.members(machines):
            self._since.setdefault(machine, now)
            parent = self.session.topology.parents[machine]
            if parent is None or not machines >> parent & 1:
                self._start(machine, reason)

    def _start(self, machine: int, reason: str) -> None:
        under_way = self._tasks.get(machine)
        if under_way is None or under_way.done():
            task = asyncio.get_running_loop().create_task(self._recover(machine, reason))
            self._tasks[machine] = task
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        for machine, known in list(self._tasks.items()):
            if known is task:
                del self._tasks[machine]

    async def _recover(self, machine: int, reason: str) -> None:
        session = self.session
        deadline = session.now() + session.settings.recover
        first = True
        while session.detached >> machine & 1:
            for parent in self._parents(machine):
                kind, value = await self._attach(machine, parent, max(0.1, min(ATTEMPT, deadline - session.now())))
                if kind == "up":  # unless it is lost again since
                    deadline = session.now() + session.settings.recover
                    break
                outcome, why = value
                if first:
                    first = False
                    self._release(machine, why)
                if outcome == Outcome.LOST or session.now() >= deadline:
                    session.lose(machineset.single(machine), Outcome.LOST, f"{reason}; then: {why}")
                    return
            else:
                if outcome in FINAL and not session.joined >> machine & 1:
                    session.lose(machineset.single(machine), outcome, why)
                    return
            if session.detached >> machine & 1:
                await asyncio.sleep(PAUSE)

    def _release(self, relay: int, why: str) -> None:
        """The relay cannot be reached at once: its children do not wait for it, nor those that it was to connect."""
        session = self.session
        reason = f"its relay {session.machines[relay].name} cannot be reached: {why}"
        children = session.astray(relay)
        session.detached |= children
        for child in machineset.members(children):
            self._start(child, reason)

    def _parents(self, machine: int) -> list[int | None]:
        """Where to attach it: where it was, then sibling relays with room (the emptiest first), then the root."""
        up, topology = self.session.up, self.session.topology
        old = topology.parents[machine]
        found: list[int | None] = [old] if old is None or up >> old & 1 else []
        if old is not None:
            others = topology.relays & up & ~machineset.single(old) & ~topology.subtree(machine)
            children = {relay: machineset.count(topology.children(relay)) for relay in machineset.members(others)}
            found += sorted((r for r in children if children[r] < topology.width), key=children.__getitem__)[:2]
        return found if None in found else [*found, None]

    async def _attach(self, machine: int, parent: int | None, seconds: float) -> tuple[str, Any]:
        """One attempt; ("up", None), or ("down", (outcome, reason))."""
        session = self.session
        session.topology.move(machine, parent)
        answer: asyncio.Future[tuple[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[machine] = answer
        session.connect_one(machine, seconds)
        try:
            async with asyncio.timeout(seconds + 1.0):
                return await answer
        except TimeoutError:
            return "down", (Outcome.UNREACHABLE, f"it could not be attached within {seconds:.0f} s")
        finally:
            self._answers.pop(machine, None)

    def came(self, machine: int) -> None:
        """It is attached (or, where it never was before, connected)."""
        since = self._since.pop(machine, None)
        if since is not None:
            self.recovered.append(self.session.now() - since)
        answer = self._answers.get(machine)
        if answer is not None and not answer.done():
            answer.set_result(("up", None))

    def failed(self, machine: int, outcome: Outcome, reason: str) -> bool:
        """An attempt has failed; False when none was under way."""
        answer = self._answers.get(machine)
        if answer is None:
            return False
        if not answer.done():
            answer.set_result(("down", (outcome, reason)))
        return True

    def refused(self, number: int, reason: str) -> None:
        """A relay could not do what this call asked of it, so nobody was connected under it."""
        for machine, call in self.session.topology.calls.items():
            if call == number:
                self.failed(machine, Outcome.UNREACHABLE, f"its relay refused: {reason}")

    def gave_up(self, machines: int) -> None:
        for machine in machineset.members(machines):
            self._since.pop(machine, None)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
