"""The root of the tree while a run lasts: brings the tree up, sends calls, hands on what arrives, takes it down.

The logic is the same Node that agents run; this module gives it connections, a clock and an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core import node as tree
from fanout.agent.core.bootstrap import Bootstrap, stub
from fanout.agent.core.diagnose import FAILED, NO_PYTHON, remote
from fanout.agent.core.diagnose import ssh as diagnose_ssh
from fanout.agent.core.dialer import Dialer
from fanout.agent.core.link import OPEN, Link
from fanout.agent.core.sketch import Sketch
from fanout.names import fold
from fanout.root.call import Call
from fanout.root.known_hosts import KnownHosts
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome, Report
from fanout.root.payload import payload
from fanout.root.settings import Settings
from fanout.root.sync import Sync
from fanout.root.transport import Connection, Unreached, effective, open_local, open_ssh

WRITE_SIZE = 64 << 10
DESCRIBED = 5  # machines named one by one in an error
MARGIN = 5.0  # s that a relay gets to tell which of its children did not come up in time


class _Peer:
    """A machine that the root reaches itself: its connection, and the bytes between it and the node's link."""

    def __init__(self, session: Session, machine: Machine) -> None:
        self.session = session
        self.machine = machine
        self.connection: Connection | None = None
        self.bootstrap: Bootstrap | None = Bootstrap()
        self.failure: Unreached | None = None

    def received(self, data: bytes) -> None:
        session, machine = self.session, self.machine.id
        if self.bootstrap is not None:
            try:
                rest = self.bootstrap.feed(data)
            except ValueError as error:
                outcome = NO_PYTHON if "python3 is" in str(error) else FAILED
                self.fail(Unreached(outcome, str(error), False))
                return
            if rest is None or self.connection is None:
                return
            magic, self.bootstrap = self.bootstrap.magic, None
            is_relay = machine in session.relays
            self.connection.write(payload().offer(magic, is_relay))
            session.node.open_child(machine, 0, session.identity(machine), session.now())
            data = rest
        if data:
            session.node.receive(machine, data, session.now())
        session.kick()

    def writable_again(self) -> None:
        self.session.pump(self)

    def fail(self, failure: Unreached) -> None:
        self.failure = failure
        if self.connection is not None:
            self.session.background(self.connection.close())

    def ended(self, code: int, stderr: str) -> None:
        self.session.ended(self, code, stderr)


class Session:
    """One run's tree.  `connect`, then `call` as often as wanted, then `end` (or `abort`)."""

    def __init__(
        self,
        machines: Sequence[Machine],
        parents: Sequence[int | None],
        settings: Settings,
        *,
        relay_key: str | None = None,
    ) -> None:
        """`parents[i]` is the machine that machine i hangs under; None: the root itself."""
        self.machines = list(machines)
        self.parents = list(parents)
        self.settings = settings
        self.relays = {parent for parent in parents if parent is not None}
        self.node = tree.Node(payload().build, time.monotonic(), root=True)
        self.up = 0
        """The machines that can be reached now."""
        self.joined = 0
        """The machines that ever were."""
        self.down: dict[int, tuple[Outcome, str]] = {}
        """Why the others cannot: machine -> (outcome, reason)."""
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_log: Callable[[int, int, bytes], None] = lambda machine, call, data: None
        self.on_down: Callable[[int, Outcome, str], None] = lambda machines, outcome, reason: None
        """A set of machines could not be reached, or was lost."""
        self.forwarded = 0
        self.rotated = 0
        """Bytes of logs that came, and that machines' size caps have cost."""
        self.metrics: dict[tuple[str, str, str], Sketch] = {}
        """(name, unit, label) -> what machines measured, merged."""
        self.sync = Sync(machineset.of(range(len(self.machines))), self.describe)
        self.problems: list[tuple[int, str]] = []
        """(set, what could not be cleaned up or kept) from the end of the run."""
        self.connections = 0
        self._relay_key = relay_key
        self._calls: dict[int, Call] = {}
        self._number = 0
        self._peers: dict[int, _Peer] = {}
        self._dialer = Dialer(settings.handshakes, random.random)
        self._deadline = 0.0
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._kicked = False
        self._closed_links = [0, 0, 0, 0]
        self._ending = False
        self._reports: dict[int, int] = {}
        self._last_report: dict[int, str] = {}
        self._batches: dict[int, int] = {}

    def now(self) -> float:
        return time.monotonic()

    def background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
            "relay": machine in self.relays,
            "folder": self.settings.folder,
        }

    # Up.

    async def connect(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Bring up the tree.  Returns when every machine is up or has an outcome in `down`; this never raises."""
        total = len(self.machines)
        self._deadline = self.now() + self.settings.connect_timeout
        for machine, parent in enumerate(self.parents):
            if parent is None:
                self._dialer.add(machine, self._deadline)
        self._dial()
        while True:
            done = machineset.count(self.up) + len(self.down)
            progress(done, total)
            left = self._deadline + MARGIN - self.now()
            if done == total or left <= 0:
                break
            self._settled.clear()
            try:
                await asyncio.wait_for(self._settled.wait(), left)
            except TimeoutError:
                break
        for machine in range(total):
            if not self.up >> machine & 1 and machine not in self.down:
                self._lose(machineset.single(machine), Outcome.UNREACHABLE,
                           f"not connected within {self.settings.connect_timeout:g} s (--connect-timeout)")
        progress(total, total)
        self._introduce()

    def _introduce(self) -> None:
        """Tell every machine who all the machines are."""
        network = [[m.id, m.name, m.role, m.address] for m in self.machines]
        names = ("id", "name", "role", "address")
        text = json.dumps([dict(zip(names, entry, strict=True)) for entry in network]).encode()
        self.forget(self.call(frames.NETWORK, self.up, {"machines": network, "json": zlib.compress(text)}))

    def describe(self, machines: int) -> str:
        """A set of machines in words, for errors: names, relays, what was last heard; at most a few of them."""
        ids = machineset.members(machines)
        words = []
        for machine in ids[:DESCRIBED]:
            parent = self.parents[machine]
            where = f" on relay {self.machines[parent].name}" if parent is not None else ""
            why = f", {self.down[machine][0]}: {self.down[machine][1]}" if machine in self.down else ""
            said = f", last report: {self._last_report[machine]!r}" if machine in self._last_report else ""
            words.append(f"{self.machines[machine].name}{where}{why}{said}")
        more = f"; and {fold([self.machines[i].name for i in ids[DESCRIBED:]])}" if len(ids) > DESCRIBED else ""
        return "; ".join(words) + more

    def _dial(self) -> None:
        now = self.now()
        if self._ending:
            return
        for machine in self._dialer.start(now):
            self.background(self._reach(machine))
        due = self._dialer.timeout()
        if due is not None:
            asyncio.get_running_loop().call_later(max(0.01, due - now), self._dial)

    async def _reach(self, machine: int) -> None:
        """One attempt at one machine: connect and start stage 0; what follows comes by `received`."""
        peer = self._peers[machine] = _Peer(self, self.machines[machine])
        host = peer.machine.host
        connection: Connection
        stage0 = payload().stage0
        left = max(0.1, self._deadline - self.now())
        try:
            if host.local:
                connection = open_local([host.python, "-I", "-S", "-c", stub(stage0)], peer)
            else:
                command = f"exec {host.python} -I -S -c '{stub(stage0)}'"
                async with asyncio.timeout(left):
                    connection = await open_ssh(host, command, self.settings, peer)
        except TimeoutError:
            self._unreached(peer, Unreached("unreachable", "it does not answer within the connect timeout", False))
            return
        except Unreached as failure:
            self._unreached(peer, failure)
            return
        self.connections += 1
        peer.connection = connection
        if self._peers.get(machine) is not peer:  # it ended while the session was being opened
            await connection.close()
            return
        connection.write(stage0)
        asyncio.get_running_loop().call_later(max(0.1, self._deadline - self.now()), self._overdue, peer)

    def _overdue(self, peer: _Peer) -> None:
        link = self.node.children.get(peer.machine.id)
        if self._peers.get(peer.machine.id) is peer and (link is None or link.state != OPEN) and not self._ending:
            noise = peer.bootstrap.noise()[-200:].strip() if peer.bootstrap is not None else b""
            said = f": it printed {noise.decode('utf-8', 'replace')!r}" if noise else ""
            peer.fail(Unreached("unreachable", f"no agent within the connect timeout{said}", False))

    def _unreached(self, peer: _Peer, failure: Unreached) -> None:
        machine = peer.machine.id
        if self._peers.get(machine) is peer:
            del self._peers[machine]
        if not self._dialer.failed(machine, failure.again, self.now()):
            self.node.connect_failed(machine, 0, failure.outcome, failure.reason, self.now())
            self.kick()
        self._dial()

    def ended(self, peer: _Peer, code: int, stderr: str) -> None:
        """A connection is gone: before its link was open that is a failure to connect, later a loss."""
        machine = peer.machine.id
        if peer.connection is not None:
            self.background(peer.connection.close())
        if self._peers.get(machine) is not peer:
            return
        link = self.node.children.get(machine)
        if link is not None and link.state == OPEN:
            del self._peers[machine]
            self._retire(link)
            said = stderr.strip().splitlines()
            self.node.lost(machine, f"the connection closed{f' ({said[-1][:200]})' if said else ''}", self.now())
            self.kick()
            return
        if link is not None:
            del self.node.children[machine]
        if peer.failure is not None:
            failure = peer.failure
        else:
            noise = peer.bootstrap.noise().decode("utf-8", "replace")[-500:] if peer.bootstrap is not None else ""
            how = remote if peer.machine.host.local else diagnose_ssh
            failure = Unreached(*how(255 if code < 0 else code, stderr or noise, peer.machine.host.python))
        self._unreached(peer, failure)

    def _connect_children(self, relay: int) -> None:
        """The relay is up: tell it who its children are."""
        children = [i for i, parent in enumerate(self.parents) if parent == relay]
        specs, known = [], []
        for machine in children:
            host = self.machines[machine].host
            spec: dict[str, Any] = {
                "id": machine, "identity": self.identity(machine), "python": host.python, "local": host.local}
            if not host.local:
                address, port, user = effective(host)
                spec.update(host=address, port=port, user=user)
                name = address if port == 22 else f"[{address}]:{port}"
                if host.host_keys:
                    known += [f"{name} {key}" for key in host.host_keys]
                else:
                    known += self._known_hosts().lines_for(address, port)
            specs.append(spec)
        self.call(
            frames.CONNECT,
            machineset.single(relay),
            {
                "children": specs,
                "stage0": payload().stage0,
                "seconds": max(0.1, self._deadline - self.now()),
                "handshakes": self.settings.handshakes,
                "ssh": {
                    "kex": f"^{self.settings.kex}" if self.settings.kex else None,
                    "cipher": f"^{self.settings.cipher}" if self.settings.cipher else None,
                    "known_hosts": "".join(line + "\n" for line in known),
                    "key": self._relay_key,
                    "forward_agent": self.settings.forward_agent,
                },
            },
        )

    @staticmethod
    @lru_cache(maxsize=1)
    def _known_hosts() -> KnownHosts:
        texts = []
        for path in (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts")):
            with contextlib.suppress(OSError):
                texts.append(path.read_text(errors="replace"))
        return KnownHosts("\n".join(texts))

    # Calls.

    def call(self, kind: int, targets: int, body: Any) -> Call:
        """Send a command to a set of machines.  Those that are not up are lost to it from the start.

        TypeError, ValueError, OverflowError: the body is not plain data, or too large for one message.
        """
        packed = codec.pack(body)
        if len(packed) > frames.MAX_SIZE[frames.CONTROL] - (64 << 10):
            raise ValueError(f"a command of {len(packed)} bytes is too large for one message")
        self._number += 1
        call = self._calls[self._number] = Call(self._number, targets)
        reachable = targets & self.up
        unrouted = self.node.command(kind, call.number, reachable, packed, self.now()) if reachable else 0
        call.lose(targets & ~reachable | unrouted)
        self.kick()
        return call

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
                self._event(*item[1:])
            elif item[0] == tree.MEASURED:
                self._measured(*item[1:])
            elif item[0] == tree.RECORD:
                self._record(*item[1:])
            elif item[0] == tree.OPENED:
                self._dialer.succeeded(item[1])
                self._dial()
            elif item[0] == tree.CLOSE:
                peer = self._peers.pop(item[1], None)
                if peer is not None and peer.connection is not None:
                    self.pump(peer)
                    self.background(peer.connection.close())
        self.sync.tick(self.now())
        if self.sync.answers:
            answers, self.sync.answers = self.sync.answers, []
            node.answer([(machines, key, list(answer)) for machines, key, answer in answers])
        node.tick(self.now())
        for peer in list(self._peers.values()):
            self.pump(peer)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [time for time in (node.timeout(), self.sync.timeout()) if time is not None]
        due = min(times, default=None)
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self.now()), self._turn)

    def pump(self, peer: _Peer) -> None:
        """Write what the link has, as far as the connection takes it."""
        link = self.node.children.get(peer.machine.id)
        connection = peer.connection
        while link is not None and connection is not None and connection.writable:
            data = link.pull(WRITE_SIZE)
            if not data:
                break
            connection.write(data)

    def _event(self, number: int, phase: int, extra: bytes, value: bytes, machines: int) -> None:
        if phase == tree.UP:
            self.up |= machines
            self.joined |= machines
            for machine in machineset.members(machines):
                self.down.pop(machine, None)
                if machine in self.relays:
                    self._connect_children(machine)
            self._settled.set()
        elif phase == tree.SYNC:
            self._request(extra, codec.unpack(value), machines)
        elif phase == tree.DOWN:
            outcome, reason = codec.unpack(value)
            self._lose(machines, Outcome(outcome), reason)
        else:
            call = self._calls.get(number)
            if call is None:
                return
            if phase == tree.REFUSED:
                call.refuse(machines, codec.unpack(value))
            else:
                call.event(phase, extra, value, machines)
                if phase in (tree.DONE, tree.EXITED):
                    self.sync.call_over(number, machines)

    def _request(self, extra: bytes, value: Any, machines: int) -> None:
        """What machines ask of each other: barriers, signals, topics."""
        try:
            members, packed = merge.split_sync(extra)
            op = codec.unpack(packed)
        except codec.ProtocolError as error:
            self.problems.append((machines, f"sent a request that is none: {error}"))
            return
        self.sync.request(machines, extra, members, op, value, self.now())

    def _measured(self, cover: dict[int, int], metrics: dict[tuple[str, str, str], Sketch]) -> None:
        """Merged metrics: taken once, however often they come."""
        if all(batch <= self._batches.get(machine, 0) for machine, batch in cover.items()):
            return
        for machine, batch in cover.items():
            self._batches[machine] = max(batch, self._batches.get(machine, 0))
        for key, sketch in metrics.items():
            self.metrics.setdefault(key, Sketch()).merge(sketch)

    def _lose(self, machines: int, outcome: Outcome, reason: str) -> None:
        if self._ending:
            return
        new = machines & ~machineset.of(self.down)
        self.up &= ~machines
        for machine in machineset.members(new):
            self.down[machine] = (outcome, reason)
            if machine in self.relays and not self.joined >> machine & 1:
                # It never came up, so what should hang under it was never reached either.
                for child, parent in enumerate(self.parents):
                    if parent == machine:
                        self._lose(machineset.single(child), Outcome.UNREACHABLE,
                                   f"its relay {self.machines[machine].name} did not come up: {reason}")
        for call in list(self._calls.values()):
            call.lose(machines)
        self.sync.lose(machines)
        if new:
            self.on_down(new, outcome, reason)
        self._settled.set()

    def _record(self, kind: int, machine: int, data: bytes) -> None:
        try:
            body = codec.unpack(data)
            if kind == frames.LOGS:
                process, _, piece = body
                self.forwarded += len(piece)
                self.on_log(machine, process, piece)
            else:
                seq, stamp, text, fields = body
                if seq == self._reports.get(machine, 0) + 1:
                    self._reports[machine] = seq
                    self._last_report[machine] = text[:200]
                    self.on_report(Report(machine, self.machines[machine].name, seq, stamp, text, fields))
        except (codec.ProtocolError, TypeError, ValueError) as error:
            self.problems.append((machineset.single(machine), f"sent a record that is none: {error}"))

    # Down.

    async def end(self, grace: float = 2.0, timeout: float = 20.0) -> None:
        """Stop everything on every machine, bring the last reports and logs home, close.  Bounded by `timeout`."""
        deadline = self.now() + timeout
        if self.up:
            call = self.call(frames.END, self.up, {"grace": grace})
            await call.wait(tree.ENDED, timeout=max(0.1, timeout - 6.0))
            for machines, (_, rotated, problems) in call.groups(tree.ENDED):
                self.rotated += rotated * machineset.count(machines)
                self.problems += [(machines, problem) for problem in problems]
            silent = call.targets & ~call.settled(tree.ENDED)
            if silent:
                self.problems.append((silent, "did not answer at the end; it cleans up when its lease ends"))
        await self._close(max(1.0, deadline - self.now()))

    async def abort(self) -> None:
        """Let go at once: agents find their parent gone, and end with their lease."""
        await self._close(1.0)

    async def _close(self, timeout: float) -> None:
        self._ending = True
        peers = list(self._peers.values())
        for peer in peers:
            link = self.node.children.get(peer.machine.id)
            if link is not None:
                self._retire(link)
        self._peers.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closing = [asyncio.ensure_future(p.connection.close()) for p in peers if p.connection is not None]
        if closing:
            _, late = await asyncio.wait(closing, timeout=timeout)
            for task in late:
                task.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *closing, return_exceptions=True)

    # Figures.

    def _retire(self, link: Link) -> None:
        for i, value in enumerate((link.messages_in, link.messages_out, link.bytes_in, link.bytes_out)):
            self._closed_links[i] += value
        link.messages_in = link.messages_out = link.bytes_in = link.bytes_out = 0

    def statistics(self) -> dict[str, int]:
        """connections, messages_in, messages_out, bytes_in, bytes_out: what the run has cost the root so far."""
        totals = list(self._closed_links)
        for link in self.node.children.values():
            for i, value in enumerate((link.messages_in, link.messages_out, link.bytes_in, link.bytes_out)):
                totals[i] += value
        names = ("messages_in", "messages_out", "bytes_in", "bytes_out")
        return {"connections": self.connections, **dict(zip(names, totals, strict=True))}
