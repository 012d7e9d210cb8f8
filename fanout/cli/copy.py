"""`fanout copy`: files and folders to many machines, through a tree.  Options in, progress, and an exit code out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.selection import Machines, on_machines, selection
from fanout.cli.transfer import Transfer
from fanout.cli.types import utf8
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.root.call import Call
    from fanout.root.session import Session
    from fanout.root.shipping import Source


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

    DEST is the name that SRC has there; with several SRC, or a / at its end, the folder that they are put into; so are
    `.`, `..` and `~`.
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
    if not dest:
        raise UsageError("DEST is empty: name what SRC becomes there, or a folder with a / at its end")
    if several or dest.endswith("/") or dest == "~" or dest.rpartition("/")[2] in (".", ".."):
        dest = f"{dest.rstrip('/')}/{source.name}"
    return utf8(dest if dest.startswith(("/", "~")) else f"~/{dest}", "DEST")


class Copy(Transfer):
    def __init__(self, machines: Machines, sources: list[tuple[Source, str]], mode: int | None, cache: bool,
                 as_json: bool, quiet: bool, options: dict[str, Any]) -> None:
        super().__init__(machines, as_json, quiet, options)
        self._sources = sources
        self._mode = mode
        self._cache = cache
        self._calls: list[Call] = []
        self._targets = 0

    def _weight(self) -> int:
        return sum(source.size for source, _ in self._sources)

    async def _move(self, session: Session) -> None:
        from fanout.agent.core.node import DONE

        targets = session.up | session.detached
        calls = [session.shipping.ship(source, targets, to, self._mode, self._cache) for source, to in self._sources]
        self._calls, self._targets = calls, targets
        deadline = time.monotonic() + self._seconds
        for call in calls:
            await call.wait(DONE, timeout=max(0.0, deadline - time.monotonic()))
        for call, (_, to) in zip(calls, self._sources, strict=True):
            for machines, (outcome, reason) in call.groups(DONE):
                if outcome != "ok":
                    self._end(machines, "failed", reason)
            for machines, reason in call.refused:
                self._end(machines, "failed", reason)
            self._lost(session, call.lost & ~call.heard(DONE))
            late = targets & ~call.settled(DONE)
            self._end(late, "timed out", f"{to} was not complete within {self._seconds:g} s (--command-timeout)")
            session.shipping.over(call)
        self._end(targets, "ok")

    def _complete(self) -> int:
        from fanout.agent.core.node import DONE

        complete = self._targets
        for call in self._calls:
            complete &= sum(machines for machines, (outcome, _) in call.groups(DONE) if outcome == "ok")
        return complete

    def _progress(self, session: Session) -> None:
        from fanout.agent.core import machineset
        from fanout.agent.core.node import DONE

        done = self._targets
        for call in self._calls:
            done &= call.settled(DONE)
        left = machineset.members(self._targets & ~done)
        what = f"{self._rate(session.shipping.sent)} sent"
        if missing := len(self._hosts) - machineset.count(self._targets):
            what += f", {missing} not connected"
        self._draw_progress(machineset.count(self._targets), left, what)

    def _totals(self) -> dict[str, Any]:
        return {"bytes": self._weight()}

    def _moved(self) -> str:
        good = sum(outcome == "ok" for outcome, _ in self._ends.values())
        return f"{self._weight() / 1e6:.1f} MB on {good}"
