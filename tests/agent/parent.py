"""The parent of one real agent: the root's own node over the pipes of a process, driven by hand.

Nothing is read or written but in `turn`, so a test can also be a root that has stopped reading.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core import node as tree
from fanout.agent.core.bootstrap import Bootstrap, opening, stub
from fanout.root.payload import payload

TIMEOUT = 20.0  # s for any one thing to come about, on a busy machine


class Parent:
    """`with Parent(folder) as agent:`: the agent is welcomed on entering, and gone after leaving.

    `compiled`: it is sent code where its Python equals ours; otherwise, and always when False, source.
    """

    def __init__(self, folder: Path, python: str = sys.executable, *, compiled: bool = True, relay: bool = False,
                 lease: float = 60.0, machine: int = 0, **identity: Any) -> None:
        self.folder = folder
        self.machine = machine
        self.identity = {
            "id": machine, "name": "peer-7", "role": "peer", "address": "10.0.0.7", "run": "r1", "lease": lease,
            "relay": relay, "folder": str(folder), **identity}
        self.events: dict[tuple[int, int, bytes], list[tuple[int, Any]]] = {}
        """(call, phase, extra) -> [(set, value)]"""
        self.reports: list[list[Any]] = []
        """[number, time, text, fields]"""
        self.logs: dict[int, bytes] = {}
        self.pieces: dict[int, int] = {}
        """By call, what came; of all machines, so read it only where one speaks."""
        self.node = tree.Node(payload().build, time.monotonic(), root=True)
        self.python = python
        self.ended = False
        self._compiled = compiled
        self._number = 0

    def __enter__(self) -> Self:
        self.launch()
        self.greet()
        self.until(lambda: (0, tree.UP, b"") in self.events)
        return self

    def launch(self, **options: Any) -> None:
        """Start stage 0 on the other side of the pipes."""
        self.process = subprocess.Popen(
            [self.python, "-I", "-S", "-c", stub(payload().stage0)], bufsize=0, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self._in, self._out, self._err = self.process.stdin, self.process.stdout, self.process.stderr

    def greet(self) -> None:
        """Everything until the link is there; the agent has been sent, but not yet heard."""
        self._in.write(opening(payload().stage0, None))
        bootstrap, rest = Bootstrap(), None
        while rest is None:
            assert select.select([self._out], [], [], TIMEOUT)[0], "stage 0 says nothing"
            data = os.read(self._out.fileno(), 65536)
            assert data, self._err.read().decode()
            rest = bootstrap.feed(data)
        self._in.write(payload().offer(bootstrap.magic if self._compiled else "none", bool(self.identity["relay"])))
        self.node.open_child(self.machine, 0, self.identity, time.monotonic())
        self._received(rest)

    # Driving.

    def turn(self, timeout: float) -> bool:
        """Write what is due and read once; False when nothing came within `timeout` seconds."""
        self._write()
        if not select.select([self._out], [], [], timeout)[0]:
            return False
        data = os.read(self._out.fileno(), 65536)
        if not data:
            raise EOFError(f"the agent ended: {self.complaint()}")
        self._received(data)
        return True

    def until(self, done: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Turn until it is so; AssertionError when it does not come about."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, f"still not after {timeout} s; events: {self.events}"
            self.turn(0.05)
        self._write()

    def _received(self, data: bytes) -> None:
        self.node.receive(self.machine, data, time.monotonic())
        self._write()
        while self.node.inbox:
            item = self.node.inbox.popleft()
            if item[0] == tree.EVENT:
                _, call, phase, extra, value, machines = item
                self.events.setdefault((call, phase, extra), []).append((machines, codec.unpack(value)))
            elif item[:2] == (tree.RECORD, frames.REPORTS):
                self.reports.append(codec.unpack(item[3]))
            elif item[0] == tree.RECORD:
                call, at, piece = codec.unpack(item[3])
                assert at == len(self.logs.get(call, b"")), "logs have a gap"
                self.pieces[call] = self.pieces.get(call, 0) + 1
                self.logs[call] = self.logs.get(call, b"") + piece

    def _write(self) -> None:
        self.node.tick(time.monotonic())
        self.node.timeout()  # as every driver asks: by this the node knows when it was not called in time
        link = self.node.children.get(self.machine)
        while link is not None and (data := link.pull(65536)):
            while data:
                data = data[self._in.write(data) :]

    def send(self, kind: int, body: Any, machines: int | None = None) -> int:
        """A command; returns the number of the call."""
        self._number += 1
        targets = machineset.single(self.machine) if machines is None else machines
        self.node.command(kind, self._number, targets, codec.pack(body), time.monotonic())
        self._write()
        return self._number

    def answer(self, call: int, phase: int = tree.DONE, generation: int = 0) -> Any:
        """The one answer to a call in a phase; the reason when the machine refuses the command."""
        extra = generation.to_bytes(4, "big") if generation else b""
        wanted = ((call, phase, extra), (call, tree.REFUSED, b""))
        self.until(lambda: any(key in self.events for key in wanted))
        ((_, value),) = next(self.events[key] for key in wanted if key in self.events)
        return value

    # Verbs.

    def run(self, **spec: Any) -> Any:
        """[outcome, code, stdout, stderr, bytes cut]"""
        return self.answer(self.send(frames.RUN, spec))

    def spawn(self, **spec: Any) -> int:
        """Start a process and see it started; returns its call."""
        call = self.send(frames.SPAWN, {"name": "p", **spec})
        assert self.answer(call, tree.STARTED, 1) == ""
        return call

    def tell(self, process: int, *words: Any) -> Any:
        """One operation on a process, and its answer."""
        return self.answer(self.send(frames.PROCESS, [process, *words]))

    def end(self, grace: float = 0.5) -> Any:
        """[bytes forwarded, bytes rotated out, problems]; the agent is gone afterwards."""
        self.ended = True
        answer = self.answer(self.send(frames.END, {"grace": grace}), tree.ENDED)
        link = self.node.children.get(self.machine)
        if link is not None:
            link.send(frames.CONTROL, frames.BYE, 0, b"", b"the run is over")
            self._write()
        self._in.close()
        while rest := os.read(self._out.fileno(), 65536):
            self._received(rest)
        assert self.process.wait(TIMEOUT) == 0, self.complaint()
        return answer

    # What is left.

    def status(self, field: str) -> int:
        """A number of /proc/PID/status of the agent."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))

    def complaint(self) -> str:
        os.set_blocking(self._err.fileno(), False)
        return (self._err.read() or b"").decode()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            if error is None and not self.ended and not self._in.closed:
                self.end()
            elif error is None:
                self._in.close()
                self.process.wait(TIMEOUT)
            else:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(10.0)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        for pipe in (self._in, self._out, self._err):
            pipe.close()


def gone(pid: int, timeout: float = TIMEOUT) -> bool:
    """Whether a process ends in time; a zombie has."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(timeout * 1000))
    finally:
        os.close(fd)
