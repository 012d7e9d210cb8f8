"""One command on many machines over plain SSH: no agent, and no Python, on the machines that run it.

Flat, the root connects to each itself.  Through relays, each relay runs the agent and logs in to its share with the
`ssh` it has (`agent.remote`); what comes back is the same.  Either way every machine ends with an `Ended`, once,
and nothing more is heard of it; and a command that is given up is killed on its machine, by its process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fanout.agent.core.dialer import Dialer
from fanout.agent.core.preamble import ERR, KILLING_BESIDE, LOST, OUT, Preamble, announced
from fanout.fleets.base import Host
from fanout.root import descriptors
from fanout.root.outcomes import Outcome
from fanout.root.settings import Settings
from fanout.root.ssh_options import Shared
from fanout.root.transport import SSHConnection, Unreached, open_ssh

FOREVER = float("inf")
ATTEMPT = 10.0  # s for one attempt to connect: an sshd that is full may take a connection and say nothing
KILLING = 5.0  # s that killing what runs on a machine may take
PREAMBLE = 1.0  # s that a machine gets to tell what is to be killed
CLOSING = 2.0  # s for connections to close at the end
SURVIVES = ("may still run: its login shell has not begun it yet, or sshd takes no second session (MaxSessions); nor"
            " has sshd killed it itself (older ones do not for root)")


@dataclass(frozen=True)
class Job:
    command: str
    """For the login shell of each machine, as `ssh host COMMAND` has it."""
    stdin: bytes = b""
    connect_timeout: float = 15.0
    """Seconds from the first attempt to reach a machine."""
    timeout: float | None = None
    """Seconds that the command may run on a machine."""


@dataclass(frozen=True)
class Ended:
    """What became of the command on one machine."""

    outcome: Outcome
    code: int | None = None
    """Exit code; 128 and the number of the signal that ended it; None where it did not come to an end."""
    reason: str = ""
    """Why it did not run, or not to its end."""


class Watcher(Protocol):
    """Who is told; on the event loop."""

    def output(self, machine: int, stream: int, data: bytes) -> None:
        """Bytes as they come; `stream` is 1 or 2."""

    def ended(self, machine: int, how: Ended) -> None:
        """The last of a machine."""


class Flat:
    """The root reaches each machine itself."""

    def __init__(self, hosts: Sequence[Host], job: Job, settings: Settings, watcher: Watcher) -> None:
        self.hosts = hosts
        self.job = job
        self.settings = settings
        self.watcher = watcher
        self.shared = Shared(settings)
        self.token = secrets.token_hex(8)
        self._dialer = Dialer(settings.handshakes, random.random)
        self._machines = [_Machine(self, i) for i in range(len(hosts))]
        self._left = len(hosts)
        self._tasks: set[asyncio.Task[None]] = set()
        self._redial: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._stopping = False
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Until every machine has ended.  Cancelled: everything is stopped, on the machines too."""
        descriptors.allow(len(self.hosts))
        for i in range(len(self.hosts)):
            self._dialer.add(i, FOREVER)
        self.dial()
        try:
            await self._over.wait()
            if self._error is not None:
                await self._stop()
                raise self._error
        except asyncio.CancelledError:
            await self._stop()
            raise
        finally:
            if self._redial is not None:
                self._redial.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=CLOSING)

    async def _stop(self) -> None:
        self._stopping = True
        if self._tasks:  # an attempt that is cut off may just have started the command
            _, late = await asyncio.wait(self._tasks, timeout=CLOSING)
            for task in late:
                task.cancel()
        for machine, killed in enumerate(await asyncio.gather(*(machine.kill() for machine in self._machines))):
            if not killed:
                self.watcher.ended(machine, Ended(Outcome.LOST, None, f"it was interrupted, and {SURVIVES}"))

    def dial(self) -> None:
        loop = asyncio.get_running_loop()
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        if self._stopping:
            return
        for i in self._dialer.start(loop.time()):
            self.background(self._machines[i].attempt())
        due = self._dialer.timeout()
        if due is not None:
            self._redial = loop.call_later(max(0.01, due - loop.time()), self.dial)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:  # one machine would be waited for for ever
            self._error = task.exception()
            self._over.set()

    def connected(self, machine: int) -> None:
        self._dialer.succeeded(machine)
        self.dial()

    def failed(self, machine: int, again: bool) -> bool:
        """True: it will be tried again."""
        retry = self._dialer.failed(machine, again, asyncio.get_running_loop().time())
        self.dial()
        return retry

    def ended(self, machine: int, how: Ended) -> None:
        if not self._stopping:
            self.watcher.ended(machine, how)
        self._left -= 1
        if not self._left:
            self._over.set()


class _Machine:
    """One machine of a flat run: its connection, and what its command does."""

    def __init__(self, owner: Flat, number: int) -> None:
        self.owner = owner
        self.number = number
        self._began: float | None = None
        self._connection: SSHConnection | None = None
        self._preamble = Preamble(owner.token)
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._survives = False
        self._began_there = asyncio.Event()
        """The command is known to have begun, or has ended."""
        self._over = False

    async def attempt(self) -> None:
        owner, loop = self.owner, asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
        deadline = self._began + owner.job.connect_timeout
        left = min(ATTEMPT, max(0.1, deadline - loop.time()))
        try:
            async with asyncio.timeout(left):
                self._connection = await open_ssh(
                    owner.hosts[self.number], announced(owner.job.command, owner.token), owner.settings, self,
                    owner.shared, self._complained)
        except TimeoutError:
            failure = Unreached(Outcome.UNREACHABLE, f"it does not answer within {owner.job.connect_timeout:g} s"
                                                     " (--connect-timeout)", True)
        except Unreached as error:
            failure = error
        else:
            owner.connected(self.number)
            self._connected()
            return
        if not owner.failed(self.number, failure.again and loop.time() < deadline):
            self._end(Ended(Outcome(failure.outcome), None, failure.reason))

    def _connected(self) -> None:
        assert self._connection is not None
        job = self.owner.job
        if job.stdin:
            self._connection.write(job.stdin)
        self._connection.write_eof()
        if job.timeout is not None and not self._over:
            self._timer = asyncio.get_running_loop().call_later(job.timeout, self._overdue)
        if self._over:
            self._part()

    def _overdue(self) -> None:
        self._timed_out = True
        self.owner.background(self._kill_overdue())

    async def kill(self) -> bool:
        """End what runs on the machine, then the connection.  Bounded in time.  False: it may run on there."""
        connection = self._connection
        if connection is None or self._over:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._began_there.wait(), PREAMBLE)
        killed = self._preamble.began and await connection.also(KILLING_BESIDE, KILLING)
        if not killed and not self._over:
            killed = await connection.kill()
        self._survives = not killed and not self._over
        await connection.close(0.2)
        return not self._survives

    async def _kill_overdue(self) -> None:
        await self.kill()

    # What the connection says.

    def received(self, data: bytes) -> None:
        data = self._preamble.feed(data)
        if self._preamble.began:
            self._began_there.set()
        if data and not self._over:
            self.owner.watcher.output(self.number, OUT, data)

    def _complained(self, data: bytes) -> None:
        if not self._over:
            self.owner.watcher.output(self.number, ERR, data)

    def writable_again(self) -> None: ...

    def ended(self, code: int, stderr: str) -> None:
        rest = self._preamble.finish()
        self._began_there.set()
        if rest:
            self.owner.watcher.output(self.number, OUT, rest)
        if self._timed_out:
            became = SURVIVES if self._survives else "was killed"
            self._end(Ended(Outcome.TIMED_OUT, None, f"it ran longer than {self.owner.job.timeout:g} s"
                                                     f" (--command-timeout) and {became}"))
        elif code < 0:
            self._end(Ended(Outcome.LOST, None, LOST % (stderr or "closed")))
        else:
            self._end(Ended(Outcome.OK if code == 0 else Outcome.FAILED, code))

    def _end(self, how: Ended) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._part()
        self.owner.ended(self.number, how)

    def _part(self) -> None:
        if self._connection is not None:
            self._connection.part()
