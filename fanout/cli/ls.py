"""`fanout ls`: the runs there are, and what they still hold."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from typing import Any

import click

from fanout.durations import show
from fanout.errors import FanoutError
from fanout.report.runs import Run, State, every
from fanout.report.text import clean, plural

MOST = 20  # runs that are shown unless --all is given; those that hold something always are


@click.command("ls", short_help="The runs there are, and what they still hold.")
@click.option("--all", "-a", "whole", is_flag=True, help=f"All runs, not only the last {MOST} and what holds machines.")
@click.option("--probe", is_flag=True, help="Ask fleets over the network what is still there.")
@click.option("--json", "as_json", is_flag=True, help="All there is to know, as JSON; all runs.")
def command(whole: bool, probe: bool, as_json: bool) -> None:
    """List runs, newest first: running, how they ended, or died, which is that their root is gone.

    \b
    What a run that died, or that kept its machines, still holds is ended by:
      fanout down RUN
    """
    runs = every()
    held = asyncio.run(_held(runs, probe))
    if as_json:
        click.echo(json.dumps([_record(run, told) for run, told in zip(runs, held, strict=True)], indent=2))
        return
    if not runs:
        click.echo("there is no run yet", err=True)
        return
    shown = [(run, told) for i, (run, told) in enumerate(zip(runs, held, strict=True)) if whole or i < MOST or told]
    rows = [("run", "state", "began", "machines", "scenario", "holds"), *(_row(run, told) for run, told in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[5]]).rstrip())
    if len(shown) < len(runs):
        click.echo(f"and {plural(len(runs) - len(shown), 'run')} more: --all", err=True)
    for run, told in shown:
        if run.overdue and told:
            text = f"OVERDUE: run {run.id} was to be kept until {show(run.overdue)} ago, and is still there"
            click.secho(f"{text}: fanout down {run.id}", err=True, fg="red", bold=True)
        elif run.state is State.DIED and told:
            click.secho(f"run {run.id} died and may hold machines: fanout down {run.id}", err=True, fg="yellow")


async def _held(runs: list[Run], probe: bool) -> list[str]:
    return [await _holds(run, probe) for run in runs]


async def _holds(run: Run, probe: bool) -> str:
    """In a few words; empty: nothing."""
    from fanout.fleets import kind_of

    held = run.holdings
    if run.damaged:
        return run.damaged
    if held is None or not held:
        return ""
    told = []
    try:
        if held.made is not None:
            told.append(await kind_of(held.fleet, f"run {run.id}").holds(run.id, held.made, probe))
    except (FanoutError, OSError) as error:
        told.append(f"unknown: {error}")
    if run.leased and held.made is None:
        ended = "" if run.state is State.RUNNING else f", until their lease of {show(held.lease)} has ended"
        told.append(f"processes on {plural(len(held.left), 'machine')}{ended}")
    if held.kept is not None and any(told):
        told.append(f"kept until {datetime.datetime.fromtimestamp(held.kept).astimezone():%H:%M:%S}")
    return ", ".join(filter(None, told))


def _row(run: Run, told: str) -> tuple[str, str, str, str, str, str]:
    machines = f"{len(run.holdings.machines)} on {run.holdings.fleet}" if run.holdings is not None else "-"
    began = f"{show(max(0.0, time.time() - run.started))} ago"
    return clean(run.id), run.outcome or run.state, began, clean(machines), clean(run.scenario), clean(told)


def _record(run: Run, told: str) -> dict[str, Any]:
    held = run.holdings
    return {
        "run": run.id,
        "folder": str(run.path),
        "scenario": run.scenario,
        "fleet": run.fleet,
        "state": str(run.state),
        "outcome": run.outcome or None,
        "started": run.started,
        "pid": run.pid,
        "machines": [machine.name for machine in held.machines] if held is not None else [],
        "holds": told,
        "left": [held.machines[machine].name for machine in held.left] if held is not None else [],
        "kept_until": held.kept if held is not None else None,
        "overdue": round(run.overdue, 1) if told else 0.0,
    }
