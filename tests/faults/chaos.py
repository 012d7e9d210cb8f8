"""A campaign of random faults on a lab: `python -m tests.faults.chaos --seed 1 --runs 5 --hosts 40`.

Each run (`play.py`) has a tree of three levels, and faults strike random machines at random moments.  A seed repeats
the faults of a run: kinds, machines and moments.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable
from random import Random

from fanout.fleets.lab import Lab
from tests.faults.figures import Figures
from tests.faults.play import Play
from tests.faults.strikes import pick

LASTS = (2.0, 9.0)  # s
FATAL = 0.2  # share of the machines that a run may lose


def three_levels(hosts: int) -> list[int | None]:
    """About a tenth of the hosts at the top, twice as many below them, the rest are leaves."""
    tops = max(1, hosts // 10)
    relays = tops + 2 * tops
    return [None if i < tops else i % tops if i < relays else tops + i % (relays - tops) for i in range(hosts)]


async def strike_at_random(play: Play, rng: Random, faults: int, over: float) -> None:
    """So many faults, spread over so many seconds."""
    await play.connect()
    await play.work(quorum=play.count - int(play.count * FATAL))
    began = play.session.now()
    for number, moment in enumerate(sorted(rng.random() * over for _ in range(faults))):
        await asyncio.sleep(max(0.0, began + moment - play.session.now()))
        fatal = rng.random() < 0.25 and len(play.fated) < int(play.count * FATAL)
        kind = pick(rng, fatal)
        relays = range(play.count * 3 // 10)
        machine = rng.choice(relays if rng.random() < 0.6 or kind.name == "kill_ssh" else range(play.count))
        lasts = rng.uniform(*LASTS)
        if machine in play.fated or machine in play.busy:
            play.say(f"  ({kind.name} would strike {machine}, which is struck already)")
        else:
            play.strike(kind, machine, lasts)
        if number % 3 == 0:
            play.command()
    await play.calm()
    await play.finish()


async def campaign(hosts: int, seed: int, runs: int, faults: int, over: float, say: Callable[[str], None],
                   minutes: float = 60.0) -> Figures:
    figures = Figures()
    until = time.monotonic() + minutes * 60
    for number in range(runs):
        if time.monotonic() > until:
            break
        say(f"run {number + 1} of {runs}, seed {seed + number}, {hosts} hosts, {faults} faults in {over:g} s")
        before = len(figures.wrong)
        with Lab.up(hosts, isolated_hosts=True) as lab:
            play = Play(lab, three_levels(hosts), figures, say)
            try:
                await strike_at_random(play, Random(seed + number), faults, over)
            finally:
                await play.session.abort()
        if len(figures.wrong) > before:
            say(f"repeat it with: --seed {seed + number} --runs 1")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="no run is begun after that")
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--faults", type=int, default=25, help="in each run")
    parser.add_argument("--over", type=float, default=30.0, help="seconds over which they are spread")
    options = parser.parse_args()
    say = lambda text: print(text, flush=True)  # noqa: E731
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the lab goes then too
    figures = asyncio.run(campaign(options.hosts, options.seed, options.runs, options.faults, options.over, say,
                                   options.minutes))
    say(figures.text())
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
