"""`fanout logs`: what processes of a run printed and machines reported, from its folder; or as it comes."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fanout.cli.types import duration, run_ids, size
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.report.logs import Line, Reports

NOTHING = 1
RECEIVE = 256 << 10
LOOK = 0.2  # s between looks for reports while nothing is printed


@click.command("logs", short_help="The logs of a run, while it goes on and afterwards.")
@click.argument("run", shell_complete=run_ids, metavar="RUN")
@click.argument("which", metavar="[MACHINES[:PROCESS]]", required=False, default="")
@click.option("--reports", "only_reports", is_flag=True, help="Only reports, without what processes print.")
@click.option("-f", "--follow", is_flag=True, help="Begin near the end, and go on as processes print, until the end.")
@click.option("--grep", "pattern", metavar="REGEX", help="Only lines that match.")
@click.option("--since", metavar="DURATION", callback=duration,
              help="Only what was printed in the last 5m, for example: before now, or before the end of the run.")
@click.option("--tail", metavar="SIZE", callback=size, default="2KB", show_default=True,
              help="With -f: how much of each log to begin with; 1GB searches all that machines have, with --grep.")
@click.option("-b", "--fold", is_flag=True, help="Machines that printed the same, once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("-N", "--no-prefix", is_flag=True, help="Lines without machine and process.")
@click.pass_context
def command(
    ctx: click.Context, /, run: str, which: str, follow: bool, pattern: str | None, since: float | None, tail: int,
    fold: bool, as_json: bool, no_prefix: bool, only_reports: bool,
) -> None:
    """Show what the processes of RUN printed, and what was reported, of all machines in the order of time.

    \b
    fanout logs last
    fanout logs last 'peer-[0-9]:node' --grep 'ERROR|head is'
    fanout logs 20260101-120000-ab12 :node --since 5m
    fanout logs last peer-3 -f
    fanout logs last --reports --since 1m

    RUN is its id as `fanout ls` has it, the first letters of it, `last`, or the path of its folder.

    Lines are `MACHINE:PROCESS: what it printed` and `[MACHINE] what it reported`; `root` is the scenario itself.  A
    process that is named comes without reports.

    Afterwards there is what came to the run's folder: what `logs=`
    forwards and `collect=` brings.  With -f, while the run goes on, it is the whole output of any process, from the
    file on its machine, whatever is forwarded of it.

    \b
    Exit code: 0, or 1 when there was nothing to show.
    """
    if follow and (fold or since is not None):
        raise UsageError("-f shows what comes: it goes with neither --fold nor --since")
    from fanout.report import runs

    folder = runs.find(run).path
    machines, process = selection(which)
    if only_reports and process is not None:
        raise UsageError(f"--reports goes with machines, not with a process: {which!r}")
    found = Wanted(folder, machines, process, only_reports)
    try:
        regex = re.compile(pattern.encode()) if pattern else None
    except re.error as error:
        raise UsageError(f"--grep {pattern!r}: {error}") from None
    show = shower(as_json, prefix=not no_prefix)
    try:
        if follow and (lines := followed(found, tail)) is not None:
            shown = stream((line for line in lines if regex is None or regex.search(line.text)), show)
        else:
            shown = afterwards(found, regex, since, fold, show)
    except BrokenPipeError:  # `| head`: Python's own last flush must not fail
        sys.stdout = None
        ctx.exit(0)
    ctx.exit(0 if shown else NOTHING)


def selection(which: str) -> tuple[set[str] | None, str | None]:
    """(machines, process); None for all."""
    from fanout import names

    machines, _, process = which.partition(":")
    return (set(names.expand(machines)) if machines else None), process or None


class Wanted(NamedTuple):
    folder: Path
    """Of the run."""
    machines: set[str] | None
    process: str | None
    only_reports: bool

    def machine(self, name: str) -> bool:
        return self.machines is None or name in self.machines

    def log(self, machine: str, process: str) -> bool:
        return not self.only_reports and self.machine(machine) and self.process in (None, process)

    def reports(self, tail: int | None = None) -> Reports | None:
        from fanout.report.logs import Reports

        return Reports(self.folder, self.machine, tail) if self.process is None else None


def afterwards(
    wanted: Wanted, regex: re.Pattern[bytes] | None, since: float | None, fold: bool, show: Callable[[Line], None],
) -> bool:
    from fanout.report.logs import find, merged

    folder, reports = wanted.folder, wanted.reports()
    logs = find(folder, wanted.log)
    if not logs and (reports is None or next(reports.read(), None) is None):
        there = sorted({f"{log.machine}:{log.process}" for log in find(folder)})
        what = f"; there are {', '.join(there[:10])}{' ...' if len(there) > 10 else ''}" if there else \
            "; processes bring theirs by logs= and collect= of `spawn`"
        raise UsageError(f"there is no such log in {folder}{what}")
    began = 0.0
    if since is not None:
        ended = folder / "result.json"
        began = (ended.stat().st_mtime if ended.exists() else time.time()) - since
    lines = merged(logs, regex, began, wanted.reports())
    return folded_lines(lines, len(logs)) if fold else stream(lines, show)


def followed(wanted: Wanted, tail: int) -> Iterator[Line] | None:
    """Lines as they come, until the run ends; None when it does not go on any more."""
    from fanout.report.folder import LIVE
    from fanout.scenario.sockets import connect

    try:
        socket = connect(wanted.folder / LIVE)
    except OSError:
        return None
    machines = None if wanted.machines is None else sorted(wanted.machines)
    asked = {"machines": [] if wanted.only_reports else machines, "process": wanted.process, "tail": tail}
    socket.sendall(json.dumps(asked).encode() + b"\n")
    return _received(socket, wanted.reports(tail))


def _received(socket: Any, reports: Reports | None) -> Iterator[Line]:
    """Reports are in the run's folder as soon as the root has them; the socket tells how long that goes on."""
    import msgpack

    from fanout.agent.core.lines import Lines
    from fanout.report.logs import Line

    unpacker = msgpack.Unpacker(max_buffer_size=64 << 20)
    cut: dict[tuple[str, str], Lines] = {}
    socket.settimeout(None if reports is None else LOOK)
    with socket:
        data: bytes | None = None
        while data != b"":
            if reports is not None:
                yield from reports.read()
            try:
                data = socket.recv(RECEIVE)
            except TimeoutError:
                continue
            unpacker.feed(data)
            for machine, process, what in unpacker:
                if isinstance(what, str):
                    click.echo(f"fanout: {machine}:{process}: {what}", err=True)
                    continue
                for text in cut.setdefault((machine, process), Lines()).feed(what):
                    yield Line(time.time(), machine, process, text.rstrip(b"\n"))
    if reports is not None:
        yield from reports.read()
    for (machine, process), lines in cut.items():
        for text in lines.finish():
            yield Line(time.time(), machine, process, text)


# Showing.


def stream(lines: Iterator[Line], show: Callable[[Line], None]) -> bool:
    shown = False
    for line in lines:
        show(line)
        shown = True
    return shown


def shower(as_json: bool, *, prefix: bool) -> Callable[[Line], None]:
    from fanout.report.gathered import shown

    out = sys.stdout.buffer
    terminal = sys.stdout.isatty()

    def show(line: Line) -> None:
        if as_json:
            text = line.text.decode("utf-8", "backslashreplace")
            record = {"time": round(line.time, 3), "machine": line.machine, "process": line.process, "text": text}
            if line.fields is not None:
                record["fields"] = line.fields
            data = json.dumps(record).encode()
        else:
            name = f"[{line.machine}] " if line.process is None else f"{line.machine}:{line.process}: "
            head = name.encode() if prefix else b""
            data = b"\n".join(head + (shown(text) if terminal else text) for text in line.text.split(b"\n"))
        out.write(data + b"\n")
        out.flush()

    return show


def folded_lines(lines: Iterator[Line], logs: int) -> bool:
    from fanout.report.gathered import Kept, folded, grouped, room

    kept: dict[str, Kept] = {}
    for line in lines:
        kept.setdefault(line.machine, Kept(room(logs))).feed(line.text + b"\n")
    sys.stdout.buffer.write(folded(grouped([(name, one.output(), "") for name, one in sorted(kept.items())]),
                                   sys.stdout.isatty()))
    sys.stdout.flush()
    return bool(kept)
