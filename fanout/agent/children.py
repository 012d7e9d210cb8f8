"""A relay's connections to its children: an `ssh` of this host each (or a child process, for local machines).

The bound on handshakes in flight and the retries are the Dialer's; here are the processes and their pipes.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from . import launch
from .core import diagnose, frames
from .core.bootstrap import Bootstrap, Payload, opening, stub
from .core.dialer import Dialer
from .core.link import OPEN, SILENCE
from .loop import READ, WRITE, read
from .sshcommand import KEYLESS, SSHCommand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .loop import Timer
    from .main import Agent
    from .silence import Probe

READ_SIZE = 128 << 10  # bytes
STDERR_MOST = 4 << 10
ALIVE = 3  # s between signs of life of a connection that asks why an agent is silent; three go without an answer
FRESH = 0.4  # s that a look at all connections is good for: a relay has many
CLOSING = 2.0  # s that an ssh gets to end by itself once its input is closed


def _way() -> tuple[int, int]:
    """Descriptors like those of `os.pipe`, with room for more than a pipe: the fewer turns are taken to fill it."""
    read_end, write_end = _socket.socketpair()
    write_end.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, READ_SIZE)
    return read_end.detach(), write_end.detach()


class Connection:
    """One child: the process that carries its link."""

    def __init__(self, owner: Children, spec: dict[str, Any], call: int) -> None:
        self.owner = owner
        self.spec = spec
        self.machine: int = spec["id"]
        self.call = call
        self.pid = 0
        self._bootstrap: Bootstrap | None = Bootstrap()
        self._out = b""
        self._stderr = b""
        self._fds = [-1, -1, -1]
        self._writing = False
        self._failure: tuple[str, str, bool] | None = None
        self._timer: Timer | None = None
        self.closed = False
        self.probe: Probe | None = None

    def start(self) -> None:
        """OSError: no process could be started."""
        owner, loop = self.owner, self.owner.agent.loop
        local = bool(self.spec.get("local"))
        environment = dict(os.environ) if local else owner.agent.own_environment
        self.pid, self._fds = launch.piped(owner.argv(self.spec), environment, None, local, _way)
        owner.agent.pids[self.pid] = self
        loop.watch(self._fds[1], READ, self._readable)
        loop.watch(self._fds[2], READ, self._complains)
        self._timer = loop.after(max(0.1, owner.deadline(self.machine) - time.monotonic()), self._overdue)
        self._write(opening(owner.payload.stage0, self.spec.get("attach")))

    def _overdue(self) -> None:
        said = self._bootstrap.noise()[-200:] if self._bootstrap is not None else b""
        self._fail("unreachable", "no agent within the connect timeout%s" % (
            ": it printed %r" % said if said.strip() else ""), False)

    def _readable(self, _: int) -> None:
        data = read(self._fds[1], READ_SIZE)
        if data is None:
            return
        agent = self.owner.agent
        self.probe = None  # the agent is heard again: what was asked is of no more use
        if not data:
            agent.loop.forget(self._fds[1])
            if self._bootstrap is None and self.machine in agent.node.children:
                # The link has ended; why, the process's exit and last words will tell.
                agent.loop.after(0.5, self._lost)
            return
        if self._bootstrap is not None:
            try:
                rest = self._bootstrap.feed(data)
            except ValueError as error:
                kind = "no python" if "python3 is" in str(error) else "failed"
                self._fail(kind, str(error), False)
                return
            if rest is None:
                return
            bootstrap, self._bootstrap = self._bootstrap, None
            if not bootstrap.attached:
                self._write(self.owner.payload.offer(bootstrap.magic, bool(self.spec["identity"].get("relay"))))
            agent.node.open_child(self.machine, self.call, self.spec["identity"], agent.loop.now)
            data = rest
        if data:
            agent.node.receive(self.machine, data, agent.loop.now)

    def _lost(self) -> None:
        if self.owner.connections.get(self.machine) is self:
            self.owner.agent.node.lost(self.machine, self._last_words(), self.owner.agent.loop.now)

    def _complains(self, _: int) -> None:
        data = read(self._fds[2], READ_SIZE)
        if data is None:
            return
        if not data:
            self.owner.agent.loop.forget(self._fds[2])
        self._stderr = (self._stderr + data)[-STDERR_MOST:]

    def opened(self) -> None:
        """The handshake of the link is done."""
        if self._timer is not None:
            self._timer.cancel()

    # Writing.

    def _write(self, data: bytes) -> None:
        self._out += data
        self.pump()

    def pump(self, _: int = 0) -> None:
        """Write what the link has, as far as the pipe takes it."""
        if self._fds[0] < 0:
            return
        loop = self.owner.agent.loop
        link = self.owner.agent.node.children.get(self.machine) if self._bootstrap is None else None
        try:
            while True:
                if not self._out and link is not None:
                    self._out = link.pull(READ_SIZE)
                if not self._out:
                    break
                self._out = self._out[os.write(self._fds[0], self._out) :]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                loop.watch(self._fds[0], WRITE, self.pump)
            return
        except OSError:  # the reading end tells
            self._out = b""
        if self._writing:
            self._writing = False
            loop.forget(self._fds[0])

    # The end.

    def _last_words(self) -> str:
        said = self._stderr.decode("utf-8", "replace").strip().splitlines()
        return "the connection closed%s" % (" (%s)" % said[-1][:200] if said else "")

    def _fail(self, outcome: str, reason: str, again: bool) -> None:
        self._failure = (outcome, reason, again)
        self.close()

    def close(self) -> None:
        """Close its input; it ends by that, or is killed."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.pump()  # a last word, if there is room for it
        self._close_fd(0)
        wait = 0.1 if self._failure is not None else CLOSING
        self.owner.agent.loop.after(wait, self.kill)

    def drop(self) -> None:
        """Another connection takes its place: nothing that still comes by this one is heard."""
        for fd in self._fds[1:]:
            self.owner.agent.loop.forget(fd)
        self.close()

    def kill(self) -> None:
        if self.pid:
            try:
                os.kill(self.pid, 9)
            except OSError:
                pass

    def _close_fd(self, which: int) -> None:
        if self._fds[which] >= 0:
            self.owner.agent.loop.forget(self._fds[which])
            os.close(self._fds[which])
            self._fds[which] = -1

    def exited(self, status: int) -> None:
        self.pid = 0
        if self._timer is not None:
            self._timer.cancel()
        while self._fds[2] in self.owner.agent.loop and len(self._stderr) < STDERR_MOST:
            before = len(self._stderr)
            self._complains(0)
            if len(self._stderr) == before:
                break
        agent = self.owner.agent
        for _ in range(64):  # its last frames, above all
            if self._fds[1] not in agent.loop:
                break
            self._readable(0)
        for which in range(3):
            self._close_fd(which)
        self.owner.ended(self, status, self._failure)

    def diagnose(self, status: int) -> tuple[str, str, bool]:
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        said = self._stderr.decode("utf-8", "replace")
        if self._bootstrap is not None and self._bootstrap.noise().strip() and not said.strip():
            said = self._bootstrap.noise().decode("utf-8", "replace")[-500:]
        how = diagnose.remote if self.spec.get("local") else diagnose.ssh
        outcome, reason, passes = how(code, said, self.spec.get("python") or "python3")
        if outcome == diagnose.AUTH_FAILED and not self.owner.ssh.has_key:
            reason += KEYLESS
        return outcome, reason, passes

    @property
    def began(self) -> bool:
        """Stage 0 has run: from here on the link decides."""
        return self._bootstrap is None


class Children:
    def __init__(self, agent: Agent, payload: Payload) -> None:
        self.agent = agent
        self.payload = payload
        self.connections: dict[int, Connection] = {}
        self._specs: dict[int, tuple[dict[str, Any], int]] = {}
        self._deadlines: dict[int, float] = {}
        self.ssh = SSHCommand(agent.folder)
        self._standing: tuple[float, dict[str, int]] = 0.0, {}
        """TCP connections, and when they were looked at."""
        self._dialer = Dialer(16, agent.random)
        self._redial: Timer | None = None
        self._closing = False

    def connect(self, call: int, body: dict[str, Any]) -> None:
        """The root's CONNECT: {children: [spec], ssh: {...}, seconds, handshakes}."""
        self.ssh.learn(body.get("ssh") or {})
        self._dialer.most(body.get("handshakes") or 16)
        deadline = time.monotonic() + body["seconds"]
        for spec in body["children"]:
            machine = spec["id"]
            old = self.connections.pop(machine, None)
            if old is not None:  # the root knows that it leads nowhere any more
                self.agent.node.drop_child(machine)
                old.drop()
                self._dialer.succeeded(machine)
            self._specs[machine] = (spec, call)
            self._deadlines[machine] = deadline
            self._dialer.add(machine, deadline)
        self.dial()

    def acknowledges(self, machine: int) -> bool:
        """For the node: the child's machine is there, though its agent says nothing."""
        connection = self.connections.get(machine)
        if connection is None or not connection.pid:
            return False
        if connection.spec.get("local"):
            return True
        from . import silence

        now = time.monotonic()
        if now - self._standing[0] > FRESH:
            self._standing = now, silence.standing()
        return silence.acknowledges(connection.pid, self._standing[1])

    def starved(self, machine: int, pid: int) -> bool:
        """For the node: the child's agent waits for its turn; also while that is not known yet.

        Asked seldom: that an agent is starved holds for a while, and asking takes from what it lacks.
        """
        from . import silence

        connection = self.connections.get(machine)
        if connection is None:
            return False
        probe = connection.probe
        if probe is None:
            command, spec = silence.asking(pid), connection.spec
            argv = ["sh", "-c", command] if spec.get("local") else self.ssh.argv(spec, command, ALIVE)
            probe = connection.probe = silence.Probe(self.agent, argv)
        if not probe.over or (probe.starved and time.monotonic() - probe.since < SILENCE):
            return True
        connection.probe = None
        return probe.starved

    def deadline(self, machine: int) -> float:
        return self._deadlines[machine]

    def argv(self, spec: dict[str, Any]) -> list[str]:
        python = spec.get("python") or "python3"
        code = stub(self.payload.stage0)
        if spec.get("local"):
            return [python, "-I", "-S", "-c", code]
        return self.ssh.argv(spec, "exec %s -I -S -c '%s'" % (python, code))

    def dial(self) -> None:
        """Start the connections that may start now; comes back by itself when a retry is due."""
        if self._closing:
            return
        now = time.monotonic()
        started = self._dialer.start(now)
        while started:
            for machine in started:
                self._start(machine)
            started = self._dialer.start(now)  # those that failed at once have made room
        if self._redial is not None:
            self._redial.cancel()
        due = self._dialer.timeout()
        self._redial = None if due is None else self.agent.loop.after(max(0.01, due - now), self.dial)

    def _start(self, machine: int) -> None:
        spec, call = self._specs[machine]
        connection = self.connections[machine] = Connection(self, spec, call)
        try:
            connection.start()
        except OSError as error:
            del self.connections[machine]
            if spec.get("local") and error.filename:
                self._over(connection, diagnose.NO_PYTHON, "%s cannot be started: %s" % (
                    error.filename, error.strerror), False)
            else:
                self._over(connection, diagnose.FAILED, diagnose.RELAY_CANNOT + "start %s: %s" % (
                    error.filename or "ssh", error.strerror), error.errno != errno.ENOENT)

    def opened(self, machine: int) -> None:
        connection = self.connections.get(machine)
        if connection is not None:  # it may have ended at once
            self._dialer.succeeded(machine)
            connection.opened()
            self.dial()

    def close(self, machine: int) -> None:
        """The node has given this child up."""
        connection = self.connections.get(machine)
        if connection is not None:
            connection.close()
            self.agent.loop.after(0.5, connection.kill)

    def ended(self, connection: Connection, status: int, failure: tuple[str, str, bool] | None) -> None:
        """The process of a connection is gone."""
        machine = connection.machine
        if self.connections.get(machine) is not connection:
            return  # another has taken its place
        del self.connections[machine]
        outcome, reason, again = failure or connection.diagnose(status)
        if machine in self.agent.node.children:
            if self.agent.node.children[machine].state == "open":
                self._dialer.succeeded(machine)
                self.agent.node.lost(machine, reason if status else "its agent ended", self.agent.loop.now)
                return
            self.agent.node.drop_child(machine)  # began, but never said HELLO
        self._over(connection, outcome, reason, again)
        self.dial()

    def _over(self, connection: Connection, outcome: str, reason: str, again: bool) -> None:
        machine = connection.machine
        if not self._closing and self._dialer.active(machine) and not self._dialer.failed(
                machine, again, time.monotonic()):
            self.agent.node.connect_failed(machine, connection.call, outcome, reason, self.agent.loop.now)

    def pump(self) -> None:
        for machine in list(self.agent.node.sendable):
            connection = self.connections.get(machine)
            if connection is not None:
                connection.pump()

    def shut(self, farewell: bool) -> None:
        """Close them all; none is dialled again.  With a farewell what runs below ends now, not with its lease."""
        self._closing = True
        for machine, connection in list(self.connections.items()):
            link = self.agent.node.children.get(machine)
            if farewell and link is not None and link.state == OPEN:
                link.send(frames.CONTROL, frames.BYE, 0, b"", b"the run is over")
            connection.close()
