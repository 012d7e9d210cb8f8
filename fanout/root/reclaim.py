"""What a run has left is ended: by its own tree, taken over from a root that is gone.

Each machine is reached as the run reached it.  An agent that still runs there is handed the connection and is told
to end; where there is none, a new one kills what carries the run's mark, and removes the folder.  So it does not
matter how far the run had come, or how much of it has ended by itself.  What a fleet has made it takes back.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fanout.errors import FanoutError, FleetError
from fanout.fleets import kind_of
from fanout.fleets.base import Say
from fanout.root.holdings import Holdings
from fanout.root.outcomes import Failure, Outcome
from fanout.root.session import Session
from fanout.root.settings import Settings

COMMANDS = 1 << 30  # a run's own never come so far
COMMANDS_EACH = 1000  # ... nor do those of one attempt within a second, so that a second attempt is heard too
ATTEMPTS = 3_000_000  # what is left of 32 bits; in seconds
GRACE = 2.0  # s between TERM and KILL
END = 15.0  # s for machines to end tidily


@dataclass
class Reclaimed:
    """What became of all that a run held."""

    holdings: Holdings
    """What it holds still."""
    clean: list[str] = field(default_factory=list)
    """Names of machines that were cleaned."""
    failures: list[Failure] = field(default_factory=list)
    """Those that could not be."""
    released: str = ""
    """What the fleet has taken back, in words."""
    problem: str = ""
    """Why it could not."""


async def reclaim(held: Holdings, seconds: float, say: Say) -> Reclaimed:
    """Clean the machines of a run whose root is gone, and take back those that were made for it.

    Machines have `seconds` to be reached.  It may be repeated, also when it was interrupted.  UsageError, FleetError:
    nothing can be done from here.
    """
    kind = kind_of(held.fleet, f"run {held.run} was on fleet {held.fleet}")
    if kind.here and held.computer != platform.node():
        raise FleetError(f"run {held.run} was on machines of {held.computer}: call this there")
    done = Reclaimed(held)
    if held.left and (held.made is None or not kind.erases):
        swept = await sweep(held, seconds)
        done.clean, done.failures = swept.clean, swept.failures
        done.holdings = dataclasses.replace(held, left=swept.left)
    if held.made is not None:
        try:
            done.released = await kind.reclaim(held.run, held.made, say)
            done.holdings = dataclasses.replace(held, left=(), made=None)
        except (FanoutError, OSError) as error:
            done.problem = str(error)
    return done


@dataclass
class Swept:
    """What became of the machines, by name; each that was asked for is in one of the two."""

    clean: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left: Sequence[int] = ()
    """Ids of those that could not be cleaned."""


async def sweep(held: Holdings, seconds: float) -> Swept:
    """End the run on all machines of `held.left`, which have `seconds` to be reached.  Never raises for a machine."""
    if not held.left:
        return Swept()
    swept = await _once(held, seconds)
    behind = [machine for machine in swept.left if held.parents[machine] in held.left]
    if behind:  # their relays may have no way to them by now, where the root has one
        flat = dataclasses.replace(held, left=swept.left, parents=[None] * len(held.parents))
        again = await _once(flat, seconds)
        again.clean = swept.clean + again.clean
        return again
    return swept


async def _once(held: Holdings, seconds: float) -> Swept:
    settings = Settings(
        held.run, connect_timeout=seconds, lease=held.lease, recover=seconds,
        heir=COMMANDS + int(time.time()) % ATTEMPTS * COMMANDS_EACH, **held.ssh)
    parents = [
        parent if parent in held.left and machine in held.left else None for machine, parent in enumerate(held.parents)]
    session = Session(held.machines, parents, settings)
    session.down = {machine.id: (Outcome.OK, "") for machine in held.machines if machine.id not in held.left}
    try:
        await session.connect()
    finally:
        await session.end(grace=GRACE, timeout=END)
    why: dict[int, tuple[Outcome, str]] = {}
    for machine in sorted(held.left):
        said = [reason for bits, reason in session.problems if bits >> machine & 1]
        if said:
            why[machine] = (Outcome.FAILED, "; ".join(said))
        elif not session.ended >> machine & 1:
            why[machine] = session.down.get(machine, (Outcome.LOST, "its connection was lost before it had ended"))
    names = [machine.name for machine in held.machines]
    return Swept(
        [names[machine] for machine in sorted(held.left) if machine not in why],
        [Failure(names[machine], *fate) for machine, fate in why.items()],
        list(why))
