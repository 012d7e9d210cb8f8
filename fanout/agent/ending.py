"""The end of a run on one machine: kill all that runs, bring the last words home, leave nothing behind."""

from __future__ import annotations

import _signal
import os
import time

from . import proctree
from .attach import NAME as ATTACH
from .core import frames
from .core.node import ENDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .main import Agent

LOOK = 0.02  # s between looks at what is still there
KILL_MOST = 5.0  # s after the grace period until a process counts as one that cannot be killed
FLUSH_MOST = 10.0  # s that reports and logs may take to reach the root, unless logs are collected
ORPHAN_MOST = 5.0  # s that a new parent may take to come, when the root may not have our last word
GOING_MOST = 4.0  # s that connections to children get to end


class Ending:
    """Begun once; `call` is the END that asked for it, 0 when nobody waits for the answer."""

    def __init__(self, agent: Agent, grace: float, call: int, spare: bool, collect: Any) -> None:
        """`collect`: which logs are to be brought home whole, see `streams`."""
        self.agent = agent
        self._collect = collect
        self._flush_most = FLUSH_MOST
        self.call = call
        self._grace = grace
        self._spare = spare
        self._started = time.monotonic()
        self._left: list[int] = []
        self._clean = self._gone = False
        self._dismissed = False
        """Nobody waits for our last words any more."""
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
        if self.agent.shipping is not None:
            self.agent.shipping.end()
        if self.agent.streams is not None:
            self.agent.streams.clear()
        if self._collect:
            from .streams import collect

            self._flush_most = collect(self.agent, self.call, self._collect)
        self.agent.node.flush()
        self._started = time.monotonic()
        self._flush()

    def _flush(self) -> None:
        """ENDED is the last word: it waits until what was said before is known to be at the root.

        The parent may be lost meanwhile; then a new one is waited for, as long.
        """
        link = self.agent.node.parent
        someone = bool(self.call) and not self._dismissed
        agent = self.agent
        reading = 0 if agent.streams is None else agent.streams.left()
        if someone and link is not None and (reading or not link.delivered()) and self._waited() < self._flush_most:
            agent.loop.after(LOOK, self._flush)
            return
        unsent = reading + (0 if link is None else link.queued(frames.REPORT) + link.queued(frames.BULK))
        processes = agent.processes.values()
        problems = ["cannot be killed: process %d" % pid for pid in self._left]
        problems += ["%s: %s" % (process.spec["name"], told) for process in processes for told in process.problems()]
        if someone and unsent:
            problems.append("%d bytes of reports and logs did not reach the root in time" % unsent)
        remove(agent.folder, spare=ATTACH)
        if os.path.exists(agent.folder) and os.listdir(agent.folder) not in ([], [ATTACH]):
            problems.append("its folder %s could not be removed" % agent.folder)
        forwarded = sum(process.forwarded for process in processes)
        rotated = sum(process.rotated for process in processes)
        self._clean = True
        if agent.identity:
            agent.emit(self.call, ENDED, [forwarded, rotated, problems])
        if not someone:
            self._go()
        elif not agent.uplink.open:
            self.alone()

    def alone(self) -> None:
        """The parent is gone.  If the root may not have our last word, a new parent is waited for a while."""
        if self._clean and not self.agent.node.told():
            self.agent.loop.after(ORPHAN_MOST, self._abandoned)
        elif self._clean:
            self._go()

    def _abandoned(self) -> None:
        if not self.agent.uplink.open:
            self._go()

    def dismissed(self) -> None:
        """The root lets us go, or has not been heard of for too long: nobody is waited for any more."""
        self._dismissed = True
        if self._clean:
            self._go()

    def _go(self) -> None:
        """Let the children go, then end.  They end too, unless it is only this relay that goes (`spare`)."""
        if self._gone:
            return
        self._gone = True
        remove(self.agent.folder)
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


def remove(folder: str, spare: str = "") -> None:
    """A folder and all below it, as far as rights allow; links are not followed.  `spare`: a file that stays."""
    if not folder:
        return
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            entry = os.path.join(path, name)
            if spare and entry == os.path.join(folder, spare):
                continue
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
