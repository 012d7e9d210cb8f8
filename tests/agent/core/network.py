"""A tree of real nodes in one process: a virtual clock, and wires with latency, bounds and random chunking.

Deterministic by its seed.  Nothing here sleeps or does I/O: `run` takes the earliest event from a heap and moves the
clock there.  All input of one instant is handled before any node takes its turn, as a poll loop does.

    net = Network(seed=1)
    net.build([None, None, 0, 0, 1, 1])           # parents[i] is the machine that i hangs under; None: the root
    call = net.call(frames.RUN, net.everyone, "uptime")
    net.run(until=lambda: net.settled(call), within=10)
    assert net.answered(call) == net.everyone

What machines do with commands is `net.behave`, by default: RUN is answered at once with DONE and "ok".
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core import node as tree
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.link import OPEN, Link
from fanout.agent.core.node import Node
from fanout.root.measured import Measured
from fanout.root.sync import Sync

CONNECT = 10.0  # s for the handshake of a link
WIRE = 64 << 10  # bytes that a direction of a wire holds (the buffers of a pipe or socket) before its writer waits


class Pipe:
    """One direction of a wire."""

    __slots__ = ("_arrives", "_held", "in_flight", "paused", "peer", "reader", "wire", "writer")

    def __init__(self, wire: Wire, writer: Host, reader: Host, peer: int | None) -> None:
        self.wire = wire
        self.writer = writer
        self.reader = reader
        self.peer = peer
        """What the reader calls the other end: a child's id, or None for its parent."""
        self.in_flight = 0
        self.paused = False
        """The reader does not read."""
        self._arrives = 0.0
        self._held: deque[bytes] | None = None

    def write(self, data: bytes) -> None:
        net = self.wire.network
        self.in_flight += len(data)
        for piece in net.pieces(data):
            self._arrives = max(self._arrives, net.now + net.latency())
            net.at(self._arrives, self._arrive, piece)

    def _arrive(self, data: bytes) -> None:
        if not self.wire.open:
            return
        if self.paused:
            self._held = self._held or deque()
            self._held.append(data)
            return
        self.in_flight -= len(data)
        self.reader.received(self, data)
        if self.writer.alive:
            self.writer.wake()  # there is room again

    def resume(self) -> None:
        self.paused = False
        held, self._held = self._held, None
        for data in held or ():
            self._arrive(data)


class Wire:
    """One connection: it carries the link above `machine`."""

    __slots__ = ("child", "down", "link_above", "link_below", "machine", "network", "open", "parent", "up")

    def __init__(self, network: Network, parent: Host, child: Host, machine: int) -> None:
        self.network = network
        self.parent = parent
        self.child = child
        self.machine = machine
        self.open = True
        self.down = Pipe(self, parent, child, None)
        self.up = Pipe(self, child, parent, machine)
        self.link_above: Link
        self.link_below: Link

    def cut(self, reason: str = "the connection closed") -> None:
        """What is on the wire is lost.  The parent notices; a child waits for its lease, or for a new parent."""
        if not self.open:
            return
        self.open = False
        net = self.network
        net.at(net.now + net.latency(), self._noticed, reason)

    def _noticed(self, reason: str) -> None:
        if self.parent.alive and self.parent.node.children.get(self.machine) is self.link_above:
            self.parent.node.lost(self.machine, reason, self.network.now)
            self.parent.wake()


class Host:
    """A machine (id None: the root) and the loop that drives its node, as the agent's and the session's do."""

    __slots__ = (
        "_due", "_turning", "alive", "asked", "below", "error", "expired", "id", "network", "node", "outbox", "wire",
    )

    def __init__(self, network: Network, id: int | None) -> None:
        self.network = network
        self.id = id
        self.node = Node(network.build_id, network.now, root=id is None)
        self.node.acknowledges = lambda child: self.below[child].open and self.below[child].child.alive
        self.wire: Wire | None = None
        self.below: dict[int, Wire] = {}
        self.outbox: dict[int, deque[bytes]] = {}
        """Records that wait for room, by kind."""
        self.asked: dict[bytes, Any] = {}
        """Requests that have not been answered: key -> value."""
        self.alive = True
        self.expired = False
        self.error = ""
        """What the parent did against the protocol."""
        self._turning = False
        self._due = float("inf")

    def received(self, pipe: Pipe, data: bytes) -> None:
        if not self.alive:
            return
        try:
            self.node.receive(pipe.peer, data, self.network.now)
        except ProtocolError as error:
            self.error = str(error)
            pipe.wire.cut(self.error)
        self.wake()

    def wake(self) -> None:
        """Take a turn at this instant, once whatever else happens at it has happened."""
        if not self._turning:
            self._turning = True
            self.network.at(self.network.now, self._turn, None, late=True)

    def _turn(self, _: None) -> None:
        self._turning = False
        net, node = self.network, self.node
        if not self.alive:
            return
        node.tick(net.now)
        if node.inbox:
            while node.inbox:
                self._act(node.inbox.popleft())
            node.tick(net.now)
        if node.root and net.sync.answers:
            answers, net.sync.answers = net.sync.answers, []
            node.answer([(machines, key, codec.pack(answer)) for machines, key, answer in answers])
        for kind, waiting in self.outbox.items():
            cls = frames.REPORT if kind == frames.REPORTS else frames.BULK
            while waiting and node.room(cls):
                node.record(kind, waiting.popleft())
        net.pump(self)
        if self.wire is not None:
            _pump(self.wire.up, self.wire.link_below)
        for machine in node.sendable & self.below.keys():
            _pump(self.below[machine].down, self.below[machine].link_above)
        due = node.timeout()
        if due is not None and due < self._due:
            self._due = due
            net.at(due, self._timer, due)

    def _timer(self, due: float) -> None:
        if self.alive and due == self._due:
            self._due = float("inf")
            self.wake()

    def _act(self, item: tuple[Any, ...]) -> None:
        net, what = self.network, item[0]
        if what == tree.COMMAND:
            _, kind, call, body = item
            if kind == frames.CONNECT:
                for spec in codec.unpack(body)["children"]:
                    net.connect(self, spec["id"], call, machineset.unpack(spec.get("subtree", b"")))
            else:
                net.behave(self, kind, call, codec.unpack(body))
        elif what == tree.CLOSE:
            wire = self.below.pop(item[1], None)
            if wire is not None:
                _pump(wire.down, wire.link_above)
                wire.open = False
        elif what in (tree.EXPIRED, tree.BYE):
            self.expired = True
            self.stop()
        elif what == tree.EVENT:
            net.event(*item[1:])
        elif what == tree.ANSWERED:
            _, key, answer = item
            if self.asked.pop(key, None) is not None:
                net.told.setdefault(self.id, []).append((key, *codec.unpack(answer)))
        elif what == tree.RESUMED:
            for key, value in self.asked.items():
                self.node.ask_again(key, value, net.now)
            net.file(self, item)
        elif what in (tree.SHIPPED, tree.WANTED, tree.DATA, tree.CANNOT):
            net.file(self, item)
        elif what == tree.MEASURED:
            net.measured.take(*item[1:])
        elif what == tree.RECORD:
            _, kind, machine, payload = item
            net.records.setdefault((kind, machine), []).append(payload)

    def stop(self) -> None:
        """It ends, and its connections with it."""
        self.alive = False
        for wire in [*self.below.values(), self.wire]:
            if wire is not None:
                wire.cut()

    def buffered(self) -> int:
        """Bytes of reports and logs that this node holds for its parent: queued, and sent but not acknowledged."""
        link = self.node.parent
        if link is None:
            return 0
        return sum(link.queued(cls) + link._senders[cls].unacked_bytes for cls in (frames.REPORT, frames.BULK))


def _pump(pipe: Pipe, link: Link) -> None:
    if not any(link._queues) or not pipe.wire.open:
        return
    while pipe.in_flight < WIRE:
        data = link.pull(WIRE - pipe.in_flight)
        if not data:
            break
        pipe.write(data)


class Network:
    def __init__(
        self, seed: int = 0, *, latency: tuple[float, float] = (0.001, 0.01), chunk: int | None = None,
        grain: float = 0.0005, lease: float = 60.0, start: float = 1000.0,
    ) -> None:
        """`latency` in s, from and to; `chunk`: most bytes in a piece of what is written (None: one piece).

        `grain` in s: bytes arrive on multiples of it, and what arrives together is handled in one turn.  A coarser
        one makes large networks cheaper to run.
        """
        self.random = Random(seed)
        self.now = start
        self.build_id = "build"
        self.lease = lease
        self.hosts: dict[int, Host] = {}
        self.records: dict[tuple[int, int], list[bytes]] = {}
        """(kind, machine) -> the payloads that arrived at the root, in order."""
        self.sync = Sync(0, str)
        self.told: dict[int | None, list[tuple[bytes, bool, Any]]] = {}
        """machine -> (request key, ok, value): the answers it was given, each once."""
        self.measured = Measured()
        self.up = 0
        self.joined = 0
        """The machines that ever were up."""
        self.down = 0
        """The machines whose last word, or last word about them, is that they are down."""
        self.reasons: dict[int, list[str]] = {}
        """machine -> why it was said to be down, each time."""
        self.unreachable: set[int] = set()
        """Machines that no connection can be made to."""
        self.behave: Callable[[Host, int, int, Any], None] = answer
        self.file: Callable[[Host, tuple[Any, ...]], None] = lambda host, item: None
        """What machines do with what their nodes say of files."""
        self.pump: Callable[[Host], None] = lambda host: None
        """What they do in each turn before they write."""
        self._latency = latency
        self._chunk = chunk
        self._grain = grain
        self._heap: list[tuple[float, bool, int, Callable[[Any], None], Any]] = []
        self._order = 0
        self._calls = 0
        self._under: dict[int, int] = {}
        """Machine -> the call under which it was last connected."""
        self._targets: dict[int, int] = {}
        self._lost: dict[int, int] = {}
        self._answers: dict[tuple[int, int], dict[int, list[Any]]] = {}
        self._heard: dict[tuple[int, int], int] = {}
        self._children: dict[int | None, list[int]] = {}
        self._attempts: dict[tuple[int | None, int], int] = {}
        self.root = Host(self, None)

    # Time.

    def at(self, time: float, act: Callable[[Any], None], argument: Any, late: bool = False) -> None:
        """`late`: after everything else of that instant."""
        self._order += 1
        heapq.heappush(self._heap, (max(time, self.now), late, self._order, act, argument))

    def run(self, until: Callable[[], object] | None = None, within: float = 60.0) -> bool:
        """Until a condition holds (True), or `within` seconds of virtual time have passed (True without one)."""
        end = self.now + within
        while not (until is not None and until()):
            if not self._heap or self._heap[0][0] > end:
                self.now = end
                return until is None
            self.now, _, _, act, argument = heapq.heappop(self._heap)
            act(argument)
        return True

    def latency(self) -> float:
        """From now to an arrival, on the grain."""
        least, most = self._latency
        arrives = self.now + least + (most - least) * self.random.random()
        return -(-arrives // self._grain) * self._grain - self.now

    def pieces(self, data: bytes) -> Iterable[bytes]:
        if self._chunk is None:
            return (data,)
        cut, at = [], 0
        while at < len(data):
            size = self.random.randint(1, self._chunk)
            cut.append(data[at : at + size])
            at += size
        return cut

    # The tree.

    def build(self, parents: Sequence[int | None], within: float = 60.0) -> None:
        """Bring the tree up; afterwards every machine is up or down."""
        self._children = {}
        for machine, parent in enumerate(parents):
            self._children.setdefault(parent, []).append(machine)
        self.everyone = (1 << len(parents)) - 1
        self.sync = Sync(self.everyone, lambda machines: f"{machines:b}")
        for machine in self._children.get(None, []):
            self.connect(self.root, machine, 0)
        self.run(lambda: not self.everyone & ~(self.up | self.down), within)
        self.run(lambda: all(self.hosts[machine].node.me is not None for machine in machineset.members(self.up)), 1.0)

    def connect(self, parent: Host, machine: int, call: int, subtree: int = 0) -> None:
        """A connection from `parent` to a machine, new or known to the tree: takes two latencies.

        `subtree`: what may be below it, where it has been part of the tree before.
        """
        if parent.node.root:  # relays learn it from the CONNECT that passes through them
            self._calls += 1
            call = self._under[machine] = self._calls
            if subtree:
                parent.node.await_child(machine, subtree, subtree)
        if machine in self.unreachable:
            parent.node.connect_failed(machine, call, "unreachable", "it does not answer", self.now)
            parent.wake()
        else:
            self._attempts[parent.id, machine] = call
            self.at(self.now + 2 * self.latency(), self._connected, (parent, machine, call))

    def _connected(self, what: tuple[Host, int, int]) -> None:
        parent, machine, call = what
        if not parent.alive or self._attempts[parent.id, machine] != call:  # one attempt at a time, the last one told
            return
        child = self.hosts.get(machine)
        if child is None:
            child = self.hosts[machine] = Host(self, machine)
        if not child.alive:
            parent.node.connect_failed(machine, call, "unreachable", "it does not answer", self.now)
            parent.wake()
            return
        if child.wire is not None:
            child.wire.cut()
        identity = {"id": machine, "name": f"m{machine}", "lease": self.lease}
        wire = child.wire = parent.below[machine] = Wire(self, parent, child, machine)
        wire.link_above = parent.node.open_child(machine, call, identity, self.now)
        wire.link_below = child.node.open_parent({}, self.now)
        child.wake()
        parent.wake()
        self.at(self.now + CONNECT, self._overdue, wire)

    def _overdue(self, wire: Wire) -> None:
        """The driver's part: the core waits for a HELLO for ever."""
        if wire.open and wire.link_above.state != OPEN:
            wire.cut("no agent within the connect timeout")

    def parent_of(self, machine: int) -> Host:
        wire = self.hosts[machine].wire
        assert wire is not None
        return wire.parent

    def cut(self, machine: int) -> None:
        """The connection above a machine breaks."""
        wire = self.hosts[machine].wire
        assert wire is not None
        wire.cut()

    def power_off(self, machine: int) -> None:
        """It says nothing more, and nobody is told."""
        if machine in self.hosts:
            self.hosts[machine].alive = False

    def pause(self, machine: int) -> None:
        """Nobody reads what this machine writes to its parent."""
        wire = self.hosts[machine].wire
        assert wire is not None
        wire.up.paused = True

    def resume(self, machine: int) -> None:
        wire = self.hosts[machine].wire
        assert wire is not None
        wire.up.resume()

    def inject(self, machine: int, data: bytes) -> None:
        """Bytes that a hostile machine writes to its parent, whatever its node would say."""
        wire = self.hosts[machine].wire
        assert wire is not None
        wire.up.write(data)

    def ask(self, machine: int, members: int, op: list[Any], value: Any) -> bytes:
        """A request of a machine; its answer comes to `told`."""
        host = self.hosts[machine]
        key = host.node.request(members, codec.pack(op), value, self.now)
        host.asked[key] = value
        host.wake()
        return key

    def record(self, machine: int, kind: int, payloads: Iterable[bytes]) -> None:
        """Reports or logs that a machine sends as fast as it has room."""
        host = self.hosts[machine]
        host.outbox.setdefault(kind, deque()).extend(payloads)
        host.wake()

    # Calls, as the root's session keeps them.

    def call(self, kind: int, targets: int, body: Any) -> int:
        self._calls += 1
        call = self._calls
        if kind == frames.CONNECT:
            self._under.update(dict.fromkeys((spec["id"] for spec in body["children"]), call))
        reachable = targets & self.up
        self._targets[call] = targets
        unrouted = self.root.node.command(kind, call, reachable, codec.pack(body), self.now) if reachable else 0
        self._lost[call] = targets & ~reachable | unrouted
        self.root.wake()
        return call

    def event(self, call: int, phase: int, extra: bytes, value: bytes, machines: int) -> None:
        """What the root's node says has happened."""
        if phase == tree.UP:
            self.up |= machines
            self.joined |= machines
            self.down &= ~machines
            for machine in machineset.members(machines):
                if machine in self._children:
                    children = [{"id": child} for child in self._children[machine] if not self.joined >> child & 1]
                    if children:
                        self.call(frames.CONNECT, machineset.single(machine), {"children": children})
        elif phase == tree.SYNC:
            members, op = merge.split_sync(extra)
            self.sync.request(machines, extra, members, codec.unpack(op), codec.unpack(value), self.now)
        elif phase == tree.DOWN:
            machines = machineset.of(m for m in machineset.members(machines) if self._hangs_by(m, call))
            self._is_down(machines, codec.unpack(value)[1])
        else:
            key = (call, phase)
            self._heard[key] = self._heard.get(key, 0) | machines
            answers = self._answers.setdefault(key, {})
            for machine in machineset.members(machines):
                answers.setdefault(machine, []).append(codec.unpack(value))

    def _hangs_by(self, machine: int, call: int) -> bool:
        """Whether a link on the way to it was made under this call; if not, news under the call is old."""
        host: Host | None = self.hosts.get(machine)
        while host is not None and host.id is not None:
            if self._under.get(host.id) == call:
                return True
            host = host.wire.parent if host.wire is not None else None
        return machine not in self.hosts  # it was never reached

    def _is_down(self, machines: int, reason: str) -> None:
        self.up &= ~machines
        self.down |= machines
        for machine in machineset.members(machines):
            self.reasons.setdefault(machine, []).append(reason)
            if machine in self._children and not self.joined >> machine & 1:
                never = machineset.of(self._children[machine])
                self._is_down(never, "its relay did not come up: " + reason)
        for call in self._lost:
            self._lost[call] |= machines & self._targets[call]

    def answered(self, call: int, phase: int = tree.DONE) -> int:
        """The machines that answered."""
        return self._heard.get((call, phase), 0)

    def answers(self, call: int, phase: int = tree.DONE) -> dict[int, list[Any]]:
        """machine -> every answer that arrived: more than one after repetitions."""
        return self._answers.get((call, phase), {})

    def lost(self, call: int) -> int:
        """Targets that were down, or went down since."""
        return self._lost[call]

    def settled(self, call: int, phase: int = tree.DONE) -> bool:
        return not self._targets[call] & ~(self.answered(call, phase) | self._lost[call])

    # Figures.

    def messages(self) -> tuple[int, int]:
        """(in, out) at the root, over the links that are open."""
        links = self.root.node.children.values()
        return sum(link.messages_in for link in links), sum(link.messages_out for link in links)


def answer(host: Host, kind: int, call: int, body: Any) -> None:
    """RUN is done at once, the same everywhere."""
    if kind == frames.RUN:
        host.node.emit(call, tree.DONE, "ok", host.network.now)
