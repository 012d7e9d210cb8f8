"""A relay's share of a one-shot: the plain command on other machines by this host's `ssh`, no agent there.

What they print goes up under their own ids: little of it within the answer, so that equal ones are folded on the
way, more as logs while it comes.  The answer tells how many bytes there were, since it overtakes them.
"""

from __future__ import annotations

import _signal
import os
import time

from . import launch
from .core import codec, diagnose, frames, machineset
from .core.dialer import Dialer
from .core.node import DONE
from .core.preamble import ERR, LOST, OUT, Preamble, killing, wrapped
from .loop import READ, WRITE, read
from .sshcommand import KEYLESS, SSHCommand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Timer
    from .main import Agent

READ_SIZE = 64 << 10
PIECE = 16 << 10  # bytes of output in one record
HELD = 4 << 10  # bytes of output that may wait for the end ...
HELD_FOR = 0.25  # s ... so long
STDERR_MOST = 4 << 10
ATTEMPT = 10.0  # s for one attempt to connect
ALIVE = 10  # s between signs of life of a connection
DRAINED = 8  # reads after the exit: what others still write to the pipe is not waited for
KILLERS = 16  # connections at once that only kill
KILLING = 4.0  # s that one of them gets
SURVIVES = "may still run: its relay could not log in once more to kill it"
GOODBYES = ("closed by remote host", "client_loop:", "Timeout, server", "Connection reset", "Broken pipe")


class Remote:
    def __init__(self, agent: Agent, call: int, body: dict[str, Any]) -> None:
        """OSError when what ssh needs cannot be kept."""
        self.agent = agent
        self.call = call
        self.body = body
        self.ssh = SSHCommand(agent.folder)
        self.ssh.learn(body["ssh"])
        self.leaves = {spec["id"]: Leaf(self, spec) for spec in body["children"]}
        self.stopping = False
        self._dialer = Dialer(body["handshakes"], agent.random)
        self._redial: Timer | None = None
        self._doomed: list[Leaf] = []
        self._killers = 0
        for machine in self.leaves:
            self._dialer.add(machine, float("inf"))
        self.dial()

    def dial(self) -> None:
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        if self.stopping:
            return
        now = time.monotonic()
        started = self._dialer.start(now)
        while started:
            for machine in started:
                self.leaves[machine].start()
            started = self._dialer.start(now)
        due = self._dialer.timeout()
        if due is not None:
            self._redial = self.agent.loop.after(max(0.01, due - now), self.dial)

    def began(self, machine: int) -> None:
        self._dialer.succeeded(machine)
        self.dial()

    def failed(self, machine: int, again: bool) -> bool:
        """True: it will be tried again."""
        return self._dialer.failed(machine, again and not self.stopping, time.monotonic())

    def resume(self) -> None:
        """There may be room for output again."""
        for leaf in self.leaves.values():
            leaf.resume()

    # Killing.

    def doom(self, leaf: Leaf) -> None:
        self._doomed.append(leaf)
        self._kill()

    def _kill(self) -> None:
        while self._doomed and self._killers < KILLERS:
            self._killers += 1
            self._doomed.pop(0).kill(self._killed)

    def _killed(self) -> None:
        self._killers -= 1
        self._kill()

    def stop(self, most: float, then: Callable[[], None]) -> None:
        """Kill all that runs, on the machines too; `then` is called within `most` seconds."""
        self.stopping = True
        for leaf in self.leaves.values():
            if leaf.pid:
                self.doom(leaf)
        until = time.monotonic() + most

        def look() -> None:
            if any(leaf.pid for leaf in self.leaves.values()) and time.monotonic() < until:
                self.agent.loop.after(0.02, look)
            else:
                then()

        look()


class Leaf:
    """One machine: the `ssh` that runs the command there, or the command itself on this one."""

    def __init__(self, owner: Remote, spec: dict[str, Any]) -> None:
        self.owner = owner
        self.spec = spec
        self.machine: int = spec["id"]
        self.pid = 0
        self._local = bool(spec.get("local"))
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self._timed_out = ""
        self._survives = False
        self._flushing: Timer | None = None
        self._new()

    def _new(self) -> None:
        self._preamble = Preamble(self.owner.body["token"])
        self._fds = {OUT: -1, ERR: -1}
        self._held = {OUT: b"", ERR: b""}
        self._sizes = {OUT: 0, ERR: 0}
        self._sent = False
        self._stderr = b""
        """The end of it: ssh's own words may be in it."""
        self._stdin, self._stdin_fd = b"", -1

    def start(self) -> None:
        owner, body, agent = self.owner, self.owner.body, self.owner.agent
        self._new()
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + body["seconds"]
        command = wrapped(body["command"], body["token"])
        if self._local:
            argv, cwd = [os.environ.get("SHELL") or "/bin/sh", "-c", command], os.environ.get("HOME")
        else:
            argv, cwd = owner.ssh.argv(self.spec, command, ALIVE), None
        self._stdin = body["stdin"]
        env = dict(os.environ) if self._local else agent.own_environment
        try:
            self.pid, (self._stdin_fd, self._fds[OUT], self._fds[ERR]) = launch.piped(argv, env, cwd)
        except OSError as error:
            reason = diagnose.RELAY_CANNOT + "start %s: %s" % (error.filename or "ssh", error.strerror)
            if not owner.failed(self.machine, False):
                self._done("failed", None, reason)
            return
        agent.pids[self.pid] = self
        self._timer = agent.loop.after(min(ATTEMPT, max(0.1, self._deadline - now)), self._unanswered)
        self._write(0)
        self._watch()

    def _unanswered(self) -> None:
        self._timed_out = "unreachable"
        self._end_ssh()

    def _overdue(self) -> None:
        self._timed_out = "timed out"
        self.owner.doom(self)

    def _write(self, _: int) -> None:
        loop = self.owner.agent.loop
        try:
            while self._stdin:
                self._stdin = self._stdin[os.write(self._stdin_fd, self._stdin[:READ_SIZE]) :]
        except BlockingIOError:
            loop.watch(self._stdin_fd, WRITE, self._write)
            return
        except OSError:  # it does not read
            self._stdin = b""
        loop.forget(self._stdin_fd)
        os.close(self._stdin_fd)
        self._stdin_fd = -1

    # What it prints.

    def _watch(self) -> None:
        for stream, fd in self._fds.items():
            if fd >= 0 and fd not in self.owner.agent.loop:
                self.owner.agent.loop.watch(fd, READ, self._reader(stream))

    def resume(self) -> None:
        if self.pid and self.owner.agent.node.room(frames.BULK):
            self._watch()

    def _reader(self, stream: int) -> Callable[[int], None]:
        def read(_: int) -> None:
            if self.owner.agent.node.room(frames.BULK):
                self._read(stream)
            else:
                self.owner.agent.loop.forget(self._fds[stream])  # `resume` goes on

        return read

    def _read(self, stream: int) -> bool:
        """True: there may be more."""
        fd = self._fds[stream]
        if fd < 0:
            return False
        data = read(fd, READ_SIZE)
        if data is None:
            return False
        if not data:
            self._close(stream)
            return False
        if stream == OUT:
            began = self._preamble.group is not None
            data = self._preamble.feed(data)
            if not began and self._preamble.group is not None:
                self._began()
        else:
            self._stderr = (self._stderr + data)[-STDERR_MOST:]
        self._output(stream, data)
        return True

    def _began(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        limit = self.owner.body["timeout"]
        self._timer = None if limit is None else self.owner.agent.loop.after(limit, self._overdue)
        self.owner.began(self.machine)

    def _output(self, stream: int, data: bytes) -> None:
        self._held[stream] += data
        if self._preamble.group is None:
            return  # it may be ssh that speaks
        if self._sent or len(self._held[OUT]) + len(self._held[ERR]) > HELD:
            self._flush()
        elif data and self._flushing is None:
            self._flushing = self.owner.agent.loop.after(HELD_FOR, self._flush)

    def _flush(self) -> None:
        for stream in (OUT, ERR):
            data, self._held[stream] = self._held[stream], b""
            for at in range(0, len(data), PIECE):
                piece = data[at : at + PIECE]
                payload = codec.pack([stream, self._sizes[stream], piece, None])
                self.owner.agent.node.record(frames.LOGS, payload, self.machine)
                self._sizes[stream] += len(piece)
                self._sent = True

    # The end.

    def kill(self, then: Callable[[], None]) -> None:
        """End it where it runs, then the connection to it."""
        agent = self.owner.agent
        group = self.pid if self._local else self._preamble.group
        if not self.pid or not group:
            self._end_ssh()
            then()
        elif self._local:
            self._signal(group, _signal.SIGTERM)
            agent.loop.after(0.3, lambda: self._signal(group, _signal.SIGKILL))
            then()
        else:
            Killer(self, killing(group), then)

    def _signal(self, group: int, number: int) -> None:
        try:
            os.kill(-group, number)
        except OSError:
            pass

    def _end_ssh(self) -> None:
        if self.pid:
            try:
                os.kill(self.pid, _signal.SIGKILL)
            except OSError:
                pass

    def killed(self, surely: bool) -> None:
        self._survives = not surely
        self.owner.agent.loop.after(0.2, self._end_ssh)  # it may tell by itself that the command has ended

    def _close(self, stream: int) -> None:
        fd, self._fds[stream] = self._fds[stream], -1
        if fd >= 0:
            self.owner.agent.loop.forget(fd)
            os.close(fd)

    def exited(self, status: int) -> None:
        owner, self.pid = self.owner, 0
        for stream in (OUT, ERR):
            for _ in range(DRAINED):
                if not self._read(stream):
                    break
            self._close(stream)
        self._held[OUT] += self._preamble.finish()
        if self._stdin_fd >= 0:
            self._stdin = b""
            self._write(0)
        for timer in (self._timer, self._flushing):
            if timer is not None:
                timer.cancel()
        self._flushing = None
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        said = self._stderr.decode("utf-8", "replace")
        again = False
        if self._timed_out == "timed out":
            survives = self._survives and os.WIFSIGNALED(status)  # else ssh has seen it end
            outcome, reason, number = "timed out", "it ran longer than %g s (--command-timeout) and %s" % (
                owner.body["timeout"], SURVIVES if survives else "was killed"), None
        elif self._preamble.group is None and (code == 255 or self._timed_out) and not self._local:
            number = None
            if self._timed_out:
                outcome, reason, again = diagnose.UNREACHABLE, "it does not answer within %g s (--connect-timeout)" % (
                    owner.body["seconds"]), True
            else:
                outcome, reason, again = diagnose.ssh(255, said, "")
            if outcome == diagnose.AUTH_FAILED and not owner.ssh.has_key:
                reason += KEYLESS
            self._timed_out = ""
            self._held = {OUT: b"", ERR: b""}
            assert self._deadline is not None
            again = owner.failed(self.machine, again and time.monotonic() < self._deadline)
        elif code == 255 and not self._local and any(words in said for words in GOODBYES):
            outcome, number = "lost", None
            reason = LOST % said.strip().splitlines()[-1][:200]
        else:
            outcome, number, reason = "failed" if code else "ok", code, ""
        if not again:
            self._done(outcome, number, reason)
        owner.began(self.machine) if not again and number is not None else owner.dial()

    def _done(self, outcome: str, code: int | None, reason: str) -> None:
        if self._sent:
            self._flush()
        out, err = self._held[OUT], self._held[ERR]
        if len(out) + len(err) > HELD:
            self._flush()
            out = err = b""
        value = [outcome, code, reason, self._sizes[OUT], self._sizes[ERR], out, err]
        agent = self.owner.agent
        agent.node.emit(self.owner.call, DONE, value, agent.loop.now, machines=machineset.single(self.machine))


class Killer:
    """A connection to a machine that only kills what an earlier one started there."""

    def __init__(self, leaf: Leaf, command: str, then: Callable[[], None]) -> None:
        self._leaf = leaf
        self._then = then
        agent = leaf.owner.agent
        try:
            self._pid = launch.silent(leaf.owner.ssh.argv(leaf.spec, command), agent.own_environment)
        except OSError:
            self.exited(255 << 8)
            return
        agent.pids[self._pid] = self
        self._timer = agent.loop.after(KILLING, self._give_up)

    def _give_up(self) -> None:
        try:
            os.kill(self._pid, _signal.SIGKILL)
        except OSError:
            pass

    def exited(self, status: int) -> None:
        self._leaf.killed(os.WIFEXITED(status) and os.WEXITSTATUS(status) <= 1)  # 1: TERM was enough
        self._then()
