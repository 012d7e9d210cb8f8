"""One node of the tree: root, relay and leaf are the same thing with and without a parent and children.

Pure: bytes, local events and `now` (monotonic seconds) go in; bytes for each link (`Link.pull`) and a queue of
things for the driver (`inbox`) come out.  The agent's poll loop, the root's asyncio session and the tests'
simulation drive it alike.

What always holds:
- a link speaks only for machines of its own subtree, checked at every hop;
- commands come only from the parent, events only from children;
- a machine gets each command at most once, whatever way it came, and in the order of their numbers but for those
  that it missed while its link was lost;
- a frame from a child is settled when what was made of it is, so nothing is acknowledged before the root has it.
"""

from __future__ import annotations

from _collections import deque
from _heapq import heappop, heappush

from . import codec, frames, machineset, merge
from .codec import ProtocolError
from .link import CLOSED, GREETED, OPEN, WINDOW, WINDOW_MOST, Link
from .metrics import MetricMerger
from .metrics import decode as decode_metrics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .delivery import Origin
    from .frames import Frame

# Phases of a call: the second part of an event's key.
UP, DOWN = merge.UP, merge.DOWN
DONE, STARTED, READY, EXITED, MATCHED, ENDED, REFUSED = 3, 4, 5, 6, 7, 8, 9
SYNC = merge.SYNC
INSTANT = 11  # by how many seconds a start at an instant was missed

# What the inbox holds: tuples that begin with one of these.
SHIPPED = "shipped"  # (call, body, whether it is for this machine too, not only to be passed on): a file comes
WANTED = "wanted"  # (machine, call, offset, allowed, again): a child's pace; `again`: it starts from `offset`
DATA = "data"  # (call, offset and bytes)
CANNOT = "cannot"  # (call, reason): the parent has not got it
COMMAND = "command"  # (kind, call, body): do this on this machine
OPENED = "opened"  # (machine,): a child's handshake is done
CLOSE = "close"  # (machine,): end this child's connection now
EVENT = "event"  # (call, phase, extra, packed value, set): at the root
RECORD = "record"  # (kind, machine, payload): at the root
MEASURED = "measured"  # (cover, metrics): at the root
ANSWERED = "answered"  # (key, answer): to a request of this machine
WELCOMED = "welcomed"  # (identity,): who this node is
EXPIRED = "expired"  # (): the root has not been heard of for the length of the lease
RESUMED = "resumed"  # (): there is a new way to the root; what was asked and not answered is asked again
BYE = "bye"  # (reason,): the parent does not want us

LOST = "lost"
PASSES_MOST = 256  # times that one command may come by: again after each reattachment of someone below
REMEMBERED = 16384  # commands that a machine knows it has had; one that is older than all of these is not taken
REFUSED_CHILD = "failed"  # it broke the protocol, or left: it is not connected again, while what is below it is

VALUE_MOST = frames.MAX_SIZE[frames.CONTROL] - (1 << 20)
"""Bytes of the value of one event; the rest is for the set, the key, and events folded into the same message."""
CAPTURE_MOST = VALUE_MOST // 2 - 1024
"""Bytes of each stream that a command's answer may hold: both, and a few words, fit into one value."""


class Node:
    def __init__(self, build: str, now: float, root: bool = False) -> None:
        self.build = build
        """Both ends of a link run the same build, or they do not talk."""
        self.me: int | None = None
        """This machine's id: None at the root, and before the parent has said it."""
        self.root = root
        self.parent: Link | None = None
        self.children: dict[int, Link] = {}
        self.sendable: set[int] = set()
        """The children whose links have something to send: a wide node need not ask each."""
        self.inbox: deque[tuple[Any, ...]] = deque()
        self.lease = int(now) if root else 0
        self.lease_seconds = 60.0
        self.clock: float | None = 0.0 if root else None
        """How far this machine's monotonic clock is ahead of the root's, in s; None: not known yet."""
        self.refused: list[tuple[int | None, str]] = []
        """Protocol errors of children, as (machine, reason)."""
        self.last_command = 0
        """The highest number that came from above; after a loss, lower ones may follow."""
        self._taken: dict[int, None] = {}
        self._taken_floor = 0
        self._passed: dict[int, int] = {}
        self._resumed = False
        self._lease_heard = now
        self._expired = False
        self.acknowledges: Callable[[int], bool] = lambda child: False
        """Whether a child's machine is known to take what it is sent, though its agent says nothing."""
        self.starved: Callable[[int, int], bool] = lambda child, pid: False
        """... and whether the agent there, of this process id, may be waiting for its turn on a CPU; asked again."""
        self._share = 0
        """What each child's window may grow to."""
        self._restless: set[int] = set()
        """The children whose links `tick` is to look at: something has come in that may concern them."""
        self._alarms: list[tuple[float, int]] = []
        """When it is to look at which others: a heap."""
        self._merger = merge.Merger(self._below)
        self._metrics = MetricMerger()
        self._identities: dict[int, tuple[int, Any]] = {}
        self._awaited: dict[int, tuple[int, int]] = {}

    def _own(self) -> int:
        return 0 if self.me is None else machineset.single(self.me)

    def _below(self) -> int:
        machines = self._own()
        for link in self.children.values():
            machines |= link.subtree
        return machines

    # Links.

    def open_parent(self, facts: dict[str, Any], now: float) -> Link:
        """A connection to a parent is there; what the last one did not deliver goes first."""
        old, self.parent = self.parent, Link(True, now)
        self._lease_heard = now
        self.parent.state = GREETED
        self._resumed = self.me is not None
        if self._resumed:
            facts = dict(facts, resumed=[self.last_command, machineset.pack(self._below())])
        self.parent.send(frames.CONTROL, frames.HELLO, 0, b"", codec.pack([self.build, facts]))
        if old is not None:
            for cls, kind, body, origins in old.undelivered():
                # Merged numbers that may be there already must not be merged with others on their way.
                kind = frames.METRICS_AGAIN if kind == frames.METRICS else kind
                self.parent.send_up(cls, kind, body, origins)
        return self.parent

    def await_child(self, machine: int, subtree: int, past: int) -> None:
        """A child will be connected whose agent may be there already.

        `subtree`: what hangs below it, unless it is sent elsewhere before the child comes; `past`: what ever hung
        there, and whose words it may still carry.
        """
        self._move(machineset.single(machine) | subtree, None)
        self._awaited[machine] = (subtree, past)

    def open_child(self, machine: int, call: int, identity: dict[str, Any], now: float) -> Link:
        """A connection to a child is there, and stage 0 has run; `identity` is what the child will be told."""
        link = self.children[machine] = Link(False, now, machine, self.sendable)
        subtree, link.past = self._awaited.get(machine, (0, 0))
        link.subtree = machineset.single(machine) | subtree
        self._identities[machine] = (call, identity)
        # What children may have sent that the root does not have yet is in the memory of a relay.
        share = WINDOW_MOST if self.root else max(WINDOW[frames.BULK], WINDOW_MOST // len(self.children))
        for one in self.children.values() if share != self._share else [link]:
            one.grant = share
        self._share = share
        return link

    def _move(self, machines: int, to: Link | None) -> None:
        """From now on these are reached over this link, or none yet, and no command goes the old way any more."""
        for link in self.children.values():
            if link is not to and link.subtree & machines:
                link.past |= link.subtree & machines
                link.subtree &= ~machines
        for machine, (subtree, past) in self._awaited.items():
            if subtree & machines:
                self._awaited[machine] = (subtree & ~machines, past)
        if to is not None:
            to.subtree |= machines

    def connect_failed(self, machine: int, call: int, outcome: str, reason: str, now: float) -> None:
        """No connection to a child came about."""
        self.emit(call, DOWN, [outcome, reason], now, machines=machineset.single(machine))

    def drop_child(self, machine: int) -> Link | None:
        """The connection of a child, which is returned, leads nowhere any more: nothing is told of it."""
        self.sendable.discard(machine)
        self._restless.discard(machine)
        return self.children.pop(machine, None)

    def lost(self, machine: int, reason: str, now: float, outcome: str = LOST) -> None:
        """A child's connection has ended: it, and what it led to, cannot be reached any more."""
        link = self.drop_child(machine)
        if link is None:
            return
        link.state, link.reason = CLOSED, reason
        call, identity = self._identities.pop(machine)
        self._merger.gone(link.subtree)
        own = machineset.single(machine)
        events = [(merge.key(call, DOWN), codec.pack([outcome, reason]), own)]
        if link.subtree & ~own:
            name = identity.get("name", str(machine))
            why = codec.pack([LOST, "its relay %s is gone: %s" % (name, reason)])
            events.append((merge.key(call, DOWN), why, link.subtree & ~own))
        if self.root:
            self._arrived(events)
        else:
            # Behind the metrics that came before: once the root knows of the loss, nothing more comes this way.
            self.flush()
            body = codec.pack([[key, value, machineset.pack(machines)] for key, value, machines in events])
            self._up(frames.REPORT, frames.FENCED, body, [])

    def _refuse(self, machine: int, reason: str, now: float) -> None:
        """A child broke the protocol: say so, and cut it off."""
        self.refused.append((machine, reason))
        self.inbox.append((CLOSE, machine))
        self.lost(machine, "refused: " + reason, now, REFUSED_CHILD)

    def receive(self, peer: int | None, data: bytes, now: float) -> None:
        """Bytes from a child, or (None) from the parent.

        ProtocolError: the parent talks nonsense.  A child that does is cut off here.
        """
        link = self.parent if peer is None else self.children.get(peer)
        if link is None or link.state == CLOSED:
            return
        if peer is None:
            self._restless.update(self.children)  # it may settle what they said, or tell the clock
            for frame in link.receive(data, now):
                try:
                    self._from_parent(link, frame, now)
                except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
                    raise ProtocolError("message %d makes no sense: %r" % (frame[1], error)) from None
            return
        self._restless.add(peer)
        try:
            for frame in link.receive(data, now):
                self._from_child(peer, link, frame, now)
                if link.state == CLOSED:  # it said goodbye; what is still behind that is of no use
                    break
        except ProtocolError as error:
            self._refuse(peer, str(error), now)

    # From above.

    def _from_parent(self, link: Link, frame: Frame, now: float) -> None:
        _, kind, number, route, body = frame
        if kind == frames.PING:
            _, lease, self.clock = codec.unpack(body)
            if lease > self.lease:
                self.lease, self._lease_heard = lease, now
        elif kind == frames.WELCOME:
            identity = codec.unpack(body)
            if not isinstance(identity, dict) or not isinstance(identity.get("id"), int):
                raise ProtocolError("a welcome without an identity")
            self.me = identity["id"]
            self.lease_seconds = identity.get("lease", self.lease_seconds)
            link.state = OPEN
            if self._resumed:
                self._resume()
            else:
                self.inbox.append((WELCOMED, identity))
        elif kind == frames.RESUME:
            self._resume()
        elif kind == frames.BYE:
            self.inbox.append((BYE, body.decode("utf-8", "replace")))
        elif kind == frames.ANSWERS:
            self.answer([(_machines(entry[0]), entry[1], entry[2]) for entry in codec.unpack(body)])
        elif kind == frames.DATA:
            self.inbox.append((DATA, number, body))
        elif kind == frames.CANNOT:
            self.inbox.append((CANNOT, number, body.decode("utf-8", "replace")))
        else:  # one that is known here may still be new further down
            self.last_command = max(self.last_command, number)
            if self._passes(number):
                self.command(kind, number, _machines(route), body, now)

    def _resume(self) -> None:
        """Answers may have been lost on the way down: everyone below asks again what is open."""
        self.inbox.append((RESUMED,))
        for link in self.children.values():
            if link.state == OPEN:
                link.send(frames.CONTROL, frames.RESUME)

    def answer(self, answers: list[tuple[int, bytes, Any]]) -> None:
        """Hand answers, as (set, request key, answer), to those who asked: one message per child."""
        for link in self.children.values():
            if link.state != OPEN:  # who is being attached again asks again
                continue
            part = [[packed, key, value] for m, key, value in answers if (packed := machineset.pack(m & link.subtree))]
            size, start = 0, 0
            for i, entry in enumerate(part):
                size += len(entry[1]) + 64 + (len(entry[2]) if isinstance(entry[2], bytes) else 0)
                if size > merge.FLUSH_BYTES or i == len(part) - 1:
                    body = codec.pack(part[start : i + 1])
                    link.send(frames.CONTROL, frames.ANSWERS, 0, b"", body)
                    size, start = 0, i + 1
        if self.me is not None:
            for machines, key, value in answers:
                if machines >> self.me & 1:
                    self.inbox.append((ANSWERED, key, value))

    def command(self, kind: int, call: int, targets: int, body: bytes, now: float) -> int:
        """Pass a command on to the targets; at a machine that is one of them, to the driver too unless it has it.

        Returns the targets that no link leads to.
        """
        below = past = 0
        if kind in (frames.CONNECT, frames.REMOTE):
            children = 0
            for spec in codec.unpack(body)["children"]:
                children |= machineset.single(spec["id"])
                below |= machineset.single(spec["id"]) | _machines(spec.get("subtree", b""))
                past |= _machines(spec.get("past", b""))
            below &= ~targets  # a relay may do a part itself of what it is to have done on others
            self._merger.expect(call, children)
        else:
            self._merger.expect(call, targets)
        reached = 0
        for machine, link in self.children.items():
            part = targets & link.subtree
            if part and link.state == OPEN:
                if below:
                    self._move(below, link)
                    link.past |= past
                if kind == frames.END:
                    link.hurry = True
                    self._restless.add(machine)
                link.send(frames.CONTROL, kind, call, machineset.pack(part), body)
                reached |= part
        mine = self.me is not None and bool(targets >> self.me & 1)
        if mine:
            reached |= self._own()
        rest = targets & ~reached
        if kind == frames.SHIP and not self.root:
            self.inbox.append((SHIPPED, call, body, mine))
        elif mine and self._first(call):
            self._mine(kind, call, body)
        if rest and below:  # their relay was lost while this was on its way: nobody else will speak for them
            self.emit(call, DOWN, [LOST, "its relay was lost before it could connect"], now, machines=below)
        return rest

    def _mine(self, kind: int, call: int, body: bytes) -> None:
        if kind == frames.CONNECT:
            for spec in codec.unpack(body)["children"]:
                subtree, past = (_machines(spec.get(key, b"")) for key in ("subtree", "past"))
                self.await_child(spec["id"], subtree, past)
        self.inbox.append((COMMAND, kind, call, body))

    def _passes(self, call: int) -> bool:
        """A late connection may close a circle, until the root cuts it: a command must not go round for ever."""
        times = self._passed[call] = self._passed.get(call, 0) + 1
        if len(self._passed) > REMEMBERED:
            del self._passed[next(iter(self._passed))]
        return times <= PASSES_MOST

    def _first(self, call: int) -> bool:
        """Whether this machine does not have this command yet: after a reattachment it may come again, and late."""
        if call in self._taken or call <= self._taken_floor:
            return False
        self._taken[call] = None
        if len(self._taken) > REMEMBERED:
            oldest = next(iter(self._taken))
            del self._taken[oldest]
            self._taken_floor = max(self._taken_floor, oldest)
        return True

    # From below.

    def _from_child(self, machine: int, link: Link, frame: Frame, now: float) -> None:
        cls, kind, number, _, body = frame
        if kind == frames.HELLO:
            build, facts = codec.fields(body, str, dict)
            link.pid = int(facts.pop("pid", 0))
            if build != self.build:
                raise ProtocolError("runs build %s, not %s" % (build, self.build))
            call, identity = self._identities[machine]
            machines = machineset.single(machine)
            if "resumed" in facts:
                last, packed = codec.fields(codec.pack(facts.pop("resumed")), int, bytes)
                claimed = _machines(packed) | machines
                if claimed & ~(link.subtree | link.past):
                    raise ProtocolError("has machines below it that are not its own")
                machines = claimed & link.subtree  # others have moved meanwhile, which it cannot know
                facts["resumed"] = last
            link.subtree, link.past = machines, link.past | link.subtree & ~machines
            link.state = OPEN
            link.send(frames.CONTROL, frames.WELCOME, 0, b"", codec.pack(identity))
            self.inbox.append((OPENED, machine))
            self.emit(call, UP, facts, now, machines=machines)
        elif kind in (frames.EVENTS, frames.FENCED):
            events = merge.decode(body)
            for key, _, machines in events:
                if machines & ~(link.subtree | link.past) or not machines:
                    raise ProtocolError("speaks for machines that are not its own")
                if merge.split_key(key)[1] == DOWN:  # the way stays until the root makes another: news may be old
                    self._merger.gone(machines)
            if self.root:
                self._arrived(events)
                link.receiver(cls).settle(number)
            elif kind == frames.FENCED:
                self.flush()
                self._up(cls, kind, body, [(link.receiver(cls), number)])
            else:
                self._merger.add(events, (link.receiver(cls), number), now)
        elif kind in (frames.REPORTS, frames.LOGS):
            for source, payload in frames.records(body):
                if not (link.subtree | link.past) >> source & 1:
                    raise ProtocolError("speaks for machine %d, which is not its own" % source)
                if self.root:
                    self.inbox.append((RECORD, kind, source, payload))
            if self.root:
                link.receiver(cls).settle(number)
            else:
                self._up(cls, kind, body, [(link.receiver(cls), number)])
        elif kind == frames.METRICS_AGAIN and not self.root:
            decode_metrics(body, link.subtree | link.past)
            self._up(cls, kind, body, [(link.receiver(cls), number)])
        elif kind in (frames.METRICS, frames.METRICS_AGAIN):
            if self.root:
                self.inbox.append((MEASURED, *decode_metrics(body, link.subtree | link.past)))
                link.receiver(cls).settle(number)
            else:
                self._metrics.merge(body, link.subtree | link.past, (link.receiver(cls), number), now)
        elif kind == frames.WANT:
            offset, allowed, again = codec.fields(body, int, int, bool)
            self.inbox.append((WANTED, machine, number, offset, allowed, again))
        elif kind == frames.BYE:
            self.inbox.append((CLOSE, machine))
            self.lost(machine, body.decode("utf-8", "replace"), now, REFUSED_CHILD)

    def _up(self, cls: int, kind: int, body: bytes, origins: list[Origin]) -> None:
        if self.parent is not None:
            self.parent.send_up(cls, kind, body, origins)

    def _arrived(self, events: list[tuple[bytes, bytes, int]]) -> None:
        for key, value, machines in events:
            call, phase, extra = merge.split_key(key)
            self.inbox.append((EVENT, call, phase, extra, value, machines))

    # From this machine.

    def emit(self, call: int, phase: int, value: Any, now: float, extra: bytes = b"",
             machines: int | None = None) -> None:
        """An event of this machine (or of `machines` below it) on its way to the root."""
        if machines is None:
            assert self.me is not None
            machines = machineset.single(self.me)
        packed = codec.pack(value)
        if len(packed) > VALUE_MOST:
            text = "an answer of %d bytes; a message holds %d" % (len(packed), VALUE_MOST)
            phase, packed = REFUSED, codec.pack(text)
        event = (merge.key(call, phase, extra), packed, machines)
        if self.root:
            self._arrived([event])
        else:
            self._merger.add([event], None, now)

    def record(self, kind: int, payload: bytes, machine: int | None = None) -> None:
        """A report or a piece of log of this machine, or of one below it that has no agent."""
        machine = self.me if machine is None else machine
        assert machine is not None
        cls = frames.REPORT if kind == frames.REPORTS else frames.BULK
        self._up(cls, kind, frames.record(machine, payload), [])

    def request(self, members: int, op: bytes, value: Any, now: float) -> bytes:
        """Ask the root; returns the key that the answer will come under."""
        extra = merge.sync_extra(members, op)
        self.emit(0, SYNC, value, now, extra)
        return extra

    def want(self, call: int, offset: int, allowed: int, again: bool) -> None:
        """Ask the parent for a file's bytes."""
        if self.parent is not None:
            self.parent.send(frames.CONTROL, frames.WANT, call, b"", codec.pack([offset, allowed, again]))

    def cannot(self, child: int, call: int, reason: str) -> None:
        link = self.children.get(child)
        if link is not None:
            link.send(frames.CONTROL, frames.CANNOT, call, b"", reason.encode()[:1000])

    def ask_again(self, key: bytes, value: Any, now: float) -> None:
        self.emit(0, SYNC, value, now, key)

    def metric(self, name: str, unit: str, label: str, value: float, now: float) -> None:
        assert self.me is not None
        self._metrics.add(self.me, name, unit, label, value, now)

    def flush(self) -> None:
        """Send what is gathered without waiting for more: the run ends here."""
        measured = self._metrics.flush(float("inf"))
        if measured is not None:
            self._up(frames.REPORT, frames.METRICS, *measured)

    def told(self) -> bool:
        """All events of this node are known to be at the root."""
        return self._merger.due() is None and self.parent is not None and self.parent.told()

    def room(self, cls: int) -> int:
        """Bytes of reports or logs that this machine may add now without swelling the queue."""
        if self.parent is None or self.parent.state != OPEN:
            return 0
        return max(0, (64 << 10) - self.parent.own(cls))

    # Time.

    def tick(self, now: float) -> None:
        """What is due by `now`: merged events, heartbeats, silence, the lease.  Cheap; call it after any input."""
        if self.root:
            self.lease = int(now)
        while self._alarms and self._alarms[0][0] <= now:
            machine = heappop(self._alarms)[1]
            if machine in self.children:
                self.children[machine].alarm = float("inf")
                self._restless.add(machine)
        for machine in list(self._restless):
            link = self.children[machine]
            reason = link.tick(now, self.lease, self.clock, lambda: self._spared(machine, link))  # noqa: B023
            if reason:
                self.inbox.append((CLOSE, machine))
                self.lost(machine, reason, now)
        for body, origins in self._merger.flush(now):
            self._up(frames.CONTROL, frames.EVENTS, body, origins)
        measured = self._metrics.flush(now)
        if measured is not None:
            self._up(frames.REPORT, frames.METRICS, *measured)
        if not self.root and not self._expired and now - self._lease_heard > self.lease_seconds:
            self._expired = True
            self.inbox.append((EXPIRED,))

    def _spared(self, machine: int, link: Link) -> bool:
        """A child is silent: whether it is starved rather than gone, as far as can be seen from here.

        A machine whose kernel still acknowledges what it is sent is there, and what it says will come.  To wait for
        that costs nothing if nobody hangs below it, and to attach it again costs what it lacks.  A relay is worth
        waiting for only if its agent is known to want to run; one that was stopped, or hangs, holds up others.
        """
        alone = not link.subtree & ~machineset.single(machine)
        return self.acknowledges(machine) and (alone or self.starved(machine, link.pid))

    def timeout(self) -> float | None:
        """When `tick` is wanted next at the latest."""
        due = [self._merger.due(), self._metrics.due()]
        for machine in self._restless:
            link = self.children[machine]
            wanted = link.timeout()
            if wanted is not None and wanted < link.alarm:
                link.alarm = wanted
                heappush(self._alarms, (wanted, machine))
        self._restless.clear()
        if self._alarms:
            due.append(self._alarms[0][0])
        if not self.root and not self._expired:
            due.append(self._lease_heard + self.lease_seconds + 0.01)
        times = [time for time in due if time is not None]
        return min(times) if times else None


def _machines(route: bytes) -> int:
    try:
        return machineset.unpack(route)
    except ValueError as error:
        raise ProtocolError(str(error)) from None
