"""`fanout doctor`: findings out, a line each; the looking is the root's."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fanout.cli.types import duration
from fanout.errors import UsageError
from fanout.report.folder import runs_folder
from fanout.report.text import clean, lines

if TYPE_CHECKING:
    from fanout.root.doctor import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", short_help="What would fail here or on a fleet, and the remedy.")
@click.option(
    "--fleet", metavar="SPEC", help="Look at these machines too; any that `fanout run` takes."
)
@click.option(
    "-n", "--machines", type=click.IntRange(min=1), metavar="N", help="How many machines of the fleet."
)
@click.option(
    "-t", "--connect-timeout", "timeout", metavar="DURATION", callback=duration, default="20s", show_default=True,
    help="Until a machine is connected, or given up.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
@click.pass_context
def command(
    ctx: click.Context, /, fleet: str | None, machines: int | None, timeout: float, as_json: bool
) -> None:
    """Find out what would fail, and what to do about it, before a run does.

    \b
    This machine alone, then with the machines of a hosts file:
      fanout doctor
      fanout doctor --fleet hosts:nodes.txt

    With --fleet each machine is reached once and runs one small command; a fleet that makes machines makes
    them, and removes them again.  Exit codes: 0 nothing fails, 1 something does.
    """
    if machines and fleet is None:
        raise UsageError(f"-n {machines}: of which fleet? Give --fleet too")
    try:
        findings = asyncio.run(_look(fleet, machines, timeout))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # by TERM, and as tidily
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    ctx.exit(1 if any(finding.level == "fail" for finding in findings) else 0)


async def _look(spec: str | None, machines: int | None, timeout: float) -> list[Finding]:
    from fanout.cli.interrupts import cancel_tidily
    from fanout.fleets import open_fleet
    from fanout.root.doctor import here, visit

    if spec is None:
        return here(runs_folder(), None)
    fleet = open_fleet(spec)
    fleet.say = lambda text: click.echo(f"note: {clean(text)}", err=True)
    cancel_tidily()  # machines that were made are released
    return await visit(fleet, machines, runs_folder(), timeout)


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        level = click.style(f"{finding.level:<4}", fg=COLOURS[finding.level])
        first, *more = lines(finding.text)
        click.echo(f"{level}  {finding.topic:<{width}}  {first}")
        for line in more:
            click.echo(f"{'':<{width + 8}}{line}")
        if finding.level != "ok" and finding.remedy:
            click.echo(f"{'':<{width + 8}}-> {' '.join(lines(finding.remedy))}")
