"""`fanout copy`: files and folders to many machines, through a tree.  Options in, progress, and an exit code out."""

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
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.root.call import Call
    from fanout.root.session import Session
    from fanout.root.shipping import Source

FAILED, TIMED_OUT, UNREACHED = 1, 124, 255
FOREVER = 30 * 86400.0  # s for a copy without --command-timeout
FRAME = 0.2  # s between two looks of the progress
STRAGGLERS = 5  # as many, or fewer, are named


def octal(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value}: write permission bits in octal, such as 755")
    return mode


@click.command("copy", short_help="Copy files and folders to many machines.")
@selection("as many as are fastest", "Until it is given up on a machine")
@click.option("--mode", metavar="OCTAL", callback=octal, help="Permission bits of a file, instead of its own.")
@click.option("--no-cache", is_flag=True, help="Machines use and keep no copy of their own beside DEST.")
@click.option("--no-compress", is_flag=True, help="Send everything as it is, though it would compress.")
@click.option("--json", "as_json", is_flag=True, help="At the end, one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.argument("paths", nargs=-1, required=True, metavar="SRC... DEST")
@click.pass_context
def command(
    ctx: click.Context, /, paths: tuple[str, ...], mode: int | None, no_cache: bool,
    no_compress: bool, as_json: bool, quiet: bool, **options: Any,
) -> None:
    """Copy files and folders to many machines at once, through a tree of them: each is sent on as it comes in.

    \b
    fanout copy -w 'node[1-500]' build.tar /opt/build.tar
    fanout copy -w @hosts.txt -g web site/ conf/ /srv/
    fanout copy -w 'db[1-3]' --mode 600 my.cnf '~/{name}.cnf'

    DEST is the name that SRC has there; with several SRC, or a / at its end, the folder that they are put into.
    One that does not begin with / is in the home folder; {id}, {name}, {address} and {role} are filled in.  A file is
    seen when it is complete and its hash is right, and not before; a folder that is there is replaced.  Machines
    need Python 3.8 or newer, and do not get again what they were sent before.

    \b
    Exit code: the highest of
      0    it is on every machine
      1    it could not be put in place on a machine (the summary tells)
      124  it took longer than --command-timeout
      255  a machine could not be reached, or was lost
    and 130 after Ctrl-C, which leaves nothing half done behind.
    """
    if len(paths) < 2:
        raise UsageError("copy what, and where to? Write: fanout copy -w NAMES SRC... DEST")
    *texts, dest = paths
    import contextlib

    from fanout.root.shipping import Source

    with contextlib.ExitStack() as stack:
        sources: list[tuple[Source, str]] = []
        for text in texts:
            source = Source(Path(text), not no_compress)
            stack.callback(source.close)
            sources.append((source, place(source, dest, len(texts) > 1)))
        names = [to for _, to in sources]
        twice = sorted({to for to in names if names.count(to) > 1})
        if twice:
            raise UsageError(f"two of these would be {twice[0]} there: copy them one after the other")

        async def work(machines: Machines) -> int:
            return await Copy(machines, sources, mode, not no_cache, as_json, quiet, options).run()

        ctx.exit(on_machines(options, work))


def place(source: Source, dest: str, several: bool) -> str:
    """Where it goes on the machines."""
    if several or dest.endswith("/"):
        dest = f"{dest.rstrip('/')}/{source.name}"
    return dest if dest.startswith(("/", "~")) else f"~/{dest}"


class Copy:
    def __init__(self, machines: Machines, sources: list[tuple[Source, str]], mode: int | None, cache: bool,
                 as_json: bool, quiet: bool, options: dict[str, Any]) -> None:
        self._hosts = machines.hosts
        self._relay_key = machines.relay_key
        self._sources = sources
        self._mode = mode
        self._cache = cache
        self._json = as_json
        self._quiet = quiet
        self._options = options
        self._ends: dict[int, tuple[str, str]] = {}
        """Machine -> (outcome, reason); complete in the end."""
        self._calls: list[Call] = []
        self._targets = 0
        self._began = time.monotonic()
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._draws = terminal and not quiet

    async def run(self) -> int:
        """Do it; the exit code."""
        import asyncio
        import contextlib
        import signal

        from fanout.agent.core import machineset

        work = asyncio.ensure_future(self._copy())
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
        for machine in machineset.members(self._complete()):
            self._ends.setdefault(machine, ("ok", ""))
        for machine in range(len(self._hosts)):
            self._ends.setdefault(machine, ("interrupted", "the copy was interrupted"))
        if self._draws:
            click.echo("\r\x1b[K", nl=False, err=True, color=True)
        if self._json:
            click.echo(json.dumps(self._document(), indent=1))
        if not self._quiet:
            self._summary()
        return INTERRUPTED if interrupted else max(map(_code, (outcome for outcome, _ in self._ends.values())))

    async def _copy(self) -> None:
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
            copying = asyncio.ensure_future(self._ship(session))
            try:
                while not (await asyncio.wait([copying], timeout=FRAME))[0]:
                    self._progress(session)
            finally:
                copying.cancel()
            await copying
        finally:
            await session.end(grace=0.0)

    async def _ship(self, session: Session) -> None:
        from fanout.agent.core import machineset
        from fanout.agent.core.node import DONE

        for machine, (outcome, reason) in session.down.items():
            self._ends[machine] = (str(outcome), reason)
        targets, seconds = session.up | session.detached, self._options["command_timeout"] or FOREVER
        calls = [session.shipping.ship(source, targets, to, self._mode, self._cache) for source, to in self._sources]
        self._calls, self._targets = calls, targets
        deadline = time.monotonic() + seconds
        for call in calls:
            await call.wait(DONE, timeout=max(0.0, deadline - time.monotonic()))
        for call, (_, to) in zip(calls, self._sources, strict=True):
            for machines, (outcome, reason) in call.groups(DONE):
                if outcome != "ok":
                    self._fail(machines, "failed", reason)
            for machines, reason in call.refused:
                self._fail(machines, "failed", reason)
            for machine in machineset.members(call.lost & ~call.heard(DONE)):
                why, reason = session.down.get(machine, ("lost", "it was lost"))
                self._fail(machineset.single(machine), str(why), reason)
            late = targets & ~call.settled(DONE)
            self._fail(late, "timed out", f"{to} was not complete within {seconds:g} s (--command-timeout)")
            session.shipping.over(call)
        for machine in machineset.members(targets):
            self._ends.setdefault(machine, ("ok", ""))

    def _complete(self) -> int:
        """The machines on which all of it is in place."""
        from fanout.agent.core.node import DONE

        complete = self._targets
        for call in self._calls:
            complete &= sum(machines for machines, (outcome, _) in call.groups(DONE) if outcome == "ok")
        return complete

    def _fail(self, machines: int, outcome: str, reason: str) -> None:
        from fanout.agent.core import machineset

        for machine in machineset.members(machines):
            self._ends.setdefault(machine, (outcome, reason))

    # What is shown.

    def _progress(self, session: Session) -> None:
        from fanout.agent.core import machineset
        from fanout.agent.core.node import DONE
        from fanout.names import fold

        done = self._targets
        for call in self._calls:
            done &= call.settled(DONE)
        left = machineset.members(self._targets & ~done)
        rate = session.shipping.sent / max(0.001, time.monotonic() - self._began)
        text = f"{machineset.count(done)}/{machineset.count(self._targets)} machines, {rate / 1e6:.1f} MB/s sent"
        if missing := len(self._hosts) - machineset.count(self._targets):
            text += f", {missing} not connected"
        if 0 < len(left) <= STRAGGLERS and done:
            text += f", waiting for {fold([self._hosts[machine].name for machine in left])}"
        self._draw(text)

    def _draw(self, text: str) -> None:
        if self._draws:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True, color=True)

    def _document(self) -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - self._began, 3),
            "bytes": sum(source.size for source, _ in self._sources),
            "machines": [{"name": host.name, "outcome": self._ends[i][0], "reason": self._ends[i][1]}
                         for i, host in enumerate(self._hosts)],
        }

    def _summary(self) -> None:
        from fanout.names import fold
        from fanout.report.text import clean, plural

        alike: dict[str, list[str]] = {}
        for machine, (outcome, reason) in sorted(self._ends.items()):
            if outcome != "ok":
                alike.setdefault(f"{outcome}: {reason}", []).append(self._hosts[machine].name)
        for why, names in sorted(alike.items(), key=lambda item: -len(item[1])):
            many = f" ({len(names)})" if len(names) > 1 else ""
            click.echo(clean(f"fanout: {fold(names)}{many}: {why}"), err=True)
        size, seconds = sum(source.size for source, _ in self._sources), time.monotonic() - self._began
        good = sum(outcome == "ok" for outcome, _ in self._ends.values())
        click.echo(f"fanout: {size / 1e6:.1f} MB on {good} of {plural(len(self._hosts), 'machine')} in {seconds:.1f} s",
                   err=True)


def _code(outcome: str) -> int:
    return {"ok": 0, "failed": FAILED, "timed out": TIMED_OUT, "interrupted": INTERRUPTED}.get(outcome, UNREACHED)
