"""The root of the tree while a run lasts: brings the tree up, sends calls, hands on what arrives, takes it down.

The logic is the same Node that agents run; this module gives it connections, a clock and an event loop.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from fanout.agent.core import codec, diagnose, frames, machineset, merge
from fanout.agent.core import node as tree
from fanout.names import fold
from fanout.root import descriptors
from fanout.root.call import Call
from fanout.root.links import Links
from fanout.root.machine import Machine
from fanout.root.measured import Measured
from fanout.root.outcomes import Outcome, Report
from fanout.root.outstanding import Outstanding
from fanout.root.payload import payload
from fanout.root.records import Records
from fanout.root.recovery import Recovery
from fanout.root.settings import Settings
from fanout.root.shipping import Shipping
from fanout.root.sync import Sync
from fanout.root.topology import Topology

_PARTS = {frames.EACH: "each", frames.FETCH: "fetch", frames.SHIP: "files", frames.REMOTE: "remote"}
"""The part of the agent that a kind of command needs: every machine gets it before the first of them."""

FROM_RELAY = "; that is from its relay: --relays 0 tries it from here"
DESCRIBED = 5  # machines named one by one in an error
PROBLEMS_MOST = 1000  # kept for the run's result
DETACHED_MOST = 8.0  # s that the end of a run waits for machines whose link is lost
MARGIN = 5.0  # s that a relay gets to tell which of its children did not come up in time


class Session:
    """One run's tree.  `connect`, then `call` as often as wanted, then `end` (or `abort`)."""

    def __init__(
        self,
        machines: Sequence[Machine],
        parents: Sequence[int | None],
        settings: Settings,
        *,
        relay_key: str | None = None,
        booting: int = 0,
    ) -> None:
        """`parents`: see `Topology`.

        `booting`: the machines that nobody may connect to before `arrived` or `lose` has told of them.
        """
        self.machines = list(machines)
        self.topology = Topology(parents, forgotten=bool(settings.heir))
        self.settings = settings
        self.payload = payload()
        self.node = tree.Node(self.payload.build, time.monotonic(), root=True)
        self.up = 0
        """The machines that can be reached now."""
        self.joined = 0
        """The machines that ever were."""
        self.down: dict[int, tuple[Outcome, str]] = {}
        """Why the others cannot: machine -> (outcome, reason)."""
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_log: Callable[[int, int, bytes, float], None] = lambda machine, call, data, when: None
        """`when`: seconds since the epoch by the root's clock, as the machine knows it."""
        self.epoch = time.time() - time.monotonic()
        self.on_up: Callable[[int], None] = lambda machine: None
        """A machine is there."""
        self.on_down: Callable[[int, Outcome, str], None] = lambda machines, outcome, reason: None
        """A set of machines could not be reached, or was lost."""
        self.forwarded = 0
        self.rotated = 0
        """Bytes of logs that came, and that machines' size caps have cost."""
        self._measured = Measured()
        self.metrics = self._measured.metrics
        """(name, unit, label) -> what machines measured, merged."""
        self.sync = Sync(machineset.of(range(len(self.machines))), self.describe)
        self.problems: list[tuple[int, str]] = []
        """(set, what could not be cleaned up or kept) from the end of the run."""
        self.ended = 0
        """The machines that have said that nothing of the run is left on them."""
        self.relay_key = relay_key
        self.booting = booting
        """Machines that are not ready: a connection would find an sshd that is not prepared for this run."""
        self.unaided: dict[int, str] = {}
        """Machines that the root reaches itself, and why their relay could not."""
        self.detached = 0
        """Machines whose link is lost, and being made anew: calls to them wait."""
        self.links = Links(self)
        self.recovery = Recovery(self)
        self.shipping = Shipping(self)
        self._records = Records(self)
        self._outstanding = Outstanding()
        self._parts: list[str] = []
        """Those that machines have been sent."""
        self._calls: dict[int, Call] = {}
        self._number = settings.heir
        self._deadline = 0.0
        self._settled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._kicked = False
        self._came_by: dict[int, int] = {}
        """Machine -> the call under which it came last: that is heard once."""
        self._introduced = False
        """Connecting is over: from here on a machine that goes is lost, not one that never worked."""
        self._ending = False
        self.streams: dict[int, Callable[[int, bytes], None]] = {}
        """Call -> who takes (machine, bytes) of what is sent in bulk for it, other than logs."""

    def now(self) -> float:
        return time.monotonic()

    def identity(self, machine: int) -> dict[str, Any]:
        """What a machine is told about itself."""
        who = self.machines[machine]
        return {
            "id": who.id,
            "name": who.name,
            "role": who.role,
            "address": who.address,
            "run": self.settings.run,
            "lease": self.settings.lease,
            "relay": bool(self.topology.relays >> machine & 1),
            "folder": self.settings.folder,
            "oneshot": self.settings.oneshot,
        }

    # Up.

    async def connect(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Bring up the tree.  Returns when every machine is up or has an outcome in `down`; this never raises.

        Machines that boot are waited for as long as whoever tells of them does.
        """
        total = len(self.machines)
        descriptors.allow(total)
        self._deadline = self.now() + self.settings.connect_timeout
        for machine in machineset.members(self.topology.children(None) & ~self.booting):
            if machine not in self.down:
                self.connect_one(machine, self.settings.connect_timeout, new=not self.settings.heir)
        while True:
            done = machineset.count(self.up) + len(self.down)
            progress(done, total)
            left = self._deadline + MARGIN - self.now()
            if done == total or (left <= 0 and not self.booting):
                break
            self._settled.clear()
            try:
                await asyncio.wait_for(self._settled.wait(), None if self.booting else left)
            except TimeoutError:
                break
        for machine in range(total):
            if not self.up >> machine & 1 and machine not in self.down:
                self.lose(machineset.single(machine), Outcome.UNREACHABLE,
                           f"not connected within {self.settings.connect_timeout:g} s (--connect-timeout)")
        progress(total, total)
        self._introduced = True
        if not self.settings.heir:
            self._introduce()

    def arrived(self, machines: int) -> None:
        """These can be connected from now on, and have the connect timeout for it."""
        machines &= self.booting
        if not machines or self._ending:
            return
        self.booting &= ~machines
        seconds = self.settings.connect_timeout
        self._deadline = self.now() + seconds
        told: dict[int, list[dict[str, Any]]] = {}
        for machine in machineset.members(machines):
            parent = self.topology.parents[machine]
            if parent is None:
                self.connect_one(machine, seconds, new=True)
            elif self.up >> parent & 1:
                told.setdefault(parent, []).append(self.links.spec(machine, None))
            elif parent in self.down or self.detached >> parent & 1:
                self.detached |= machineset.single(machine)
                self.recovery.detached(machineset.single(machine), f"its relay {self.machines[parent].name} is away")
            # else its relay is not there yet, and is told of all its children when it is
        for parent, specs in told.items():
            self._connect_at(parent, specs, seconds)
        self._settled.set()

    def _introduce(self) -> None:
        """Tell every machine who all the machines are."""
        network = [{"id": m.id, "name": m.name, "role": m.role, "address": m.address} for m in self.machines]
        everyone = self.sync.everyone = self.up | self.detached
        roles: dict[str, int] = {}
        for machine in self.machines:
            roles[machine.role] = roles.get(machine.role, 0) | machineset.single(machine.id)
        body = {
            "json": zlib.compress(json.dumps(network).encode()), "everyone": machineset.pack(everyone),
            "count": len(network), "roles": {role: machineset.pack(own) for role, own in roles.items() if role}}
        self.call(frames.NETWORK, everyone, body)

    def connect_one(self, machine: int, seconds: float, new: bool = False) -> None:
        """Have a machine connected where the topology says, within `seconds`; the call that it comes under is noted.

        `new`: no agent of this run can be on it.
        """
        parent, subtree = self.topology.parents[machine], self.topology.subtree(machine)
        there = ~0 if self.settings.heir else self.detached | self.up
        spec = self.links.spec(machine, None if new else subtree & there)
        if parent is None:
            self._number += 1
            self.topology.calls[machine] = self._number
            if not new:
                self.node.await_child(machine, subtree, self.topology.behind[machine])
            self.links.reach(spec, self._number, seconds)
        else:
            self._connect_at(parent, [spec], seconds)

    def _connect_at(self, relay: int, specs: list[dict[str, Any]], seconds: float) -> None:
        call = self.call(frames.CONNECT, machineset.single(relay), self.links.connect_body(specs, seconds))
        for spec in specs:
            self.topology.calls[spec["id"]] = call.number
        self.forget(call)

    def _connect_children(self, relay: int, again: bool) -> None:
        """The relay is up: tell it who its children are; `again`: it may have been told before its link was lost."""
        known = self.joined | self.detached | self.booting | machineset.of(self.down)
        children = self.topology.children(relay) & ~known
        if children:
            left = max(0.1, self._deadline - self.now())
            specs = [self.links.spec(i, machineset.single(i) if again else None) for i in machineset.members(children)]
            self._connect_at(relay, specs, left)

    def describe(self, machines: int) -> str:
        """A set of machines in words, for errors: names, relays, what was last heard; at most a few of them."""
        ids = machineset.members(machines)
        words = []
        for machine in ids[:DESCRIBED]:
            parent = self.topology.parents[machine]
            where = f" on relay {self.machines[parent].name}" if parent is not None else ""
            why = f", {self.down[machine][0]}: {self.down[machine][1]}" if machine in self.down else ""
            last = self._records.last_report
            said = f", last report: {last[machine]!r}" if machine in last else ""
            words.append(f"{self.machines[machine].name}{where}{why}{said}")
        more = f"; and {fold([self.machines[i].name for i in ids[DESCRIBED:]])}" if len(ids) > DESCRIBED else ""
        return "; ".join(words) + more

    # Calls.

    def call(self, kind: int, targets: int, body: Any) -> Call:
        """Send a command to a set of machines.  Those that are not up are lost to it from the start.

        TypeError, ValueError, OverflowError: the body is not plain data, or too large for one message.
        """
        packed = codec.pack(body)
        if len(packed) > frames.MAX_SIZE[frames.CONTROL] - (64 << 10):
            raise ValueError(f"a command of {len(packed)} bytes is too large for one message")
        if kind in _PARTS:
            self.need(_PARTS[kind])
        self._number += 1
        call = self._calls[self._number] = Call(self._number, targets, kind)
        reachable = targets & (self.up | self.detached)
        self._send(kind, call.number, reachable, packed)
        call.lose(targets & ~reachable)
        self.kick()
        return call

    def need(self, part: str) -> None:
        """Every machine has this part of the agent before it gets any later command."""
        if part not in self._parts:
            self._parts.append(part)
            self._send_part(part, self.up | self.detached)

    def _send(self, kind: int, number: int, machines: int, packed: bytes) -> None:
        if machines:
            self._outstanding.add(number, kind, machines, packed)
            self.node.command(kind, number, machines & self.up, packed, self.now())

    def _send_part(self, part: str, machines: int) -> None:
        """To all machines, not only to those that need it now: any of them may be on the way to one that does."""
        self._number += 1
        self._send(frames.PART, self._number, machines, codec.pack(self.payload.parts[part]))

    def forget(self, call: Call) -> None:
        """Nobody waits for this call any more; what still comes for it is passed over."""
        self._calls.pop(call.number, None)

    # What the node says.

    def kick(self) -> None:
        """Something came in or is to go out: let the node work, once per turn of the event loop."""
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._kicked = False
        node = self.node
        node.tick(self.now())
        inbox = node.inbox
        while inbox:
            item = inbox.popleft()
            if item[0] == tree.EVENT:
                try:
                    self._event(*item[1:])
                except (codec.ProtocolError, TypeError, ValueError, AttributeError) as error:
                    self.complain(item[5], f"sent an event that is none: {error}")
            elif item[0] == tree.MEASURED:
                self._measured.take(*item[1:])
            elif item[0] == tree.RECORD:
                self._records.take(*item[1:])
            elif item[0] == tree.OPENED:
                self.links.opened(item[1])
            elif item[0] == tree.WANTED:
                self._wanted(*item[1:])
            elif item[0] == tree.CLOSE:
                self.links.close(item[1])
        self.sync.tick(self.now())
        if self.sync.answers:
            answers, self.sync.answers = self.sync.answers, []
            node.answer([(machines, key, codec.pack(answer)) for machines, key, answer in answers])
        node.tick(self.now())
        shipped = self.shipping.pump()
        self.links.pump_all()
        if shipped:
            self.kick()  # there may be more to send once this is on its way
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [time for time in (node.timeout(), self.sync.timeout()) if time is not None]
        due = min(times, default=None)
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self.now()), self._turn)

    def _event(self, number: int, phase: int, extra: bytes, value: bytes, machines: int) -> None:
        if phase == tree.UP:
            self._came(number, codec.unpack(value), machines)
        elif phase == tree.SYNC:
            self._request(extra, codec.unpack(value), machines)
        elif phase == tree.DOWN:
            outcome, reason = codec.unpack(value)
            self._went(number, machines, Outcome(outcome), reason)
        else:
            self._outstanding.answered(number, machines)
            call = self._calls.get(number)
            if phase == tree.REFUSED:
                why = str(codec.unpack(value))
                self.recovery.refused(number, why)
                if call is not None:
                    call.refuse(machines, why)
            elif call is not None and not call.in_shape(phase, value):
                self.complain(machines, "sent an answer that is none")
                call.refuse(machines, "its answer makes no sense")
            elif call is not None:
                call.event(phase, extra, value, machines)
            if phase in (tree.DONE, tree.EXITED):
                self.sync.call_over(number, machines)
            elif phase == tree.STARTED:
                self.sync.call_begun(number, machines)

    def _wanted(self, child: int, number: int, offset: int, allowed: int, again: bool) -> None:
        try:
            self.shipping.wanted(child, number, offset, allowed, again)
        except ValueError as error:
            self.complain(machineset.single(child), str(error))

    def _request(self, extra: bytes, value: Any, machines: int) -> None:
        """What machines ask of each other: barriers, signals, topics."""
        try:
            members, packed = merge.split_sync(extra)
            op = codec.unpack(packed)
        except codec.ProtocolError as error:
            self.complain(machines, f"sent a request that is none: {error}")
            return
        self.sync.request(machines, extra, members, op, value, self.now())

    def _came(self, number: int, facts: dict[str, Any], machines: int) -> None:
        """Machines are there: new ones, or one that was attached again, with all that is still below it."""
        calls = self.topology.calls
        tops = [machine for machine in machineset.members(machines)
                if calls.get(machine) == number != self._came_by.get(machine)]
        if not tops:
            return  # out of date: it has been connected another way since; or told again, by a relay's new parent
        self._came_by.update(dict.fromkeys(tops, number))
        hang = 0
        for machine in tops:
            hang |= self.topology.subtree(machine)
        machines &= hang  # what is being connected another way comes that way
        # Nor does a relay bring back what was given up, such as an agent in the place of one that died.
        machines &= machineset.of(tops) | ~machineset.of(self.down)
        if ("resumed" not in facts or "replaces" in facts) and machines & self.joined:
            fresh = machines & self.joined
            machines &= ~fresh
            self._number += 1
            self.node.command(frames.END, self._number, fresh, codec.pack({"grace": 0.0}), self.now())
            for machine in machineset.members(fresh):
                self.recovery.failed(machine, Outcome.LOST, "its agent died, and what it had started was killed")
        if "resumed" in facts:  # what they missed comes first: they take commands in the order of their numbers
            for again, kind, targets, body in self._outstanding.after(facts["resumed"], machines):
                self.node.command(kind, again, targets, body, self.now())
            for lacking in self._outstanding.unsure(machines):
                self.complain(machines, f"may have missed command {lacking} when its link was lost: there was too "
                              f"much unanswered to send all of it again ({self._outstanding.MOST >> 20} MiB)")
        self.up |= machines
        for part in self._parts:
            self._send_part(part, machines & ~self.joined)
        self.joined |= machines
        self.detached &= ~machines
        self.sync.regain(machines)
        for machine in machineset.members(machines):
            self.down.pop(machine, None)
            self.recovery.came(machine)
            if self.topology.relays >> machine & 1:
                self._connect_children(machine, again="resumed" in facts or bool(self.settings.heir))
            self.on_up(machine)
        if "resumed" in facts:
            self._orphans(tops)
        self._settled.set()

    def _went(self, number: int, machines: int, outcome: Outcome, reason: str) -> None:
        """Machines cannot be reached, or not any more."""
        machines &= (1 << len(self.machines)) - 1  # those of a one-shot have no agent that could be lost
        machines &= ~self.booting  # nobody has tried to reach these
        machines = self.topology.reached_by(number, machines)
        if machines and reason.startswith("refused: "):  # it lies, or is broken
            self.complain(machines, reason)
        if outcome != Outcome.LOST:
            for machine in machineset.members(machines):
                if not (self.recovery.failed(machine, outcome, reason) or self._reach(machine, outcome, reason)):
                    took_part = self._introduced and self.joined >> machine & 1
                    kind = Outcome.LOST if took_part else outcome
                    relayed = outcome == Outcome.UNREACHABLE and self.topology.parents[machine] is not None
                    self.lose(machineset.single(machine), kind, reason + FROM_RELAY if relayed else reason)
        elif machines and not self._ending:
            for machine in machineset.members(machines):
                self.recovery.failed(machine, Outcome.UNREACHABLE, reason)
            lost = machines & ~machineset.of(self.down)
            self.up &= ~lost
            self.detached |= lost
            self.recovery.detached(lost, reason)

    def _reach(self, machine: int, outcome: Outcome, reason: str) -> bool:
        """Connect what its relay cannot log in to, for want of a key or of `ssh`; False for what else is wrong."""
        first = not self.joined >> machine & 1 and self.topology.parents[machine] is not None
        relays = outcome == Outcome.AUTH_FAILED or reason.startswith(diagnose.RELAY_CANNOT)
        if not relays or not first or self._ending:
            return False
        self.unaided[machine] = reason
        self.topology.move(machine, None)
        self.connect_one(machine, max(0.1, self._deadline - self.now()))
        return True

    def unaided_notes(self) -> list[str]:
        """What the user should know of these, those that are alike together."""
        alike: dict[str, list[str]] = {}
        for machine, reason in sorted(self.unaided.items()):
            if self.joined >> machine & 1:
                alike.setdefault(reason, []).append(self.machines[machine].name)
        return [f"{fold(names)}: reached from here, not by a relay: {reason}" for reason, names in alike.items()]

    def _orphans(self, tops: Sequence[int]) -> None:
        """What was below these, and did not come back with them, is looked for on its own."""
        for top in tops:
            lacking = self.topology.subtree(top) & self.detached
            if lacking:
                self.recovery.detached(lacking, f"its relay {self.machines[top].name} came back without it")

    def astray(self, relay: int) -> int:
        """The machines directly below it that are not up, and are neither still booting nor given up."""
        return self.topology.children(relay) & ~(self.up | self.booting | machineset.of(self.down))

    def lose(self, machines: int, outcome: Outcome, reason: str) -> None:
        """These are given up."""
        if self._ending:
            return
        new = machines & ~machineset.of(self.down)
        self.up &= ~machines
        self.detached &= ~machines
        self.booting &= ~machines
        self.recovery.gave_up(machines)
        for machine in machineset.members(new):
            self.down[machine] = (outcome, reason)
        for call in list(self._calls.values()):
            call.lose(machines)
        self.sync.lose(machines)
        if new:
            self.on_down(new, outcome, reason)
        for machine in machineset.members(new & self.topology.relays):
            orphans = self.astray(machine)
            if orphans:
                self.detached |= orphans
                self.recovery.detached(orphans, f"its relay {self.machines[machine].name} is gone: {reason}")
        self._settled.set()

    def complain(self, machines: int, what: str) -> None:
        """For the run's result.  A machine that talks nonsense must not fill the root's memory with it."""
        if len(self.problems) < PROBLEMS_MOST:
            self.problems.append((machines, what))
        elif len(self.problems) == PROBLEMS_MOST:
            self.problems.append((machines, f"and more, which are not kept: {PROBLEMS_MOST} problems are"))

    # Down.

    async def end(self, grace: float = 2.0, timeout: float = 20.0, collect: dict[str, Any] | None = None,
                  begun: Callable[[Call], object] = lambda call: None) -> None:
        """Stop everything on every machine, bring the last reports and logs home, close.  Bounded by `timeout`.

        `collect`: what of their logs machines are to bring whole (see `fanout.agent.streams`); `begun` is told the
        call that they come for.
        """
        deadline = self.now() + timeout
        if (self.up | self.detached) and not self._ending:
            call = self.call(frames.END, self.up | self.detached, {"grace": grace, "collect": collect})
            begun(call)
            if not await call.wait(tree.ENDED, timeout=min(DETACHED_MOST, timeout / 2)) and self.detached:
                self.lose(self.detached, Outcome.LOST, "it could not be reached at the end; its lease ends it")
            await call.wait(tree.ENDED, timeout=max(0.1, deadline - self.now() - 6.0))
            for machines, (_, rotated, problems) in call.groups(tree.ENDED):
                self.ended |= machines
                self.rotated += rotated * machineset.count(machines)
                self.problems += [(machines, problem) for problem in problems]
            silent = call.targets & ~call.settled(tree.ENDED)
            if silent:
                self.problems.append((silent, "did not answer at the end; it cleans up when its lease ends"))
        await self._close(max(1.0, deadline - self.now()))

    async def abort(self) -> None:
        """Let go at once.  Agents that this still reaches end at once too; others end with their lease."""
        if (self.up | self.detached) and not self._ending:
            self.forget(self.call(frames.END, self.up | self.detached, {"grace": 0.0}))
            self.links.pump_all()
        await self._close(1.0)

    async def _close(self, timeout: float) -> None:
        self._ending = True
        await self.recovery.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.links.shut(timeout)

    def statistics(self) -> dict[str, int]:
        """connections, messages_in, messages_out, bytes_in, bytes_out: what the run has cost the root so far."""
        return self.links.statistics()
