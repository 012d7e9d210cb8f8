"""What programs on this machine may ask of their agent: report, measure, synchronise.

A private Unix socket in the run's folder; each message is a length (32 bits, big-endian) and msgpack:
`[id, op, ...]` to the agent, `[id, ok, value]` back.  The `fanout` helper and member functions speak it.
"""

from __future__ import annotations

import os
import time

from .attach import listen
from .core import codec, frames, limits, machineset, merge
from .core.codec import ProtocolError
from .loop import READ, WRITE, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Timer
    from .main import Agent

    Then = Callable[[bool, Any], None]

MESSAGE_MOST = 1 << 20  # bytes of one message of a program
TEXT_MOST = 16 << 10  # characters of a report
GRACE = 10.0  # s that the root's own answer "timed out" may be late before the agent gives up itself
CLIENTS = 512  # programs that may be connected at once


class Client:
    """One connected program."""

    def __init__(self, service: Service, fd: int) -> None:
        self.service = service
        self.fd = fd
        self.call = 0
        """The call whose program this is."""
        self._in = b""
        self._out = b""
        service.agent.loop.watch(fd, READ, self._readable)

    def _readable(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        data = read(self.fd, 64 << 10)
        if data is None:
            return
        if not data:
            self.close()
            return
        self._in += data
        while self.fd >= 0 and len(self._in) >= 4:
            size = int.from_bytes(self._in[:4], "big")
            if size > MESSAGE_MOST:
                self.close()
                return
            if len(self._in) < 4 + size:
                return
            body, self._in = self._in[4 : 4 + size], self._in[4 + size :]
            try:
                number, op, *arguments = codec.unpack(body)
            except (ProtocolError, TypeError, ValueError):
                self.close()
                return
            self._do(number, op, arguments)

    def _do(self, number: int, op: str, arguments: list[Any]) -> None:
        try:
            self.service.request(self, number, op, arguments)
        except (TypeError, ValueError, OverflowError) as error:
            self.answer(number, False, str(error))

    def hears(self, number: int) -> Then:
        """What tells this program the answer to one of its requests."""
        return lambda ok, value: self.answer(number, ok, value)

    def answer(self, number: int, ok: bool, value: Any) -> None:
        if self.fd < 0:
            return
        body = codec.pack([number, ok, value])
        self._out += len(body).to_bytes(4, "big") + body
        self._flush()

    def _flush(self) -> None:
        loop = self.service.agent.loop
        try:
            while self._out:
                self._out = self._out[os.write(self.fd, self._out) :]
        except BlockingIOError:
            loop.watch(self.fd, READ | WRITE, self._readable)
            return
        except OSError:
            self.close()
            return
        loop.watch(self.fd, READ, self._readable)

    def close(self) -> None:
        if self.fd >= 0:
            self.service.agent.loop.forget(self.fd)
            os.close(self.fd)
            self.fd = -1
            self.service.clients.discard(self)


class Service:
    def __init__(self, agent: Agent) -> None:
        """OSError when the socket cannot be made."""
        self.agent = agent
        self.clients: set[Client] = set()
        self._reports = 0
        self._nonce = 0
        self._generations: dict[str, int] = {}
        self._pending: dict[bytes, tuple[Any, Then, Timer]] = {}
        """Request key -> what was asked with it, who is told, and when the agent itself gives up."""
        self._blocked: list[Callable[[], None]] = []
        """Reports that wait for room on the way up; their programs wait with them."""
        self._socket = listen(agent, "socket", 64, self._came)

    def _came(self, fd: int) -> None:
        if len(self.clients) >= CLIENTS:
            os.close(fd)
        else:
            self.clients.add(Client(self, fd))

    def request(self, client: Client, number: int, op: str, arguments: list[Any]) -> None:
        """TypeError, ValueError: it makes no sense; the text is the answer."""
        now = self.agent.loop.now
        if op == "hello":
            client.call = int(arguments[0])
            client.answer(number, True, None)
        elif op == "report":
            text, fields = arguments
            self.report(str(text), fields, lambda: client.answer(number, True, None))
        elif op == "metric":
            name, value, unit, label = arguments
            self.agent.node.metric(limits.name(name), str(unit), str(label), float(value), now)
            client.answer(number, True, None)
        elif op == "result":
            member = self.agent.members.get(client.call)
            if member is None:
                raise ValueError("there is no member function of this call")
            member.result = arguments[0]
            client.answer(number, True, None)
        elif op == "barrier":
            name, who, count, quorum, timeout = arguments
            limits.name(name)
            members, size = self._members(who)
            needed = limits.needed(size, count, quorum)
            if needed > size:
                raise ValueError("barrier %s: %d of %d members can never arrive" % (name, needed, size))
            seconds = limits.seconds(timeout)
            generation = self._generations[name] = self._generations.get(name, 0) + 1
            self._ask(members, [op, name, generation, needed], [seconds, client.call], seconds, client.hears(number))
        elif op in ("wait", "collect"):
            name, after, count, timeout = arguments
            seconds, count = limits.seconds(timeout), limits.whole(count)
            self._ask(0, [op, limits.name(name), int(after), count], seconds, seconds, client.hears(number))
        elif op in ("signal", "publish"):
            name, value, timeout = arguments
            self.single(op, name, value, limits.seconds(timeout), client.hears(number))
        else:
            raise ValueError("an agent cannot %r" % op)

    def single(self, op: str, name: str, value: Any, timeout: float, then: Then) -> None:
        """A signal, or a value for a topic: of a program, or of a log trigger."""
        limits.value(value, "%s %s: the value" % (op, limits.name(name)))
        self._nonce += 1
        self._ask(0, [op, name, self._nonce], value, timeout, then)

    def _ask(self, members: int, op: list[Any], value: Any, timeout: float, then: Then) -> None:
        packed = codec.pack(op)
        while merge.sync_extra(members, packed) in self._pending:  # of two who ask the same, each has its deadline
            self._nonce += 1
            packed = codec.pack(op + [self._nonce])
        key = self.agent.node.request(members, packed, value, self.agent.loop.now)
        reason = "%s %s: no answer from the root within %g s" % (op[0], op[1], timeout + GRACE)
        timer = self.agent.loop.after(timeout + GRACE, lambda: self._settle(key, False, reason))
        self._pending[key] = value, then, timer

    def answered(self, key: bytes, answer: bytes) -> None:
        """The root's answer to a request."""
        ok, value = codec.unpack(answer)
        self._settle(key, bool(ok), value)

    def _settle(self, key: bytes, ok: bool, value: Any) -> None:
        if key in self._pending:
            _, then, timer = self._pending.pop(key)
            timer.cancel()
            then(ok, value)

    def ask_again(self) -> None:
        """The way to the root is a new one; the root knows what it has answered already."""
        for key, (value, _, _) in self._pending.items():
            self.agent.node.ask_again(key, value, self.agent.loop.now)

    def _members(self, who: Any) -> tuple[int, int]:
        """(set, size).  None: everyone who was there when the run began.  A role, or a list of ids.

        ValueError for what there is not.
        """
        everyone = self.agent.everyone
        if who is None:
            return everyone, machineset.count(everyone)
        if isinstance(who, str):
            found = self.agent.roles.get(who, 0) & everyone
            if not found:
                roles = ", ".join(sorted(self.agent.roles)) or "none"
                raise ValueError("there is no role %s; there are: %s" % (who, roles))
            return found, machineset.count(found)
        ids = [int(machine) for machine in who]
        if not ids or any(not 0 <= machine < self.agent.count for machine in ids):
            raise ValueError("members: %r are not ids of machines of this run" % (ids[:10],))
        found = machineset.of(ids)
        return found, machineset.count(found)

    def report(self, text: str, fields: Any, done: Callable[[], None]) -> None:
        """`done` is called once it is on its way; when the way is full, that is later."""
        if len(text) > TEXT_MOST:
            raise ValueError("a report of %d characters; %d are the most" % (len(text), TEXT_MOST))
        if not isinstance(fields, dict):
            raise ValueError("a report's fields are a map, not %r" % (fields,))
        limits.value(fields, "a report's fields")
        clock, stamp = self.agent.node.clock, time.time()
        when = None if clock is None else self.agent.loop.now - clock  # by the root's clock

        def go() -> None:
            self._reports += 1
            self.agent.node.record(frames.REPORTS, codec.pack([self._reports, stamp, text, fields, when]))
            done()

        if self._blocked or not self.agent.node.room(frames.REPORT):
            self._blocked.append(go)
        else:
            go()

    def resume(self) -> None:
        """There may be room again."""
        while self._blocked and self.agent.node.room(frames.REPORT):
            self._blocked.pop(0)()

    def close(self) -> None:
        """The run is over: who still waits is told."""
        for key in list(self._pending):
            self._settle(key, False, "the run has ended")
        while self._blocked:  # reports are never dropped; what is blocked is bounded by the number of programs
            self._blocked.pop(0)()
        for client in list(self.clients):
            client.close()
        self.agent.loop.forget(self._socket.fileno())
        self._socket.close()

