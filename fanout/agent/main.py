"""The agent: the program on every machine.  Leaf, relay and the root's local machines run the same.

It reads commands from the link to its parent, does them, and goes when the run ends: by the root's END, or when
the root has not been heard of for the length of the lease.  All it writes is in one private folder, which goes
with it.
"""

from __future__ import annotations

import _signal
import os
import sys
import time

from . import launch, proctree
from .core import codec, frames
from .core import node as tree
from .core.codec import ProtocolError
from .core.node import DONE, ENDED, Node
from .loop import READ, WRITE, Loop
from .process import Child, Command, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .children import Children

READ_SIZE = 64 << 10
GOING_MOST = 4.0  # s that connections to children get to end
RUNNING_MOST = 64  # commands (`run`) at once on one machine; further ones wait their turn


class Agent:
    def __init__(self, payload: Any) -> None:
        self.loop = Loop()
        self.node = Node(payload.build, self.loop.now)
        self.identity: dict[str, Any] = {}
        self.folder = ""
        self.work = ""
        """Where programs start, unless told otherwise."""
        self.environment: dict[str, str] = {}
        self.own_environment = dict(os.environ, LC_ALL="C")
        """For `ssh`, whose words are read."""
        self.pids: dict[int, Any] = {}
        """Who is told when a child process ends."""
        self.processes: dict[int, Process] = {}
        self._commands: set[Child] = set()
        self._waiting: list[Command] = []
        self._payload = payload
        self._children: Children | None = None
        self._fills: list[tuple[str, str]] = []
        self._out = b""
        self._writing = False
        self._ended = False
        self._done = False
        # The link has descriptors of its own: nothing that a program or a stray print does can reach it.
        self._in_fd, self._out_fd = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        os.set_blocking(self._in_fd, False)
        os.set_blocking(self._out_fd, False)

    def random(self) -> float:
        """In [0, 1), from the system; `random` costs an import."""
        return int.from_bytes(os.urandom(4), "big") / 2**32

    def compile(self, pattern: bytes) -> Any:
        import re

        return re.compile(pattern)

    def fill(self, text: str) -> str:
        """`{id}`, `{name}`, `{address}`, `{role}` become this machine's; other braces stay."""
        if "{" in text:
            for token, value in self._fills:
                text = text.replace(token, value)
        return text

    def emit(self, call: int, phase: int, value: Any, extra: bytes = b"") -> None:
        self.node.emit(call, phase, value, self.loop.now, extra)

    # The loop.

    def run(self) -> None:
        launch.become_subreaper()
        for number in (_signal.SIGPIPE, _signal.SIGHUP, _signal.SIGINT):
            _signal.signal(number, _signal.SIG_IGN)
        _signal.signal(_signal.SIGTERM, lambda *_: self._end(0.0))
        self.loop.on_child(self._reap)
        self.loop.watch(self._in_fd, READ, self._readable)
        facts = {"python": "%d.%d.%d" % sys.version_info[:3], "system": sys.platform}
        self.node.open_parent(facts, self.loop.now)
        while not self._done:
            self._turn()
            timeout = self.node.timeout()
            self.loop.once(None if timeout is None else max(0.0, timeout - self.loop.now))
        self._flush_last()

    def _turn(self) -> None:
        """Everything that follows from what has just come in."""
        node = self.node
        node.tick(self.loop.now)
        while node.inbox:
            self._act(node.inbox.popleft())
            node.tick(self.loop.now)
        self._pump()
        if self._children is not None:
            self._children.pump()
        if self.processes and node.room(frames.BULK):
            for process in self.processes.values():
                process.resume()

    def _act(self, item: tuple[Any, ...]) -> None:
        what = item[0]
        if what == tree.COMMAND:
            _, kind, call, body = item
            try:
                self._command(kind, call, codec.unpack(body))
            except (KeyError, TypeError, ValueError, ProtocolError) as error:
                self.emit(call, tree.REFUSED, "%s: %s" % (type(error).__name__, error))
        elif what == tree.WELCOMED:
            self._welcomed(item[1])
        elif what == tree.OPENED:
            assert self._children is not None
            self._children.opened(item[1])
        elif what == tree.CLOSE:
            assert self._children is not None
            self._children.close(item[1])
        elif what in (tree.EXPIRED, tree.BYE):
            self._end(0.0)

    def _welcomed(self, identity: dict[str, Any]) -> None:
        """The parent has said who this machine is."""
        self.identity = identity
        self._fills = [("{%s}" % key, str(identity.get(key, ""))) for key in ("id", "name", "address", "role")]
        base = identity.get("folder") or os.environ.get("TMPDIR") or "/tmp"
        self.folder = os.path.join(base, "fanout-%s-%d" % (identity["run"], identity["id"]))
        self.work = os.path.join(self.folder, "work")
        try:
            os.mkdir(self.folder, 0o700)
            os.mkdir(self.work, 0o700)
        except OSError as error:
            self._leave("cannot make its folder %s: %s" % (self.folder, error.strerror))
            return
        self.environment = dict(os.environ)
        for key in ("id", "name", "address", "role", "run"):
            self.environment["FANOUT_" + key.upper()] = str(identity.get(key, ""))
        self.environment["FANOUT_FOLDER"] = self.folder

    def _leave(self, reason: str) -> None:
        """Say why, and go."""
        assert self.node.parent is not None
        self.node.parent.send(frames.CONTROL, frames.BYE, 0, b"", reason.encode())
        self._done = True

    # The link to the parent.

    def _readable(self, _: int) -> None:
        try:
            data = os.read(self._in_fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._parent_gone()
            return
        try:
            self.node.receive(None, data, self.loop.now)
        except ProtocolError as error:
            self._leave("the parent broke the protocol: %s" % error)

    def _parent_gone(self) -> None:
        self.loop.forget(self._in_fd)
        if self._ended or not self.identity:
            self._go()
        # Otherwise the lease decides: a new parent may come.

    def _pump(self, _: int = 0) -> None:
        link = self.node.parent
        assert link is not None
        try:
            while True:
                if not self._out:
                    self._out = link.pull(READ_SIZE)
                if not self._out:
                    break
                self._out = self._out[os.write(self._out_fd, self._out) :]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self.loop.watch(self._out_fd, WRITE, self._pump)
            return
        except OSError:  # reading tells
            self._out = b""
        if self._writing:
            self._writing = False
            self.loop.forget(self._out_fd)

    def _flush_last(self) -> None:
        """The last words; the reader may be gone, so not for long."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            self._pump()
            if not self._writing:
                break
            self.loop.once(0.1)

    # Commands.

    def _command(self, kind: int, call: int, body: Any) -> None:
        if self._ended and kind != frames.END:
            raise ValueError("the run has ended here")
        if kind == frames.RUN:
            self._waiting.append(Command(self, call, body))
            self._start_waiting()
        elif kind == frames.SPAWN:
            process = self.processes[call] = Process(self, call, body)
            process.begin()
        elif kind == frames.PROCESS:
            self._process(call, body)
        elif kind == frames.CONNECT:
            if self._children is None:
                from .children import Children
                from .core.bootstrap import Payload

                mine = self._payload
                source = mine.source or body.get("source", b"")
                stage0 = body["stage0"]
                codes = {mine.magic: mine.compile_all()}
                self._children = Children(self, Payload(mine.build, stage0, source, codes))
            self._children.connect(call, body)
        elif kind == frames.END:
            self._end(body["grace"], call)
        else:
            raise ValueError("command %d is not known" % kind)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._commands) < RUNNING_MOST:
            command = self._waiting.pop(0)
            self._commands.add(command)
            command.begin()
            if command.pid is None:
                self._commands.discard(command)

    def finished(self, command: Command) -> None:
        self._commands.discard(command)
        self._start_waiting()

    def _process(self, call: int, body: list[Any]) -> None:
        target, op, arguments = body[0], body[1], body[2:]
        process = self.processes.get(target)
        if process is None:
            raise ValueError("there is no process %d here" % target)
        if op == "stop":
            process.stop(arguments[0], lambda problem: self.emit(call, DONE, problem))
        elif op == "start":
            process.begin()
            self.emit(call, DONE, "")
        elif op == "write":
            process.write(arguments[0], arguments[1])
            self.emit(call, DONE, "")
        elif op == "signal":
            process.signal(arguments[0])
            self.emit(call, DONE, "")
        elif op == "watch":
            process.watch(call, arguments[0], arguments[1])
        elif op == "unwatch":
            process.unwatch(arguments[0])
        else:
            raise ValueError("a process cannot %r" % op)

    # Ends.

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            owner = self.pids.pop(pid, None)
            if owner is not None:
                owner.exited(status)

    def mine(self) -> list[int]:
        """Everything that still runs below this agent, connections to children excepted."""
        found = set(proctree.below(os.getpid()))
        if self._children is not None:
            for connection in self._children.connections.values():
                found.discard(connection.pid)
                found.difference_update(proctree.below(connection.pid))  # a local child's processes are its own
        return sorted(found)

    def _end(self, grace: float, call: int = 0) -> None:
        """Kill all that runs, bring the last logs home, remove the folder; then say ENDED and wait to be let go."""
        if self._ended:
            return
        self._ended = True
        self._waiting.clear()
        started = time.monotonic()
        for process in self.processes.values():
            process.stopping = True
        proctree.signal(self.mine(), _signal.SIGTERM)

        def look() -> None:
            waited = time.monotonic() - started
            mine = self.mine()
            if mine and waited < grace + 5.0:
                if waited >= grace:
                    proctree.signal(mine, _signal.SIGKILL)
                self.loop.after(0.02, look)
            else:
                self._clean(call, mine)

        look()

    def _clean(self, call: int, left: list[int]) -> None:
        forwarded = rotated = 0
        problems = ["cannot be killed: process %d" % pid for pid in left]
        for process in self.processes.values():
            process.close()
            forwarded += process.forwarded
            rotated += process.rotated
            if process.broken:
                problems.append("%s: %s" % (process.spec["name"], process.broken))
        remove(self.folder)
        if os.path.exists(self.folder):
            problems.append("its folder %s could not be removed" % self.folder)
        self.emit(call, ENDED, [forwarded, rotated, problems])
        if not call or self._in_fd not in self.loop:
            self._go()  # nobody waits for ENDED

    def _go(self) -> None:
        """Let the children go, then end."""
        if self._children is None:
            self._done = True
            return
        self._children.shut()
        until = time.monotonic() + GOING_MOST

        def look() -> None:
            assert self._children is not None
            if self._children.connections and time.monotonic() < until:
                self.loop.after(0.02, look)
            else:
                self._done = True

        look()


def remove(folder: str) -> None:
    """A folder and all below it, as far as rights allow; links are not followed."""
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            entry = os.path.join(path, name)
            try:
                if os.path.isdir(entry) and not os.path.islink(entry):
                    os.rmdir(entry)
                else:
                    os.unlink(entry)
            except OSError:
                try:
                    os.chmod(path, 0o700)
                    os.unlink(entry)
                except OSError:
                    pass
    try:
        os.rmdir(folder)
    except OSError:
        pass


def main(payload: Any) -> None:
    Agent(payload).run()
