"""What programs on this machine may ask of their agent: report, measure, synchronise.

A private Unix socket in the run's folder; each message is a length (32 bits, big-endian) and msgpack:
`[id, op, ...]` to the agent, `[id, ok, value]` back.  The `fanout` helper and member functions speak it.
"""

from __future__ import annotations

import _socket
import os
import time

from .core import codec, frames
from .core.codec import ProtocolError
from .loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .main import Agent

MESSAGE_MOST = 1 << 20  # bytes of one message of a program
VALUE_MOST = 64 << 10  # bytes of a signal's or topic's value, or a report's fields
TEXT_MOST = 16 << 10  # characters of a report
NAME_MOST = 200  # characters of a barrier, signal, topic or metric
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
        try:
            data = os.read(self.fd, 64 << 10)
        except BlockingIOError:
            return
        except OSError:
            data = b""
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
        self._pending: dict[bytes, list[tuple[Client | None, int]]] = {}
        self._blocked: list[Callable[[], None]] = []
        """Reports that wait for room on the way up; their programs wait with them."""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind(os.path.join(agent.folder, "socket"))
        self._socket.listen(64)
        agent.loop.watch(self._socket.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            fd, _address = self._socket._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        if len(self.clients) >= CLIENTS:
            os.close(fd)
            return
        os.set_blocking(fd, False)
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
            self.agent.node.metric(_name(name), str(unit), str(label), float(value), now)
            client.answer(number, True, None)
        elif op == "result":
            member = self.agent.members.get(client.call)
            if member is None:
                raise ValueError("there is no member function of this call")
            member.result = arguments[0]
            client.answer(number, True, None)
        elif op == "barrier":
            name, who, count, quorum, timeout = arguments
            members = self._members(who)
            size = len(members) or len(self.agent.network)
            needed = int(count) if count else -int(-size * quorum // 1) if quorum else 0
            if needed > size or needed < 0:
                raise ValueError("barrier %s: %d of %d members can never arrive" % (name, needed, size))
            generation = self._generations[name] = self._generations.get(_name(name), 0) + 1
            self._ask(client, number, members, ["barrier", name, generation, needed],
                      [float(timeout), client.call], timeout)
        elif op in ("wait", "collect"):
            name, after, count, timeout = arguments
            self._ask(client, number, [], [op, _name(name), int(after), int(count)], float(timeout), timeout)
        elif op in ("signal", "publish"):
            name, value, timeout = arguments
            self.single(op, name, value, client, number, timeout)
        else:
            raise ValueError("an agent cannot %r" % op)

    def single(self, op: str, name: str, value: Any, client: Client | None = None, number: int = 0,
               timeout: float = 60.0) -> None:
        """A signal, or a value for a topic: of a program, or (no client) of a log trigger."""
        if len(codec.pack(value)) > VALUE_MOST:
            raise ValueError("%s %s: the value is larger than %d bytes" % (op, name, VALUE_MOST))
        self._nonce += 1
        self._ask(client, number, [], [op, _name(name), self._nonce], value, timeout)

    def _ask(self, client: Client | None, number: int, members: list[int], op: list[Any], value: Any,
             timeout: float) -> None:
        bits = 0
        for machine in members:
            bits |= 1 << machine
        key = self.agent.node.request(bits, codec.pack(op), value, self.agent.loop.now)
        self._pending.setdefault(key, []).append((client, number))
        reason = "%s %s: no answer from the root within %g s" % (op[0], op[1], timeout + GRACE)
        self.agent.loop.after(timeout + GRACE, lambda: self.answered(key, [False, reason]))

    def answered(self, key: bytes, answer: Any) -> None:
        """The root's answer, to all who asked the same."""
        ok, value = answer
        for client, number in self._pending.pop(key, ()):
            if client is not None:
                client.answer(number, bool(ok), value)

    def _members(self, who: Any) -> list[int]:
        """None: everyone.  A role, or a list of ids.  ValueError for what there is not."""
        if who is None:
            return []
        if isinstance(who, str):
            found = [machine[0] for machine in self.agent.network if machine[2] == who]
            if not found:
                roles = sorted({machine[2] for machine in self.agent.network if machine[2]})
                raise ValueError("there is no role %s; there are: %s" % (who, ", ".join(roles) or "none"))
            return found
        ids = [int(machine) for machine in who]
        if not ids or any(not 0 <= machine < len(self.agent.network) for machine in ids):
            raise ValueError("members: %r are not ids of machines of this run" % (ids[:10],))
        return ids

    def report(self, text: str, fields: Any, done: Callable[[], None]) -> None:
        """`done` is called once it is on its way; when the way is full, that is later."""
        if len(text) > TEXT_MOST:
            raise ValueError("a report of %d characters; %d are the most" % (len(text), TEXT_MOST))
        if not isinstance(fields, dict) or len(codec.pack(fields)) > VALUE_MOST:
            raise ValueError("a report's fields are a map of at most %d bytes" % VALUE_MOST)

        def go() -> None:
            self._reports += 1
            self.agent.node.record(frames.REPORTS, codec.pack([self._reports, time.time(), text, fields]))
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
            self.answered(key, [False, "the run has ended"])
        while self._blocked:  # reports are never dropped; what is blocked is bounded by the number of programs
            self._blocked.pop(0)()
        for client in list(self.clients):
            client.close()
        self.agent.loop.forget(self._socket.fileno())
        self._socket.close()


def _name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MOST or not name.isprintable():
        raise ValueError("%r is no name: give 1 to %d printable characters" % (name, NAME_MOST))
    return name
