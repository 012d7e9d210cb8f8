"""Files between here and many machines: what `copy` and `fetch` share.

Every machine has one outcome in the end, which the summary, the document and the exit code tell.  Ctrl-C ends what is
under way before they do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.main import INTERRUPTED
from fanout.cli.selection import Machines, tree

if TYPE_CHECKING:
    from fanout.root.session import Session

FAILED, TIMED_OUT, UNREACHED = 1, 124, 255
CODES = {"ok": 0, "incomplete": FAILED, "failed": FAILED, "timed out": TIMED_OUT}
FOREVER = 30 * 86400.0  # s for a transfer without --command-timeout
FRAME = 0.2  # s between two looks of the progress
STRAGGLERS = 5  # as many, or fewer, are named


class Transfer(ABC):
    def __init__(self, machines: Machines, as_json: bool, quiet: bool, options: dict[str, Any]) -> None:
        self._machines = machines
        self._hosts = machines.hosts
        self._json = as_json
        self._quiet = quiet
        self._options = options
        self._seconds = options["command_timeout"] or FOREVER
        self._ends: dict[int, tuple[str, str]] = {}
        """Machine -> (outcome, reason); complete in the end."""
        self._began = time.monotonic()
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._draws = terminal and not quiet

    async def run(self) -> int:
        """Do it; the exit code."""
        from fanout.cli.interrupts import completed

        whole = await completed(self._work())
        self._end(self._complete(), "ok")
        for machine in range(len(self._hosts)):
            self._ends.setdefault(machine, ("interrupted", "it was interrupted"))
        self._draw("")
        if self._json:
            click.echo(json.dumps(self._document(), indent=1))
        if not self._quiet:
            self._summary()
        return self._code() if whole else INTERRUPTED

    async def _work(self) -> None:
        import asyncio

        from fanout.report.text import clean

        session = tree(self._machines, self._options, self._weight())
        try:
            await session.connect(lambda done, total: self._draw(f"{done}/{total} machines connected"))
            for machine, (outcome, reason) in session.down.items():
                self._ends[machine] = (str(outcome), reason)
            for note in session.unaided_notes() if not self._quiet else ():
                self._draw("")
                click.echo(f"fanout: {clean(note)}", err=True)
            moving = asyncio.ensure_future(self._move(session))
            try:
                while not (await asyncio.wait([moving], timeout=FRAME))[0]:
                    self._progress(session)
            finally:
                moving.cancel()
            await moving
        finally:
            await session.end(grace=0.0)

    def _weight(self) -> int:
        """Bytes that go to each machine."""
        return 0

    @abstractmethod
    async def _move(self, session: Session) -> None:
        """The transfer itself, on a tree that is up; `_end` and `_lost` take down how it ended for machines."""

    def _complete(self) -> int:
        """The machines on which all was done, when the rest is interrupted."""
        return 0

    def _end(self, machines: int, outcome: str, reason: str = "") -> None:
        """So it ended for these, where nothing else was said of one before."""
        from fanout.agent.core import machineset

        for machine in machineset.members(machines):
            self._ends.setdefault(machine, (outcome, reason))

    def _lost(self, session: Session, machines: int) -> None:
        from fanout.agent.core import machineset

        for machine in machineset.members(machines):
            outcome, reason = session.down.get(machine, ("lost", "it was lost"))
            self._end(machineset.single(machine), str(outcome), reason)

    def _code(self) -> int:
        return max(CODES.get(outcome, UNREACHED) for outcome, _ in self._ends.values())

    # What is shown.

    @abstractmethod
    def _progress(self, session: Session) -> None:
        """`_draw_progress`, from what is known by now."""

    def _draw_progress(self, total: int, left: list[int], what: str) -> None:
        """`left`: the machines, of `total`, that are waited for."""
        from fanout.names import fold

        done = total - len(left)
        text = f"{done}/{total} machines, {what}"
        if done and 0 < len(left) <= STRAGGLERS:
            text += f", waiting for {fold([self._hosts[machine].name for machine in left])}"
        self._draw(text)

    def _rate(self, size: int) -> str:
        return f"{size / max(0.001, time.monotonic() - self._began) / 1e6:.1f} MB/s"

    def _draw(self, text: str) -> None:
        if self._draws:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True, color=True)

    def _document(self) -> dict[str, Any]:
        machines = [{"name": host.name, "outcome": self._ends[i][0], "reason": self._ends[i][1], **self._details(i)}
                    for i, host in enumerate(self._hosts)]
        return {"seconds": round(time.monotonic() - self._began, 3), **self._totals(), "machines": machines}

    def _totals(self) -> dict[str, Any]:
        """What else the document says of the whole."""
        return {}

    def _details(self, machine: int) -> dict[str, Any]:
        """... and of a machine."""
        return {}

    def _summary(self) -> None:
        from fanout.report.gathered import alike
        from fanout.report.text import clean, plural

        for line in alike((self._hosts[machine].name, why) for machine, why in self._problems()):
            click.echo(clean(f"fanout: {line}"), err=True)
        seconds = time.monotonic() - self._began
        click.echo(f"fanout: {self._moved()} of {plural(len(self._hosts), 'machine')} in {seconds:.1f} s", err=True)

    def _problems(self) -> Iterator[tuple[int, str]]:
        """(machine, what is to be said of it)"""
        for machine, (outcome, reason) in sorted(self._ends.items()):
            if reason:
                yield machine, f"{outcome}: {reason}"

    @abstractmethod
    def _moved(self) -> str:
        """The begin of the last line, such as "3.1 MB on 39"."""
