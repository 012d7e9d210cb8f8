"""`fanout fetch`: files of many machines, into a folder for each.  Options in, progress, and an exit code out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.selection import Machines, on_machines, selection
from fanout.cli.transfer import FAILED, Transfer
from fanout.cli.types import size, utf8
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.root.fetching import Fetch, Intake
    from fanout.root.session import Session


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
    utf8(pattern, "PATTERN")
    there = pattern if pattern.startswith(("/", "~")) else f"~/{pattern}"

    async def work(machines: Machines) -> int:
        return await Fetching(machines, there, into, cap, total, as_json, quiet, options).run()

    ctx.exit(on_machines(options, work))


class Fetching(Transfer):
    def __init__(self, machines: Machines, pattern: str, dest: Path, cap: int, total: int, as_json: bool, quiet: bool,
                 options: dict[str, Any]) -> None:
        super().__init__(machines, as_json, quiet, options)
        self._pattern = pattern
        self._dest = dest
        self._caps = cap, total
        self._fetch: Fetch | None = None

    async def _move(self, session: Session) -> None:
        from fanout.agent.core import machineset
        from fanout.root.fetching import Fetch
        from fanout.scenario.safe_names import SafeNames

        names = SafeNames()
        fetch = self._fetch = Fetch(
            session, lambda machine: self._dest / names.get(self._hosts[machine].name), *self._caps)
        targets = session.up | session.detached
        call = fetch.begin(targets, self._pattern)
        try:
            await fetch.wait(self._seconds)
        finally:
            fetch.close()
        for machine, intake in fetch.intakes.items():
            if intake.failed:
                self._end(machineset.single(machine), "failed", intake.failed)
            elif intake.over:
                self._end(machineset.single(machine), "incomplete" if intake.left else "ok")
        for machines, reason in call.refused:
            self._end(machines, "failed", reason)
        self._lost(session, call.lost & targets)
        self._end(targets, "timed out", f"it was not complete within {self._seconds:g} s (--command-timeout)")

    @property
    def _intakes(self) -> dict[int, Intake]:
        return {} if self._fetch is None else self._fetch.intakes

    def _files(self) -> int:
        return sum(len(intake.files) for intake in self._intakes.values())

    def _bytes(self) -> int:
        return sum(intake.bytes for intake in self._intakes.values())

    def _code(self) -> int:
        return super()._code() or (0 if self._files() else FAILED)

    # What is shown.

    def _progress(self, session: Session) -> None:
        from fanout.agent.core import machineset

        if self._fetch is not None:
            left = machineset.members(self._fetch.open_yet())
            self._draw_progress(len(self._hosts), left, f"{self._files()} files, {self._rate(self._bytes())}")

    def _details(self, machine: int) -> dict[str, Any]:
        intake = self._intakes.get(machine)
        if intake is None:
            return {}
        return {
            "files": [os.fsencode(path).decode("utf-8", "backslashreplace") for path in intake.files],
            "bytes": intake.bytes,
            "left_out": [{"reason": reason, "files": left.files, "bytes": left.bytes, "names": left.names}
                         for reason, left in intake.left.items()],
        }

    def _problems(self) -> Iterator[tuple[int, str]]:
        from fanout.root.fetching import told

        yield from super()._problems()
        for machine, (outcome, _) in sorted(self._ends.items()):
            if outcome == "ok" and not self._intakes[machine].files:
                yield machine, f"nothing there matches {self._pattern}"
        for machine, intake in sorted(self._intakes.items()):
            for text in told(intake):
                yield machine, text

    def _moved(self) -> str:
        from fanout.report.text import plural

        machines = sum(bool(intake.files) for intake in self._intakes.values())
        return f"{plural(self._files(), 'file')}, {self._bytes() / 1e6:.1f} MB, from {machines}"
