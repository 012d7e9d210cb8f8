"""`fanout down`: what a run has left is ended, and what its fleet made is taken back."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from fanout.cli.types import duration, run_ids
from fanout.errors import UsageError
from fanout.names import fold
from fanout.report.folder import MACHINES, write_whole
from fanout.report.keep import remove_login
from fanout.report.runs import Run, find, take
from fanout.report.text import clean, lines, plural
from fanout.root.holdings import Holdings
from fanout.root.outcomes import Failure


@click.command("down", short_help="End what a run has left, and give back its machines.")
@click.argument("run", shell_complete=run_ids, metavar="RUN|last")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--connect-timeout", metavar="DURATION", callback=duration, default="30s", show_default=True,
    help="Until every machine is reached, or given up.",
)  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, run: str, yes: bool, connect_timeout: float) -> None:
    """Clean up after a run whose root was killed, or that has kept its machines.

    RUN is its id as `fanout ls` has it, the first letters of it, `last`, or the path of its folder.  Agents that still
    run are told to end, what they have started is killed, their folders go, and machines that were made for the run are
    given back.  A run that is still going is left alone.

    Exit codes: 0 nothing is left, 1 something may be, and was said.
    """
    found = find(run)
    lock = take(found)
    try:
        found = find(str(found.path))  # what it holds now that nobody else is at work on it
        ctx.exit(0 if _clean(found, yes, connect_timeout) else 1)
    finally:
        os.close(lock)


def _clean(run: Run, yes: bool, seconds: float) -> bool:
    """Whether nothing is left."""
    if run.damaged:
        raise UsageError(run.damaged)
    held = run.holdings
    if held is None or not held:
        remove_login(run.path)
        click.echo(f"run {run.id}: nothing is left of it")
        return True
    if not yes:
        _ask(run, held)
    from fanout.root.reclaim import reclaim  # brings asyncssh

    click.echo(f"run {run.id}: cleaning up ...", err=True)
    done = asyncio.run(reclaim(held, seconds, lambda line: click.echo(clean(line), err=True)))
    write_whole(run.path / MACHINES, done.holdings.as_json())
    if done.clean:
        click.echo(f"cleaned: {plural(len(done.clean), 'machine')}: {clean(fold(done.clean))}")
    for machines, why in _alike(done.failures):
        click.echo(f"not cleaned: {clean(fold(machines))}: {clean(why)}")
    if done.released:
        click.echo(f"released: {clean(done.released)}")
    for line in lines(done.problem) if done.problem else ():
        click.echo(f"not released: {line}")
    if done.holdings.made is None:
        remove_login(run.path)
    return not done.failures and not done.problem


def _ask(run: Run, held: Holdings) -> None:
    what = [f"end it on {plural(len(held.left), 'machine')}"] if held.left else []
    what += [f"give back what its fleet {held.fleet} has made"] if held.made is not None else []
    question = f"run {run.id} ({clean(run.scenario)}): {' and '.join(what)}?"
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on: give --yes")
    click.confirm(question, default=True, abort=True)


def _alike(failures: list[Failure]) -> list[tuple[list[str], str]]:
    found: dict[str, list[str]] = {}
    for failure in failures:
        found.setdefault(f"{failure.outcome}: {failure.reason}", []).append(failure.machine)
    return [(machines, why) for why, machines in found.items()]
