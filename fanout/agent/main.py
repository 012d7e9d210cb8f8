"""The agent: the program on every machine.  Leaf, relay and the root's local machines run the same.

It reads commands from the link to its parent, does them, and goes when the run ends: by the root's END, or when
the root has not been heard of for the length of the lease.  All it writes is in one private folder, which goes
with it.

What is not needed to say hello is imported where it is used: on machines that compile the agent themselves that is
a quarter of its start.
"""

from __future__ import annotations

import _signal
import os
import sys
import time

from . import launch
from .attach import DESCRIPTORS, AttachPoint
from .core import codec, frames, machineset
from .core import node as tree
from .core.node import DONE, Node
from .loop import Loop
from .uplink import Uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .children import Children
    from .command import Command, Member
    from .ending import Ending
    from .process import Process
    from .remote import Remote
    from .shipping import Shipping
    from .streams import Streams
    from .toolbox import Toolbox

FOLDER_MOST = 95  # bytes, where folders have no short name: the path of a Unix socket has 103 at most on macOS
REMOTE_STOP = 6.0  # s to kill what a one-shot runs on other machines
SWEEP_MOST = 3.0  # s to kill what an agent that died has left
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
        self.facts: dict[str, Any] = {"python": "%d.%d.%d" % sys.version_info[:3], "system": sys.platform,
                                      "pid": os.getpid()}
        self.own_environment = dict(os.environ, LC_ALL="C")
        """For `ssh`, whose words are read."""
        self.pids: dict[int, Any] = {}
        """Who is told when a child process ends."""
        self.processes: dict[int, Process] = {}
        self.members: dict[int, Member] = {}
        self.count = 0
        """The machines of the run."""
        self.roles: dict[str, int] = {}
        """Role -> those that have it."""
        self.everyone = 0
        """Those that were there when the run began: the members of a barrier that names none."""
        self.toolbox: Toolbox | None = None
        self.shipping: Shipping | None = None
        self.streams: Streams | None = None
        self._commands: set[Command] = set()
        self._waiting: list[Command] = []
        self._payload = payload
        self.children: Children | None = None
        self.remote: Remote | None = None
        self._fills: list[tuple[str, str]] = []
        self._ending: Ending | None = None
        self.done = False
        # The link has descriptors of its own: nothing that a program or a stray print does can reach it.
        in_fd, out_fd = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        self.uplink = Uplink(self, in_fd, out_fd)

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
        # By the loop: a signal may come in the middle of anything.
        _signal.signal(_signal.SIGTERM, lambda *_: self.loop.after(0.0, lambda: self._end(0.0, spare=True)))
        self.loop.on_child(self._reap)
        self.node.open_parent(self.facts, self.loop.now)
        while True:
            self._turn()
            if self.done:
                break
            timeout = self.node.timeout()
            self.loop.once(None if timeout is None else max(0.0, timeout - self.loop.now))
        self.uplink.last_words()

    def _turn(self) -> None:
        """Everything that follows from what has just come in."""
        node = self.node
        node.tick(self.loop.now)
        while node.inbox:
            self._act(node.inbox.popleft())
            node.tick(self.loop.now)
        self.uplink.pump()
        busy = self.shipping is not None and self.shipping.pump()
        if (self.streams is not None and self.streams.pump()) or busy:
            self.loop.after(0.0, lambda: None)  # there may be more to send once this is on its way
        if self.children is not None:
            self.children.pump()
        if self.processes and node.room(frames.BULK):
            for process in self.processes.values():
                process.resume()
        if self.toolbox is not None:
            self.toolbox.service.resume()
        if self.remote is not None:
            self.remote.resume()

    def _act(self, item: tuple[Any, ...]) -> None:
        what = item[0]
        if what == tree.COMMAND:
            _, kind, call, body = item
            try:
                self._command(kind, call, codec.unpack(body))
            except Exception as error:  # whatever is wrong with one command, the agent and all else go on
                self.emit(call, tree.REFUSED, "%s: %s" % (type(error).__name__, error))
        elif what == tree.WELCOMED:
            self._welcomed(item[1])
        elif what == tree.OPENED:
            assert self.children is not None
            self.children.opened(item[1])
        elif what == tree.CLOSE:
            assert self.children is not None
            self.children.close(item[1])
        elif what in (tree.SHIPPED, tree.WANTED, tree.DATA, tree.CANNOT):
            self._file(item)
        elif what == tree.ANSWERED:
            if self.toolbox is not None:
                self.toolbox.service.answered(item[1], item[2])
        elif what == tree.RESUMED:
            if self.shipping is not None:
                self.shipping.resumed()
            if self.toolbox is not None:
                self.toolbox.service.ask_again()
        elif what in (tree.EXPIRED, tree.BYE):
            self._end(0.0)
            assert self._ending is not None
            self._ending.dismissed()

    def _welcomed(self, identity: dict[str, Any]) -> None:
        """The parent has said who this machine is."""
        self.identity = identity
        self._fills = [("{%s}" % key, str(identity.get(key, ""))) for key in ("id", "name", "address", "role")]
        base = identity.get("folder") or os.environ.get("TMPDIR") or "/tmp"
        self.folder = os.path.join(base, "fanout-%s-%d" % (identity["run"], identity["id"]))
        self.work = os.path.join(self.folder, "work")
        if not os.path.isdir(DESCRIPTORS) and len(os.fsencode(self.folder)) > FOLDER_MOST:
            self._refuse_start("its folder's path %s is too long for a socket: set TMPDIR there" % self.folder)
            return
        if identity.get("sweep"):
            self._sweep()
        if identity.get("replaces"):  # an agent that the root knew is dead; that must not be forgotten on the way
            self.facts["replaces"] = True
        try:
            os.mkdir(self.folder, 0o700)
            os.mkdir(self.work, 0o700)
            self._attach_point = AttachPoint(self)
        except OSError as error:
            if error.filename != self.folder:
                from .ending import remove

                remove(self.folder)
            self._refuse_start("cannot make its folder %s: %s" % (error.filename, error.strerror))
            return
        self.environment = dict(os.environ)
        for key in ("id", "name", "address", "role", "run"):
            self.environment["FANOUT_" + key.upper()] = str(identity.get(key, ""))
        self.environment["FANOUT_FOLDER"] = self.folder
        self.environment["FANOUT_NETWORK"] = os.path.join(self.folder, "network.json")

    def _sweep(self) -> None:
        """An agent of this run was here and died: end what it left."""
        from . import proctree
        from .ending import remove

        prefix = "FANOUT_PROCESS=%s/%d/" % (self.identity["run"], self.identity["id"])
        until = time.monotonic() + SWEEP_MOST
        left = proctree.marked(prefix.encode())
        while left and time.monotonic() < until:
            proctree.signal(left, _signal.SIGKILL)
            time.sleep(0.01)
            left = proctree.marked(prefix.encode())
        remove(self.folder)

    def prepare(self) -> Toolbox:
        """What programs need here is made when the first one starts.  OSError when it cannot be."""
        if self.toolbox is None:
            from .toolbox import Toolbox

            self.toolbox = Toolbox(self, self._payload)
        return self.toolbox

    def _know(self, body: dict[str, Any]) -> None:
        """The root's NETWORK: all machines, for `me.network`, FANOUT_NETWORK and barriers of a role."""
        import zlib

        text = zlib.decompress(body["json"])
        self.count = body["count"]
        self.roles = {role: machineset.unpack(packed) for role, packed in body["roles"].items()}
        self.everyone = machineset.unpack(body["everyone"])
        with open(self.environment["FANOUT_NETWORK"], "wb") as file:
            file.write(text)

    # The parent.

    def attach(self, in_fd: int, out_fd: int) -> None:
        """A new parent has reached this machine: its link takes the place of the old one."""
        self.uplink.close()
        self.uplink = Uplink(self, in_fd, out_fd)
        self.node.open_parent(self.facts, self.loop.now)

    def parent_gone(self) -> None:
        """The parent has closed the link.  Unless the run is over, the lease decides: a new parent may come."""
        if self._ending is not None:
            self._ending.alone()
        elif not self.identity:
            self.done = True
        elif self.identity.get("oneshot"):  # nobody will come back for it
            self._end(0.0)

    def refuse_parent(self, reason: str) -> None:
        """The parent talks nonsense: this machine's part in the run ends."""
        self._say_bye(reason)
        self.uplink.deaf()
        self._end(0.0)

    def _refuse_start(self, reason: str) -> None:
        self.folder = ""
        self._say_bye(reason)
        self.done = True

    def _say_bye(self, reason: str) -> None:
        assert self.node.parent is not None
        self.node.parent.send(frames.CONTROL, frames.BYE, 0, b"", reason.encode())

    # Commands.

    def _command(self, kind: int, call: int, body: Any) -> None:
        if self._ending is not None and kind not in (frames.END, frames.CONNECT):
            raise ValueError("the run has ended here")  # others may still need a way home through here
        if kind == frames.PART:
            self._payload.learn(body)
            self.emit(call, DONE, None)
            return
        if kind == frames.RUN:
            from .command import Command

            self._waiting.append(Command(self, call, body))
            self._start_waiting()
        elif kind == frames.SPAWN:
            from .process import Process

            process = self.processes[call] = Process(self, call, body)
            process.begin_at(body.get("at"))
        elif kind == frames.EACH:
            from .command import Member

            member = self.members[call] = Member(self, call, self.prepare().member_spec(body))
            self._waiting.append(member)
            self._start_waiting()
        elif kind == frames.NETWORK:
            self._know(body)
        elif kind == frames.PROCESS:
            self._process(call, body)
        elif kind == frames.CONNECT:
            self._connect(call, body)
        elif kind == frames.REMOTE:
            from .remote import Remote

            self.remote = Remote(self, call, body)
        elif kind == frames.FETCH:
            if self.streams is None:
                from .streams import Streams

                self.streams = Streams(self)
            self.streams.command(call, body)
        elif kind == frames.END:
            self._end(body["grace"], call, collect=body.get("collect"))
        else:
            raise ValueError("command %d is not known" % kind)

    def _connect(self, call: int, body: dict[str, Any]) -> None:
        """Become a relay, or get more children."""
        if self.children is None:
            from .children import Children
            from .core.bootstrap import Payload

            mine = self._payload
            codes = {mine.magic: mine.compile_all()}
            self.children = Children(self, Payload(mine.build, body["stage0"], mine.source, codes))
            self.node.acknowledges, self.node.starved = self.children.acknowledges, self.children.starved
        try:
            self.children.connect(call, body)
        except OSError as error:
            from .core.diagnose import RELAY_CANNOT

            reason = RELAY_CANNOT + "keep what ssh needs: %s" % error.strerror
            for spec in body["children"]:
                self.node.connect_failed(spec["id"], call, "failed", reason, self.loop.now)

    def _file(self, item: tuple[Any, ...]) -> None:
        """A file that comes, or that a child wants."""
        if item[0] == tree.SHIPPED:
            _, call, body, target = item
            try:
                if self.shipping is None:
                    from .shipping import Shipping

                    self.shipping = Shipping(self)
                self.shipping.ship(call, codec.unpack(body), target)
            except Exception as error:  # as for any command
                self.emit(call, tree.REFUSED, "%s: %s" % (type(error).__name__, error))
        elif self.shipping is None:
            pass  # a child wants what never came here
        elif item[0] == tree.WANTED:
            self.shipping.wanted(*item[1:])
        elif item[0] == tree.DATA:
            self.shipping.data(item[1], item[2])
        else:
            self.shipping.refused(item[1], item[2])

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
        if op == "stop":  # a command that is run can be stopped too
            for program in [*self._commands, *self.processes.values()]:
                if program.call == target:
                    program.stop(arguments[0], lambda problem: self.emit(call, DONE, problem))
                    return
        process = self.processes.get(target)
        if process is None:
            raise ValueError("there is no process %d here" % target)
        if op == "start":
            process.begin_at(arguments[0] if arguments else None)
            self.emit(call, DONE, None)
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
            launch.ended(pid)
            owner = self.pids.pop(pid, None)
            if owner is not None:
                owner.exited(status)

    def mine(self) -> list[int]:
        """Everything that still runs below this agent, connections to children excepted.

        Where the kernel lists nothing (macOS), process groups, as `kill` takes them: what has left its own is missed.
        """
        from . import proctree

        links = set() if self.children is None else {c.pid for c in self.children.connections.values()}
        if not proctree.listed():
            return [-group for group in launch.groups() - links]
        return proctree.of_this_machine(os.getpid(), links)

    def _end(self, grace: float, call: int = 0, spare: bool = False, collect: Any = None) -> None:
        remote, self.remote = self.remote, None
        if remote is not None:  # its machines have no agent that would end what runs there
            remote.stop(REMOTE_STOP, lambda: self._end(grace, call, spare, collect))
            return
        if self._ending is None:
            from .ending import Ending

            self._waiting.clear()
            self._ending = Ending(self, grace, call, spare, collect)
        else:
            self._ending.hurry(grace)


def main(payload: Any) -> None:
    Agent(payload).run()
