"""`fanout plan`: what a tree would look like and cost, without any machine."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.types import relays as relays_option
from fanout.cli.types import size as size_option
from fanout.report.text import plural

if TYPE_CHECKING:
    from fanout.root.model import Prediction
    from fanout.root.planner import Tree


@click.command("plan", short_help="The tree for N machines, and what it would cost.")
@click.option("-n", "--machines", type=click.IntRange(1, 1_000_000), required=True, metavar="N", help="How many.")
@click.option("--fleet", default="local", envvar="FANOUT_FLEET", show_envvar=True, show_default=True, metavar="SPEC",
              help="Whose constants to use, if `fanout bench` has measured them.")
@click.option("--relays", metavar="auto|K", callback=relays_option, default="auto", show_default=True,
              help="How many machines relay for others; 0: the root reaches each itself.")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Links from the root to the farthest leaf.")
@click.option("--width", type=click.IntRange(min=1), metavar="N", help="Children of one relay, at most.")
@click.option("--ship", metavar="SIZE", callback=size_option, default="0",
              help="Files of so many bytes go to all machines, such as 100MB.")
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def command(machines: int, fleet: str, relays: int | None, depth: int | None, width: int | None, ship: int,
            as_json: bool) -> None:
    """What a tree of N machines would look like and cost, with a flat run beside it.  No machine is touched.

    \b
    What `fanout run` would choose for 5,000 machines:
      fanout plan -n 5000
    Is a second level of relays worth it?
      fanout plan -n 5000 --relays 50
      fanout plan -n 5000 --relays 10 --depth 3
    What `fanout copy` would choose for 100 MB, and how long it would take:
      fanout plan -n 500 --ship 100MB
    With what was measured on your own machines:
      fanout bench --fleet hosts:nodes.txt
      fanout plan --fleet hosts:nodes.txt -n 5000

    Without a measurement of the fleet the constants are those of machines of their own in one data centre.
    """
    from fanout.fleets import kind_of
    from fanout.root import constants
    from fanout.root.model import DEFAULT, predict
    from fanout.root.planner import plan

    kind_of(fleet.partition(":")[0], f"--fleet {fleet}")  # a mistyped one has no constants either
    own = constants.measured(fleet)
    costs = own or DEFAULT
    tree = plan(machines, relays=relays, depth=depth, width=width, costs=costs, size=ship)
    tree_cost, flat_cost = (predict(machines, fans, costs, ship) for fans in (tree.fans, (machines,)))
    if as_json:
        shape = {"machines": machines, "fans": tree.fans, "relays": tree.relays, "depth": tree.depth}
        click.echo(json.dumps({
            "tree": {**shape, **dataclasses.asdict(tree_cost)}, "flat": dataclasses.asdict(flat_cost),
            "costs": dataclasses.asdict(costs), "measured": own is not None}, indent=2))
        return
    click.echo(f"{plural(machines, 'machine')}: {drawn(tree)}")
    both = [tree_cost, flat_cost] if tree.relays else [flat_cost]
    click.echo(table(["tree", "flat"][-len(both):], both, ROWS if ship else ROWS[:-1]))
    if own is None:
        click.echo(f"\nConstants: built in. To measure those of your own: fanout bench --fleet {fleet}", err=True)
    else:
        click.echo(f"\nConstants: measured on {fleet} ({constants.path()})", err=True)


def drawn(tree: Tree) -> str:
    """The levels in a line: `root - 9 relays - 24 relays each - up to 23 leaves each`."""
    if not tree.relays:
        return "the root reaches each itself"
    parts = [f"{plural(tree.relays, 'relay')}\n\n  root"]
    for level, fan in enumerate(tree.fans):
        what = "relay" if level < tree.depth - 1 else "leaf"
        many = f"{fan} {what if fan == 1 else {'relay': 'relays', 'leaf': 'leaves'}[what]}"
        parts.append(many if level == 0 else f"up to {many} each")
    return " - ".join(parts) + "\n"


def table(heads: list[str], costs: list[Prediction], shown: list[tuple[str, str, Any]]) -> str:
    rows: list[tuple[str, list[str]]] = [("", heads)]
    rows += [(name, [show(getattr(cost, key)) for cost in costs]) for name, key, show in shown]
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(costs))]
    lines = [f"  {name:<34}" + "".join(f"{cell:>{width + 3}}" for cell, width in zip(cells, widths, strict=True))
             for name, cells in rows]
    bounds = [f"  {head} is bound by {cost.bound}" for head, cost in zip(heads, costs, strict=True)]
    return "\n".join([*lines, "", *bounds])


def seconds(value: float) -> str:
    if value >= 100:
        return f"{value:.0f} s"
    return f"{value:.2g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def size(value: float) -> str:
    return f"{value / 1e6:.1f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"


ROWS: list[tuple[str, str, Any]] = [
    ("every agent ready", "ready", seconds),
    ("a later command on all", "command", seconds),
    ("a barrier of all", "barrier", seconds),
    ("root: CPU to connect", "root_cpu", seconds),
    ("root: CPU for a command on all", "root_command_cpu", seconds),
    ("root: messages for a command on all", "root_messages", str),
    ("root: sent while connecting", "root_bytes", size),
    ("root: memory for the tree", "root_memory", size),
    ("root: connections", "connections", str),
    ("the files on every machine", "ship", seconds),
]
