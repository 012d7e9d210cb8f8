"""`fanout bench`: options in; a table, a JSON file and a page out."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.types import duration
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.bench.contest import Contest, Options

SKIPPED = ("barrier", "logs", "files")


@click.command("bench", short_help="Does the tree pay on a fleet? Flat beside trees, measured.")
@click.option("--fleet", default="local", envvar="FANOUT_FLEET", show_envvar=True, show_default=True, metavar="SPEC",
              help="Where machines come from, as for `fanout run`.")
@click.option("-n", "--machines", "sizes", default="10,50,100,200,500", show_default=True, metavar="N,N,...",
              help="At how many machines.")
@click.option("--shapes", default="flat,auto,4,8,8x8", show_default=True, metavar="SHAPE,...",
              help="flat; auto, what a run would choose; 8 relays; 8x4: 8 relays with 4 relays below each.")
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Rounds: each measures every shape at every size once.")
@click.option("--budget", metavar="DURATION", callback=duration, default="30m", show_default=True,
              help="For all of it; what does not fit is left out, and said.")
@click.option("--skip", multiple=True, type=click.Choice(SKIPPED), help="Leave this out; may be repeated.")
@click.option("--compare", is_flag=True, help="Also pdsh, pssh, clush, taktuk and Mitogen, where they are installed.")
@click.option("--connect-timeout", metavar="DURATION", callback=duration, default="2m", show_default=True,
              help="Until every machine is connected; a trial that lacks one has failed.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              default="fanout-bench.html", show_default=True, help="The page with plots.")
@click.option("--json", "as_json", is_flag=True,
              help="Every figure of every trial as JSON on stdout, all else on stderr.")
@click.option("--keep/--no-keep", default=True, show_default=True,
              help="Keep the constants that were measured, for `fanout plan` and `--relays auto` on this fleet.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each trial.")
def command(sizes: str, shapes: str, html_file: Path, as_json: bool, keep: bool, quiet: bool,
            **options: Any) -> None:
    """Measure a fleet: does a tree pay there, from how many machines on, and what does it cost the root?

    \b
    On forty hosts of your own, in ten minutes:
      fanout bench --fleet hosts:nodes.txt -n 10,20,40 --shapes flat,4,8 --repeat 3 --budget 10m
    Beside other tools, on the same hosts in the same run:
      fanout bench --fleet hosts:nodes.txt -n 40 --shapes flat,4 --compare
    Then, with what was measured:
      fanout plan --fleet hosts:nodes.txt -n 400

    Each trial brings the tree up anew: every agent ready, first and later commands, a barrier, a hop, logs and a file,
    with the CPU, memory, descriptors, bytes and messages of the root.  Rounds are interleaved; medians are shown.
    Nothing is installed on the machines, and nothing stays there.
    """
    from fanout.bench.contest import Options
    from fanout.bench.page import page, text
    from fanout.report.folder import new_run_id
    from fanout.root import constants

    chosen = Options(sizes=numbers(sizes), shapes=tuple(filter(None, shapes.split(","))), **options)
    if not html_file.absolute().parent.is_dir():
        raise UsageError(f"{html_file}: there is no folder {html_file.absolute().parent}")
    result = run(chosen, new_run_id(), quiet)
    html_file.write_text(page(result))
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=1))
    click.echo(text(result), err=as_json)
    click.echo(f"\nplots: {html_file}", err=True)
    if keep and result.costs is not None and any(row.trials for row in result.rows):
        click.echo(f"constants of {chosen.fleet}: {constants.keep(chosen.fleet, result.costs)}", err=True)
    if not any(row.trials for row in result.rows):
        sys.exit(1)


def run(options: Options, run_id: str, quiet: bool) -> Contest:
    """The one place that brings machines; imported here."""
    from fanout.bench.contest import contest

    return asyncio.run(contest(options, run_id, (lambda line: None) if quiet else (lambda line: click.echo(
        line, err=True))))


def numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        found = ()
    if not found or min(found) < 2:
        raise UsageError(f"-n {text}: give sizes of 2 or more, such as 10,50,100")
    return found
