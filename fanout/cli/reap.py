"""`fanout reap`: what runs have left in a cloud, shown, and removed when it is asked for."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import click

from fanout.durations import show
from fanout.errors import FanoutError, FleetError, UsageError
from fanout.report.text import clean, plural

if TYPE_CHECKING:
    from fanout.fleets.aws.api import Api
    from fanout.fleets.aws.reap import Holding


@click.command("reap", short_help="Remove machines of runs whose time is over.")
@click.option("--fleet", default="aws", show_default=True, metavar="SPEC", help="Whose account: aws:FILE.toml.")
@click.option("--run", metavar="ID", help="What this run has, whether its time is over or not.")
@click.option("-y", "--yes", is_flag=True, help="Remove it; without, it is only shown.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON on stdout.")
def command(fleet: str, run: str | None, yes: bool, as_json: bool) -> None:
    """Find what runs have left in a cloud after their time, and remove it with --yes.

    \b
    What would be removed in the region of a fleet's file, then the same for good:
      fanout reap --fleet aws:fleet.toml
      fanout reap --fleet aws:fleet.toml --yes

    Only what carries fanout's tags is touched.  Exit codes: 0 nothing is left, or nothing was to be removed;
    1 something is there still; 3 the account cannot be looked at.
    """
    name, _, text = fleet.partition(":")
    if name != "aws":
        raise UsageError(f"--fleet {fleet}: only aws leaves something that can be found; write aws:FILE.toml")
    asyncio.run(_reap(text, run, yes, as_json))


async def _reap(text: str, run: str | None, yes: bool, as_json: bool) -> None:
    from fanout.fleets.aws import KEYS
    from fanout.fleets.aws.api import Api
    from fanout.fleets.aws.reap import empty, holdings
    from fanout.fleets.aws.spec import parse
    from fanout.fleets.keyfolder import sweep

    spec = parse(text)
    api = Api(spec.region, spec.profile)
    now = time.time()
    found = [one for one in await holdings(api) if one.run == run or (run is None and one.expired(now))]
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found], indent=2))
    else:
        _show(api, found, now)
    if not yes:
        if found:
            click.echo("nothing was removed: add --yes for that", err=True)
        return
    if keys := sweep(KEYS):
        click.echo(f"keys of {plural(keys, 'killed run')} removed from this machine", err=True)
    failed = []
    for one in found:
        try:
            await empty(api, one.run, one.machines)
            click.echo(f"run {clean(one.run)}: removed", err=True)
        except FleetError as error:
            failed.append(str(error))
    if failed:
        raise FanoutError("\n".join(failed))


def _show(api: Api, found: list[Holding], now: float) -> None:
    for one in found:
        if one.expires is None:
            when = "without a time of its end"
        else:
            over = now - one.expires
            when = f"over for {show(over)}" if over > 0 else f"has {show(-over)} to go"
        had = [plural(len(one.machines), "machine")] * bool(one.machines)
        had += [plural(len(one.groups), "security group")] * bool(one.groups)
        click.echo(f"run {clean(one.run)} of {clean(one.owner)}, {when}: {', '.join(had)}")
        click.echo("".join(f"  {clean(id)}\n" for id in (*one.machines, *one.groups)), nl=False)
    if not found:
        click.echo(f"nothing of fanout's is left in {api.region} whose time is over")
