"""`fanout fetch`: files of many machines, into a folder for each.  Options in, progress, and an exit code out."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.machines import Machines, on_machines, selection, settings
from fanout.cli.main import INTERRUPTED
from fanout.cli.types import size
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.root.fetching import Fetch
    from fanout.root.session import Session

FAILED, TIMED_OUT, UNREACHED = 1, 124, 255
CODES = {"ok": 0, "incomplete": FAILED, "failed": FAILED, "timed out": TIMED_OUT}
FOREVER = 30 * 86400.0  # s for a fetch without --command-timeout
FRAME = 0.2  # s between two looks of the progress
STRAGGLERS = 5  # as many, or fewer, are named


@click.command("fetch", short_help="Bring files of many machines here.")
@selection("as many as are fastest", "Until it is given up on a machine")
@click.option("--cap", metavar="SIZE", callback=size, default="1GB", show_default=True, help="Most of one machine.")
@click.option("--total", metavar="SIZE", callback=size, default="16GB", show_default=True, help="Most of all.")
@click.option("--json", "as_json", is_flag=True, help="At the end, one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.argument("pattern")
@click.argument("dest", default=".", type=click.Path(path_type=Path), metavar="[DEST]")
@click.pass_context
def command(
    ctx: click.Context, /, pattern: str, dest: Path, cap: int, total: int, as_json: bool, quiet: bool, **options: Any,
) -> None:
    """Bring what PATTERN names from many machines, through a tree of them, into DEST/MACHINE/.

    \b
    fanout fetch -w 'node[1-500]' '/var/log/app/*.log' logs/
    fanout fetch -w @hosts.txt -g db '/etc/postgresql/**/*.conf'
    fanout fetch -w 'web[1-9]' --cap 100MB results

    PATTERN is a path there, from the home folder unless it begins with /; quote *, ?, [...] and ** for the machines.
    A folder comes with all below it.  Files keep the names they have below the last folder of PATTERN without a
    wildcard, and their hash is checked.  What is left out is said: what is beyond a cap, cannot be read, is no file,
    or has a name that leads elsewhere.  Machines need Python 3.8 or newer.

    \b
    Exit code: the highest of
      0    all there is has come
      1    something was left out, or nothing matches on any machine (the summary tells)
      124  it took longer than --command-timeout
      255  a machine could not be reached, or was lost
    and 130 after Ctrl-C; files that are complete by then stay.
    """
    if not pattern.strip("/.~"):
        raise UsageError(f"PATTERN {pattern!r}: name files, such as 'results/*.json'")
    if dest.exists() and not dest.is_dir():
        raise UsageError(f"{dest} is no folder: files of many machines go into one, as DEST/MACHINE/")
    into = dest.absolute()
    there = pattern if pattern.startswith(("/", "~")) else f"~/{pattern}"

    async def work(machines: Machines) -> int:
        return await Fetching(machines, there, into, cap, total, as_json, quiet, options).run()

    ctx.exit(on_machines(options, work))


class Fetching:
    def __init__(self, machines: Machines, pattern: str, dest: Path, cap: int, total: int, as_json: bool, quiet: bool,
                 options: dict[str, Any]) -> None:
        self._hosts = machines.hosts
        self._relay_key = machines.relay_key
        self._pattern = pattern
        self._dest = dest
        self._caps = cap, total
        self._json = as_json
        self._quiet = quiet
        self._options = options
        self._ends: dict[int, tuple[str, str]] = {}
        """Machine -> (outcome, reason); complete in the end."""
        self._fetch: Fetch | None = None
        self._began = time.monotonic()
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._draws = terminal and not quiet

    async def run(self) -> int:
        """Do it; the exit code."""
        import asyncio
        import contextlib
        import signal

        work = asyncio.ensure_future(self._work())
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            work.cancel()
            loop.remove_signal_handler(signal.SIGINT)  # a second one ends us at once

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        interrupted = True
        with contextlib.suppress(asyncio.CancelledError):
            await work
            interrupted = False
        for machine in range(len(self._hosts)):
            self._ends.setdefault(machine, ("interrupted", "it was interrupted"))
        self._draw("")
        if self._json:
            click.echo(json.dumps(self._document(), indent=1))
        if not self._quiet:
            self._summary()
        if interrupted:
            return INTERRUPTED
        code = max(CODES.get(outcome, UNREACHED) for outcome, _ in self._ends.values())
        return code or (0 if self._files() else FAILED)

    async def _work(self) -> None:
        import asyncio

        from fanout.root.machine import Machine
        from fanout.root.planner import plan
        from fanout.root.session import Session

        hosts, options = self._hosts, self._options
        parents = plan(len(hosts), relays=options["relays"], depth=None, width=options["width"],
                       preferred=[i for i, host in enumerate(hosts) if host.relay]).parents
        session = Session(
            [Machine(i, host, host.role or "") for i, host in enumerate(hosts)], parents, settings(options),
            relay_key=self._relay_key)
        try:
            await session.connect(lambda done, total: self._draw(f"{done}/{total} machines connected"))
            fetching = asyncio.ensure_future(self._bring(session))
            try:
                while not (await asyncio.wait([fetching], timeout=FRAME))[0]:
                    self._progress()
            finally:
                fetching.cancel()
            await fetching
        finally:
            await session.end(grace=0.0)

    async def _bring(self, session: Session) -> None:
        from fanout.agent.core import machineset
        from fanout.root.fetching import Fetch
        from fanout.root.outcomes import Outcome
        from fanout.root.safe_names import SafeNames

        for machine, (outcome, reason) in session.down.items():
            self._ends[machine] = (str(outcome), reason)
        names = SafeNames()
        seconds = self._options["command_timeout"] or FOREVER
        fetch = self._fetch = Fetch(
            session, lambda machine: self._dest / names.get(self._hosts[machine].name), *self._caps)
        targets = session.up | session.detached
        call = fetch.begin(targets, self._pattern)
        try:
            await fetch.wait(seconds)
        finally:
            fetch.close()
        for machine, intake in fetch.intakes.items():
            if intake.failed:
                self._ends.setdefault(machine, ("failed", intake.failed))
            elif intake.over and intake.left:
                self._ends.setdefault(machine, ("incomplete", ""))
            elif intake.over:
                self._ends.setdefault(machine, ("ok", ""))
        for machines, reason in call.refused:
            self._end(machines, "failed", reason)
        for machine in machineset.members(call.lost & targets):
            why, reason = session.down.get(machine, (Outcome.LOST, "it was lost"))
            self._end(machineset.single(machine), str(why), reason)
        self._end(targets, "timed out", f"it was not complete within {seconds:g} s (--command-timeout)")

    def _end(self, machines: int, outcome: str, reason: str) -> None:
        from fanout.agent.core import machineset

        for machine in machineset.members(machines):
            self._ends.setdefault(machine, (outcome, reason))

    def _files(self) -> int:
        return 0 if self._fetch is None else sum(len(intake.files) for intake in self._fetch.intakes.values())

    # What is shown.

    def _progress(self) -> None:
        from fanout.agent.core import machineset
        from fanout.names import fold

        if self._fetch is None:
            return
        came = sum(intake.bytes for intake in self._fetch.intakes.values())
        left = machineset.members(self._fetch.open_yet())
        done = len(self._hosts) - len(left)
        rate = came / max(0.001, time.monotonic() - self._began)
        text = f"{done}/{len(self._hosts)} machines, {self._files()} files, {rate / 1e6:.1f} MB/s"
        if done and 0 < len(left) <= STRAGGLERS:
            text += f", waiting for {fold([self._hosts[machine].name for machine in left])}"
        self._draw(text)

    def _draw(self, text: str) -> None:
        if self._draws:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True, color=True)

    def _document(self) -> dict[str, Any]:
        intakes = {} if self._fetch is None else self._fetch.intakes
        machines = []
        for i, host in enumerate(self._hosts):
            record: dict[str, Any] = {"name": host.name, "outcome": self._ends[i][0], "reason": self._ends[i][1]}
            if i in intakes:
                record |= {
                    "files": [os.fsencode(path).decode("utf-8", "backslashreplace") for path in intakes[i].files],
                    "bytes": intakes[i].bytes,
                    "left_out": [{"reason": reason, "files": left.files, "bytes": left.bytes, "names": left.names}
                                 for reason, left in intakes[i].left.items()],
                }
            machines.append(record)
        return {"seconds": round(time.monotonic() - self._began, 3), "machines": machines}

    def _summary(self) -> None:
        from fanout.names import fold
        from fanout.report.text import clean, plural
        from fanout.root.fetching import told

        intakes = {} if self._fetch is None else self._fetch.intakes
        alike: dict[str, list[str]] = {}
        for machine, (outcome, reason) in sorted(self._ends.items()):
            if reason:
                alike.setdefault(f"{outcome}: {reason}", []).append(self._hosts[machine].name)
        for machine, intake in sorted(intakes.items()):
            for text in told(intake):
                alike.setdefault(text, []).append(self._hosts[machine].name)
        for why, names in sorted(alike.items(), key=lambda item: -len(item[1])):
            many = f" ({len(names)})" if len(names) > 1 else ""
            click.echo(clean(f"fanout: {fold(names)}{many}: {why}"), err=True)
        came, seconds = sum(intake.bytes for intake in intakes.values()), time.monotonic() - self._began
        machines = sum(bool(intake.files) for intake in intakes.values())
        click.echo(f"fanout: {plural(self._files(), 'file')}, {came / 1e6:.1f} MB, from {machines} of"
                   f" {plural(len(self._hosts), 'machine')} in {seconds:.1f} s", err=True)
