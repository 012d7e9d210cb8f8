"""Faults on the hosts of a lab: what strikes, whom it costs, and what of it must be undone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from fanout.fleets.lab import Lab
from tests.leftovers import title

Undo = Callable[[], None]


class Ground:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.dead: set[int] = set()
        """Machines without power."""

    def agent(self, machine: int) -> int:
        """The oldest that looks like one: stage 0 of an attachment does so too, for a moment."""
        return min(pid for pid in self._of(machine, " -I -S ") if title(pid).startswith("python"))

    def _of(self, machine: int, words: str) -> list[int]:
        found = []
        for pid, text in self.lab.processes(self.lab.hosts[machine]).items():
            if words in text:
                found.append(pid)
        return found

    def _kill(self, pids: list[int], number: int = signal.SIGKILL) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # Each strikes one machine; what it returns undoes it.

    def kill_agent(self, machine: int) -> Undo:
        os.kill(self.agent(machine), signal.SIGKILL)
        return lambda: None

    def power_cut(self, machine: int) -> Undo:
        self.lab.power_cut(self.lab.hosts[machine])
        self.dead.add(machine)
        return lambda: None

    def stop_agent(self, machine: int) -> Undo:
        agent = self.agent(machine)
        os.kill(agent, signal.SIGSTOP)
        return lambda: self._kill([agent], signal.SIGCONT)

    def link_down(self, machine: int) -> Undo:
        self.lab.link_down(self.lab.hosts[machine])
        return lambda: self.lab.link_up(self.lab.hosts[machine])

    def kill_sshd_sessions(self, machine: int) -> Undo:
        """All logins at once, as when sshd is restarted by force; its listener stays."""
        self._kill([pid for pid in self._of(machine, "sshd") if "listener" not in title(pid) and "@" in title(pid)])
        return lambda: None

    def kill_ssh(self, machine: int) -> Undo:
        """Every connection that this relay has made."""
        self._kill([pid for pid in self._of(machine, "ssh -o") if title(pid).startswith("ssh ")])
        return lambda: None


@dataclass(frozen=True)
class Kind:
    name: str
    fatal: bool
    """The machine itself is lost by it."""
    lasting: bool = False
    """It lasts until it is undone."""

    def strike(self, ground: Ground, machine: int) -> Undo:
        undo: Undo = getattr(ground, self.name)(machine)
        return undo


KINDS = (
    Kind("kill_agent", fatal=True), Kind("power_cut", fatal=True),
    Kind("stop_agent", fatal=False, lasting=True), Kind("link_down", fatal=False, lasting=True),
    Kind("kill_sshd_sessions", fatal=False), Kind("kill_ssh", fatal=False),
)
NAMED = {kind.name: kind for kind in KINDS}


def pick(rng: Random, fatal: bool) -> Kind:
    return rng.choice([kind for kind in KINDS if kind.fatal == fatal])
