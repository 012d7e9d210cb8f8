"""The end of a run on one machine: kill all that runs, bring the last words home, leave nothing behind."""

from __future__ import annotations

import _signal
import os
import time

from . import proctree
from .core import frames
from .core.node import ENDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main import Agent

LOOK = 0.02  # s between looks at what is still there
KILL_MOST = 5.0  # s after the grace period until a process counts as one that cannot be killed
FLUSH_MOST = 10.0  # s that reports and logs may take to reach the root
GOING_MOST = 4.0  # s that connections to children get to end


class Ending:
    """Begun once; `call` is the END that asked for it, 0 when nobody waits for the answer."""

    def __init__(self, agent: Agent, grace: float, call: int, spare: bool) -> None:
        self.agent = agent
        self.call = call
        self._grace = grace
        self._spare = spare
        self._started = time.monotonic()
        self._left: list[int] = []
        self._clean = False
        for process in agent.processes.values():
            process.stopping = True
        proctree.signal(agent.mine(), _signal.SIGTERM)
        self._kill()

    def hurry(self, grace: float) -> None:
        """Asked to end again: by the shorter of the two grace periods."""
        self._grace = min(self._grace, grace)

    def _waited(self) -> float:
        return time.monotonic() - self._started

    def _kill(self) -> None:
        mine = self.agent.mine()
        if mine and self._waited() < self._grace + KILL_MOST:
            if self._waited() >= self._grace:
                proctree.signal(mine, _signal.SIGKILL)
            self.agent.loop.after(LOOK, self._kill)
            return
        self._left = mine
        for process in self.agent.processes.values():
            process.close()
        if self.agent.toolbox is not None:
            self.agent.toolbox.close()
        self.agent.node.flush(self.agent.loop.now)
        self._started = time.monotonic()
        self._flush()

    def _flush(self) -> None:
        """ENDED is the last word: it waits until what was said before is known to be at the root."""
        link = self.agent.node.parent
        someone = self.call and self.agent.uplink.open
        if someone and link is not None and not link.delivered() and self._waited() < FLUSH_MOST:
            self.agent.loop.after(LOOK, self._flush)
            return
        agent = self.agent
        unsent = 0 if link is None else link.queued(frames.REPORT) + link.queued(frames.BULK)
        processes = agent.processes.values()
        problems = ["cannot be killed: process %d" % pid for pid in self._left]
        problems += ["%s: %s" % (process.spec["name"], told) for process in processes for told in process.problems()]
        if someone and unsent:
            problems.append("%d bytes of reports and logs did not reach the root in time" % unsent)
        remove(agent.folder)
        if os.path.exists(agent.folder):
            problems.append("its folder %s could not be removed" % agent.folder)
        forwarded = sum(process.forwarded for process in processes)
        rotated = sum(process.rotated for process in processes)
        self._clean = True
        if agent.identity:
            agent.emit(self.call, ENDED, [forwarded, rotated, problems])
        if not someone:
            self._go()

    def alone(self) -> None:
        """The parent is gone: what is under way goes on, and nobody is waited for after it."""
        if self._clean:
            self._go()

    def _go(self) -> None:
        """Let the children go, then end.  They end too, unless it is only this relay that goes (`spare`)."""
        children = self.agent.children
        if children is None:
            self.agent.done = True
            return
        children.shut(farewell=not self._spare)
        until = time.monotonic() + GOING_MOST

        def look() -> None:
            if children.connections and time.monotonic() < until:
                self.agent.loop.after(LOOK, look)
            else:
                self.agent.done = True

        look()


def remove(folder: str) -> None:
    """A folder and all below it, as far as rights allow; links are not followed."""
    if not folder:
        return
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            entry = os.path.join(path, name)
            try:
                _unlink(entry)
            except OSError:
                try:
                    os.chmod(path, 0o700)
                    _unlink(entry)
                except OSError:
                    pass
    try:
        os.rmdir(folder)
    except OSError:
        pass


def _unlink(entry: str) -> None:
    if os.path.isdir(entry) and not os.path.islink(entry):
        os.rmdir(entry)
    else:
        os.unlink(entry)
