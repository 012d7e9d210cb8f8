"""One fault at a time, at each moment of a run, on a lab: `python -m tests.faults.cases` for all, or name some.

A case is a kind of fault, the moment, and whom it strikes; all of them on a tree of three levels and width two, so
that a relay's relay can be struck.  What must hold is said in `play.py`; here it is also bounded in time.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.fleets.lab import Lab
from tests.faults.figures import Figures
from tests.faults.play import CALM, FIRST, Play
from tests.faults.strikes import NAMED

PARENTS = [None, None, 0, 0, 1, 2, 2, 3, 4]
TOP, MIDDLE, LEAF = 0, 2, 6
DEADLINE = 150.0  # s for one case


async def connecting(play: Play, case: Case) -> None:
    """The moment when the machine has just come up: its children are about to be connected."""
    waiting = set(case.machines)

    def came(machine: int) -> None:
        if machine in waiting:
            waiting.discard(machine)
            play.strike(NAMED[case.fault], machine, case.lasts)

    play.session.on_up = came
    await play.connect()
    play.session.on_up = lambda machine: None
    await play.calm()
    play.command()
    await play.finish()


async def idle(play: Play, case: Case) -> None:
    await play.connect()
    case.strike(play)
    await play.calm()
    play.command()
    await play.finish()


async def working(play: Play, case: Case) -> None:
    """Reports, logs and barriers, a command before and one behind the fault."""
    await play.connect()
    await play.work(quorum=play.count - case.costs)
    play.command()
    case.strike(play)
    play.command()
    await play.calm()
    await play.finish()


async def flood(play: Play, case: Case) -> None:
    """Every machine logs as fast as it is let."""
    await play.connect()
    await play.work(quorum=0, pause=0.0)
    await asyncio.sleep(0.5)
    case.strike(play)
    play.command()
    await play.calm()
    await play.finish()


async def shipping(play: Play, case: Case) -> None:
    """A file is on its way to all: who is not below the fault does not wait for it, and whoever is not lost has it."""
    await play.connect()
    await play.ship()
    below = 0
    for machine in case.machines:
        below |= play.session.topology.subtree(machine)
    case.strike(play)
    await play.shipped((1 << play.count) - 1 & ~below)
    if NAMED[case.fault].lasting and not set(case.machines) <= play.busy:
        play.wrong("others were held up until the fault had passed")
    await play.calm()
    await play.shipped(play.session.up)
    await play.finish()


async def barrier(play: Play, case: Case) -> None:
    """All but one come to it when the fault strikes; then the last comes.

    If one is lost, the barrier says so to all who wait in it; unless its arrival was known before.
    """
    session = play.session
    await play.connect()
    last = machineset.single(play.count - 1)
    spec = {"shell": f"fanout report here; exec fanout barrier b --timeout {CALM:g}"}
    came = session.call(frames.RUN, session.up & ~last, spec)
    while len(play.reports) < play.count - 1:  # noqa: ASYNC110  reports have no event
        await asyncio.sleep(0.02)
    case.strike(play)
    if case.late:
        await play.calm()
    late = session.call(frames.RUN, last, spec)
    await play.calm()
    for call in (came, late):
        if not await call.wait(tree.DONE, timeout=CALM):
            play.wrong("a barrier that does not end")
        for machines, (outcome, *_, err, _) in call.groups(tree.DONE):
            named = all(f"{play.lab.hosts[m].name}, lost: ".encode() in err for m in play.fated)
            if outcome != "ok" and not (play.fated and b"lost before arriving" in err and named):
                play.wrong(f"barrier on {machineset.members(machines)}: {outcome} {err!r}")
    await play.finish()


async def ending(play: Play, case: Case) -> None:
    """The moment when the run is told to end."""
    session = play.session
    await play.connect()
    await play.work(quorum=0)
    work = session.call(frames.SPAWN, session.up, {"shell": "trap '' TERM; sleep 500 & wait", "name": "stubborn"})
    await work.wait(tree.STARTED, timeout=CALM, extra=FIRST)
    asyncio.get_running_loop().call_later(0.2, case.strike, play)
    await play.end()


@dataclass(frozen=True)
class Case:
    fault: str
    moment: Callable[[Play, Case], Awaitable[None]]
    machines: tuple[int, ...] = (MIDDLE,)
    lasts: float = 8.0
    """Seconds, for a fault that passes: longer than the silence that is noticed."""
    late: bool = False
    """Only when all have been found again does it go on."""

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.moment.__name__}-{'+'.join(map(str, self.machines))}" + ("-late" * self.late)

    @property
    def costs(self) -> int:
        return len(self.machines) if NAMED[self.fault].fatal else 0

    def strike(self, play: Play) -> None:
        for machine in self.machines:
            play.strike(NAMED[self.fault], machine, self.lasts)


RELAY = ("kill_agent", "stop_agent", "power_cut", "link_down", "kill_sshd_sessions", "kill_ssh")
CASES = [
    *(Case(fault, moment) for moment in (connecting, idle, working, flood, barrier) for fault in RELAY),
    *(Case(fault, ending, lasts=4.0) for fault in RELAY),
    *(Case(fault, shipping) for fault in RELAY),
    *(Case("stop_agent", shipping, (machine,), lasts=20.0) for machine in (TOP, LEAF)),
    *(Case(fault, working, (TOP,)) for fault in RELAY),
    *(Case(fault, working, (LEAF,)) for fault in ("kill_agent", "power_cut", "link_down", "kill_sshd_sessions")),
    *(Case(fault, working, (TOP, MIDDLE, 4)) for fault in ("kill_agent", "power_cut", "kill_sshd_sessions")),
    *(Case(fault, barrier, late=True) for fault in ("kill_agent", "stop_agent")),
    Case("link_down", working, lasts=20.0),
    Case("link_down", flood, (TOP,), lasts=20.0),
]


FEW = ("kill_agent-working-0", "link_down-working-2", "kill_ssh-flood-2", "power_cut-connecting-2",
       "kill_agent-ending-2", "kill_sshd_sessions-working-0+2+4", "kill_agent-shipping-2", "stop_agent-shipping-6")
"""A small budget: each kind but one that is like another, each moment but the ones that `test_losses` has too."""


async def check(case: Case, figures: Figures, say: Callable[[str], None]) -> None:
    with Lab.up(len(PARENTS), isolated_hosts=True) as lab:
        play = Play(lab, PARENTS, figures, say)
        try:
            async with asyncio.timeout(DEADLINE):
                await case.moment(play, case)
        except TimeoutError:
            play.wrong(f"{case.name} did not end within {DEADLINE:g} s")
        finally:
            await play.session.abort()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="CASE", help=", ".join(case.name for case in CASES))
    names = parser.parse_args().names
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the lab goes then too
    say = lambda text: print(text, flush=True)  # noqa: E731
    figures = Figures()
    for case in CASES:
        if not names or case.name in names:
            say(case.name)
            asyncio.run(check(case, figures, say))
    say(figures.text())
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
