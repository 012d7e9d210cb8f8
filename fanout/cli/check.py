"""`fanout check`: files in, a table out; the checks are the scenario layer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fanout.errors import UsageError
from fanout.report.text import clean, plural

if TYPE_CHECKING:
    from fanout.scenario.check import Checked, Checks


@click.command("check", short_help="Check scenarios without any machine.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILES...")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
@click.pass_context
def command(ctx: click.Context, /, files: tuple[Path, ...], as_json: bool) -> None:
    """Import every scenario of files and folders, check what they declare, and plan their trees.

    \b
    No machine and no credentials are needed, so it fits a pull request's CI:
      fanout check scenarios/
      fanout check scenarios/gossip.py --json

    All that is wrong is told, not only the first.  Exit codes: 0 nothing wrong, 2 something is.
    """
    from fanout.scenario.check import check

    checks = check(files)
    if as_json:
        click.echo(json.dumps(checks.as_json(), indent=2))
    else:
        _show(checks)
    ctx.exit(UsageError.exit_code if checks.problems else 0)


def _show(checks: Checks) -> None:
    rows = [("scenario", "machines", "tree", "parameters"), *(_row(one) for one in checks.scenarios)]
    if checks.scenarios:
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
            click.echo("  ".join([*cells, row[3]]).rstrip())
    for problem in checks.problems:
        where = f"{problem.file}: " if problem.file not in problem.reason else ""
        lines = [clean(line) for line in problem.reason.splitlines()]
        click.echo(f"error: {where}" + "\n".join(lines), err=True)
    if checks.passed_over:
        click.echo(f"{plural(len(checks.passed_over), 'file')} without a @scenario passed over", err=True)


def _row(one: Checked) -> tuple[str, str, str, str]:
    machines = "the fleet's" if one.machines is None else str(one.machines)
    if one.roles:
        machines += f" ({', '.join(f'{role} {count}' for role, count in one.roles.items())})"
    tree = "-"
    if one.tree is not None:
        flat = not one.tree["relays"]
        tree = "flat" if flat else f"{plural(one.tree['relays'], 'relay')}, depth {one.tree['depth']}"
    return one.scenario, machines, tree, ", ".join(map(str, one.parameters)) or "-"
