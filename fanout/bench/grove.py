"""A tree of up to 100,000 machines in one process: the protocol core that runs, on a virtual clock.

Every machine has the `Node` of the agent, the root has the real one and the real `Sync`; what is simulated is time.
A dial, a hop, a message and a program cost what the model's constants say (`root/model.py`), and a node does one
thing at a time.  So messages, bytes and memory are those of the real thing, and seconds are predicted.

Turns of a node are on a grid, fine while an operation is timed and coarser while agents start and heartbeats beat:
what arrives together is handled together.  Each turn looks at the links that have something to say, never at all, so
time grows with the number of messages, whatever the shape of the tree.

    grove = Grove(plan(1000, relays=None, depth=2, width=None).parents, Costs())
    print(grove.operation("connect", grove.connect))
    print(grove.operation("command", grove.command))
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core import node as tree
from fanout.agent.core.dialer import Dialer
from fanout.agent.core.node import Node
from fanout.root.model import HANDSHAKES, Costs
from fanout.root.payload import payload
from fanout.root.sync import Sync

FINE, COARSE, IDLE = 0.001, 0.01, 0.05  # s, of the grid: for what is done on a tree; to connect it; between the two
PULL = 64 << 10  # bytes that a link is asked for at once
SETTLE = 0.6  # s of virtual time after an operation, for its acknowledgements
LATEST = 600.0  # s of virtual time for any operation
LOG = b"a line of log as programs print it, of about one hundred characters, with its number at the end 0000000\n" * 10
HEARTBEAT = frozenset((frames.PING, frames.PONG))


@dataclass
class Operation:
    """What one thing that was done to all machines has cost.  Heartbeats are not in it."""

    what: str
    seconds: float
    """Predicted: of the virtual clock, until the root knew of everyone."""
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int


class Station:
    """A machine (id None: the root): its node, and when it has time for what comes."""

    __slots__ = ("alive", "below", "dial_free", "dialer", "due", "free", "grove", "id", "inbox", "node", "parent",
                 "sent", "turning")

    def __init__(self, grove: Grove, id: int | None) -> None:
        self.grove = grove
        self.id = id
        self.node = Node("build", grove.now, root=id is None)
        self.parent: Station | None = None
        self.below: dict[int, Station] = {}
        self.dialer: Dialer | None = None
        self.dial_free = 0.0
        self.inbox: list[tuple[Station, bytes]] = []
        self.free = 0.0
        """It is busy until then."""
        self.sent = 0.0
        """... and its network interface."""
        self.due = float("inf")
        self.turning = False
        self.alive = True

    def wake(self, at: float = 0.0) -> None:
        if not self.turning:
            self.turning = True
            self.grove.at(max(at, self.free), self._turn)

    def receive(self, sender: Station, data: bytes) -> None:
        self.inbox.append((sender, data))
        self.wake()

    def _turn(self) -> None:
        self.turning = False
        if not self.alive:
            return
        grove, node = self.grove, self.node
        now = grove.now
        work = 0
        arrived, self.inbox = self.inbox, []
        for sender, data in arrived:
            if sender is self.parent:
                link = node.parent
                peer = None
            elif self.below.get(sender.id) is sender:  # type: ignore[arg-type]
                link = node.children.get(sender.id)  # type: ignore[arg-type]
                peer = sender.id
            else:
                continue  # a connection that is no more
            if link is not None:
                before = link.messages_in
                node.receive(peer, data, now)
                work += link.messages_in - before
        node.tick(now)
        if node.inbox:
            while node.inbox:
                self._act(node.inbox.popleft())
            node.tick(now)
        if self.id is None and grove.sync.answers:
            answers, grove.sync.answers = grove.sync.answers, []
            node.answer([(machines, key, codec.pack(answer)) for machines, key, answer in answers])
        outgoing: list[tuple[Station, bytes]] = []
        if self.parent is not None and node.parent is not None:
            work += self._pull(node.parent, self.parent, outgoing)
        for machine in list(node.sendable):
            work += self._pull(node.children[machine], self.below[machine], outgoing)
        costs = grove.costs
        self.free = now + work * (costs.root_message if self.id is None else costs.relay_message)
        self.sent = max(self.sent, self.free)
        for station, data in outgoing:
            self.sent += len(data) / costs.bandwidth
            grove.at(self.sent + costs.trip, station.receive, self, data)
        due = node.timeout()
        if due is not None and due < self.due:
            self.due = due
            grove.at(due, self._timer, due)

    def _timer(self, due: float) -> None:
        if due == self.due:
            self.due = float("inf")
            self.wake()

    def _pull(self, link: Any, station: Station, outgoing: list[tuple[Station, bytes]]) -> int:
        before = link.messages_out
        data = link.pull(PULL)
        while data:
            outgoing.append((station, data))
            if self.id is None:
                self.grove.count(data, 0)
            elif station.id is None:
                self.grove.count(data, 1)
            data = link.pull(PULL) if len(data) >= PULL else b""
        return int(link.messages_out - before)

    def _act(self, item: tuple[Any, ...]) -> None:
        what, grove = item[0], self.grove
        if what == tree.COMMAND:
            _, kind, call, body = item
            if kind == frames.CONNECT:
                for spec in codec.unpack(body)["children"]:
                    self.dial(spec["id"], call)
            elif kind == frames.RUN:
                answer = "ok" if codec.unpack(body)["same"] else f"answer of {self.id}"
                grove.at(grove.now + grove.costs.start, self._done, call, answer)
        elif what == tree.OPENED:
            assert self.dialer is not None
            self.dialer.succeeded(item[1])
            self._dial()
        elif what == tree.EVENT:
            grove.event(*item[1:])
        elif what == tree.ANSWERED:
            grove.told |= 1 << (self.id or 0)
        elif what == tree.RECORD:
            grove.logged += len(item[3])

    def _done(self, call: int, answer: str) -> None:
        self.node.emit(call, tree.DONE, answer, self.grove.now)
        self.wake()

    # Connecting.

    def dial(self, machine: int, call: int) -> None:
        if self.dialer is None:
            self.dialer = Dialer(HANDSHAKES, lambda: 0.5)
        self.grove.under[machine] = call
        self.dialer.add(machine, float("inf"))
        self._dial()

    def _dial(self) -> None:
        grove, costs = self.grove, self.grove.costs
        gap = costs.root_gap if self.id is None else costs.relay_gap
        assert self.dialer is not None
        for machine in self.dialer.start(grove.now):
            self.dial_free = max(self.dial_free, grove.now) + gap
            grove.at(self.dial_free - gap + costs.dial, self._connected, machine)

    def _connected(self, machine: int) -> None:
        if not self.alive:
            return
        grove = self.grove
        child = grove.stations[machine]
        if child is None:
            child = grove.stations[machine] = Station(grove, machine)
        child.parent = self
        self.below[machine] = child
        self.node.open_child(machine, grove.under[machine], grove.identity(machine), grove.now)
        child.node.open_parent({}, grove.now)
        child.wake()
        self.wake()


class Grove:
    """A tree, its clock, and what the root does: as the session does it, as far as messages go."""

    def __init__(self, parents: Sequence[int | None], costs: Costs) -> None:
        self._grain = COARSE
        self.costs = costs
        self.now = 1000.0
        self.parents = list(parents)
        self.children: dict[int | None, list[int]] = {}
        for machine, parent in enumerate(parents):
            self.children.setdefault(parent, []).append(machine)
        self.relays = machineset.of(machine for machine in self.children if machine is not None)
        self.everyone = (1 << len(parents)) - 1
        self.up = 0
        self.told = 0
        """Those whose request has been answered."""
        self.logged = 0
        self.heard: dict[int, int] = {}
        """Call -> who has answered."""
        self.under: dict[int, int] = {}
        self.stations: list[Station | None] = [None] * len(parents)
        self.sync = Sync(self.everyone, str)
        self._calls = 0
        self._agenda: dict[float, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        """What is to be done at each instant, in order: on a grid that is many things."""
        self._instants: list[float] = []
        """The keys of it, as a heap."""
        self._counts = [[0, 0], [0, 0]]
        self.root = Station(self, None)

    # The clock.

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        on_grid = max(self.now, -(-when // self._grain) * self._grain)
        if on_grid not in self._agenda:
            self._agenda[on_grid] = []
            heapq.heappush(self._instants, on_grid)
        self._agenda[on_grid].append((act, arguments))

    def run(self, until: Callable[[], bool] | None = None, within: float = LATEST) -> None:
        """RuntimeError when the condition does not come to hold within so many virtual seconds."""
        end = self.now + within
        while until is None or not until():
            if not self._instants or self._instants[0] > end:
                self.now = end
                if until is not None:
                    raise RuntimeError(f"not done within {within:g} virtual seconds")
                return
            self.now = self._instants[0]
            for act, arguments in self._agenda[self.now]:  # which grows meanwhile
                act(*arguments)
            del self._agenda[heapq.heappop(self._instants)]

    # Counting, at the root's end of its links.

    def count(self, data: bytes, inward: int) -> None:
        at, counts = 0, self._counts[inward]
        while at < len(data):
            size, _, kind, _, _ = frames.HEADER.unpack_from(data, at)
            size += frames.HEADER.size
            at += size
            if kind not in HEARTBEAT:
                counts[0] += 1
                counts[1] += size

    def operation(self, what: str, act: Callable[[], Callable[[], bool]]) -> Operation:
        """`act` begins it, and returns how it is known to be over."""
        self._counts = [[0, 0], [0, 0]]
        began = self.now
        self._grain = FINE if self.up else COARSE
        self.run(act())
        seconds = self.now - began
        self._grain = IDLE
        self.run(within=SETTLE)
        (messages_out, bytes_out), (messages_in, bytes_in) = self._counts
        return Operation(what, seconds, messages_in, messages_out, bytes_in, bytes_out)

    # What the root does.

    def identity(self, machine: int) -> dict[str, Any]:
        return {"id": machine, "name": f"node{machine}", "role": "peer", "address": _address(machine),
                "run": "01234567", "lease": 60.0, "relay": machine in self.children, "folder": None, "oneshot": False}

    def call(self, kind: int, targets: int, body: Any) -> int:
        self._calls += 1
        unrouted = self.root.node.command(kind, self._calls, targets, codec.pack(body), self.now)
        if unrouted:
            raise RuntimeError("no link leads to some of the targets")
        self.root.wake()
        return self._calls

    def connect(self) -> Callable[[], bool]:
        for machine in self.children[None]:
            self._calls += 1
            self.root.dial(machine, self._calls)
        return lambda: self.up == self.everyone

    def command(self, same: bool = True) -> Callable[[], bool]:
        call = self.call(frames.RUN, self.everyone, {"argv": ["uptime"], "same": same})
        return lambda: self.heard.get(call, 0) == self.everyone

    def barrier(self) -> Callable[[], bool]:
        """All arrive at the same instant."""
        self.told = 0
        op = codec.pack(["barrier", "wired", self._calls, 0])
        for station in self.stations:
            assert station is not None
            station.node.request(self.everyone, op, [60.0, 0], self.now)
            station.wake()
        return lambda: self.told == self.everyone

    def logs(self) -> Callable[[], bool]:
        """A kilobyte from each machine at the same instant."""
        goal = self.logged + len(LOG) * len(self.stations)
        for station in self.stations:
            assert station is not None
            station.node.record(frames.LOGS, LOG)
            station.wake()
        return lambda: self.logged == goal

    def lose_relay(self) -> Callable[[], bool]:
        """The last relay of the root dies; what hung below it comes back, and only it is gone."""
        relay = max(machine for machine in self.children[None] if machine in self.children)
        dead = self.stations[relay]
        assert dead is not None
        dead.alive = False
        self.everyone &= ~machineset.single(relay)
        self.root.node.lost(relay, "the connection closed", self.now)
        self.root.wake()
        return lambda: self.up == self.everyone

    def event(self, call: int, phase: int, extra: bytes, value: bytes, machines: int) -> None:
        if phase == tree.UP:
            new = machines & ~self.up
            self.up |= machines
            for machine in machineset.members(new & self.relays):
                self._raise_children(machine)
        elif phase == tree.DOWN:
            self.up &= ~machines
            self._adopt(machines)
        elif phase == tree.SYNC:
            members, op = merge.split_sync(extra)
            self.sync.request(machines, extra, members, codec.unpack(op), codec.unpack(value), self.now)
        elif phase == tree.DONE:
            self.heard[call] = self.heard.get(call, 0) | machines

    def _raise_children(self, relay: int) -> None:
        children = [child for child in self.children.get(relay, ()) if self.stations[child] is None]
        if children:
            self._connect_at(relay, [(child, 0) for child in children])

    def _adopt(self, machines: int) -> None:
        """What hung below a dead relay goes to its siblings, in turn; each brings what is below it."""
        lost = set(machineset.members(machines & self.everyone))
        tops = [machine for machine in sorted(lost) if self.parents[machine] not in lost]
        heirs = [m for m in self.children[None] if m in self.children and self.up >> m & 1]
        shares: dict[int, list[tuple[int, int]]] = {}
        for at, machine in enumerate(tops):
            shares.setdefault(heirs[at % len(heirs)], []).append((machine, self._subtree(machine)))
        for heir, share in shares.items():
            self._connect_at(heir, share)

    def _connect_at(self, relay: int, children: list[tuple[int, int]]) -> None:
        """As `Session._connect_at`; a host key and an address for each child."""
        specs = []
        for child, subtree in children:
            spec = {"id": child, "identity": self.identity(child), "python": "python3", "local": False,
                    "host": _address(child), "port": 22, "user": "root"}
            if subtree:
                spec |= {"attach": "fanout-01234567-0", "subtree": machineset.pack(subtree),
                         "past": machineset.pack(subtree)}
            specs.append(spec)
        known = "".join(f"{_address(child)} ssh-ed25519 {'A' * 68}\n" for child, _ in children)
        self.call(frames.CONNECT, machineset.single(relay), {
            "children": specs, "stage0": payload().stage0, "seconds": 60.0,
            "handshakes": HANDSHAKES, "ssh": {"known_hosts": known, "key": "k" * 400}})

    def _subtree(self, machine: int) -> int:
        found = machineset.single(machine)
        for child in self.children.get(machine, ()):
            found |= self._subtree(child)
        return found


def _address(machine: int) -> str:
    return f"10.{machine >> 16 & 255}.{machine >> 8 & 255}.{machine & 255}"
