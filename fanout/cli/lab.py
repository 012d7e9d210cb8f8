"""`fanout lab`: a lab that outlives one run, for trying things by hand."""

from __future__ import annotations

import json
import shlex
import time

import click

from fanout.durations import show
from fanout.errors import UsageError
from fanout.fleets.lab import Lab
from fanout.names import fold
from fanout.report.text import plural

DEFAULT_NAME = "lab"


@click.group("lab", short_help="Isolated hosts on this machine, to try things on.")
def command() -> None:
    """Isolated hosts on this machine: each with its own network, processes, files and sshd.

    \b
    Sixty hosts, a run on them, and the end of them:
      fanout lab up -n 60
      fanout run scenarios/gossip.py --fleet lab:name=lab -n 60 --relays 4
      fanout lab down

    Needs root on Linux.  Without, one sshd on many loopback addresses stands in, and says what it cannot do.
    A single run makes a lab of its own with --fleet lab.
    """


@command.command()
@click.option("-n", "--machines", type=click.IntRange(min=1), metavar="N", default=5, show_default=True,
              help="How many hosts.")  # fmt: skip
@click.option("--name", metavar="NAME", default=DEFAULT_NAME, show_default=True, help="Of the lab.")
@click.option("--rate", metavar="RATE", help="Speed of each host's link, each way, such as 100mbit.")
@click.option("--cpu", type=float, metavar="CORES", help="Cores each host may use, such as 0.5.")
def up(machines: int, name: str, rate: str | None, cpu: float | None) -> None:
    """Make a lab; it stays until it is taken down."""
    began = time.monotonic()
    lab = Lab.up(machines, name=name, rate=rate, cpu=cpu)
    hosts = plural(len(lab.hosts), "host")
    click.echo(f"lab {lab.name}: {hosts} in {show(time.monotonic() - began)}")
    if lab.limits:
        click.echo(f"note: {lab.limits}", err=True)
    click.echo(f"  fanout run SCENARIO.py --fleet lab:name={lab.name} -n {len(lab.hosts)}", err=True)
    first = lab.hosts[0]
    click.echo(f"  ssh -i {lab.key} -p {first.port} {first.user}@{first.address}", err=True)


@command.command()
@click.argument("name", required=False)
@click.option("--json", "form", flag_value="json", help="All there is to know, as JSON.")
@click.option("--hosts", "form", flag_value="hosts", help="As a hosts file, for --fleet hosts:FILE.")
@click.option("--known-hosts", "form", flag_value="known-hosts", help="The host keys, as for ~/.ssh/known_hosts.")
def ls(name: str | None, form: str | None) -> None:
    """List the labs that are up, or the one named NAME.

    \b
    To use a lab as if its hosts were machines of your own:
      fanout lab ls --hosts > nodes.txt
      fanout run scenarios/gossip.py --fleet hosts:nodes.txt
    """
    labs = [Lab.open(name)] if name else [lab for each in Lab.names() if (lab := _open(each))]
    if form == "json":
        click.echo(json.dumps([_record(lab) for lab in labs], indent=2))
        return
    if form == "hosts":
        click.echo("".join(_hosts_lines(lab) for lab in labs), nl=False)
        return
    if form == "known-hosts":
        click.echo("".join(_known_hosts_lines(lab) for lab in labs), nl=False)
        return
    if not labs:
        click.echo("no lab is up; make one with: fanout lab up -n 5", err=True)
    width = max((len(lab.name) for lab in labs), default=0)
    for lab in labs:
        hosts = lab.hosts
        if hosts:
            kind = "loopback only" if lab.limits else "isolated"
            text = f"{plural(len(hosts), 'host')}, {kind}: {fold([host.name for host in hosts])}"
            click.echo(f"{lab.name:<{width}}  {text} at {hosts[0].address} and on")
        else:
            click.echo(f"{lab.name:<{width}}  not finished: being made, or left by a crash")


@command.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="All labs.")
def down(name: str | None, every: bool) -> None:
    """Remove the lab NAME, or the only one there is."""
    if name and every:
        raise UsageError("give the name of a lab or --all, not both")
    labs = Lab.names()
    if not (name or every) and len(labs) > 1:
        raise UsageError(f"there are several labs: name one of {', '.join(labs)}, or give --all")
    if not (name or labs):
        click.echo("no lab is up", err=True)
    for each in [name] if name else labs:
        lab = Lab.open(each)
        hosts = plural(len(lab.hosts), "host")
        lab.down()
        click.echo(f"lab {each}: {hosts} removed")


def _open(name: str) -> Lab | None:
    try:
        return Lab.open(name)
    except UsageError:
        return None  # gone since it was listed


def _record(lab: Lab) -> dict[str, object]:
    return {
        "name": lab.name,
        "limits": lab.limits,
        "key": str(lab.key),
        "hosts": [
            {
                "name": h.name, "address": h.address, "port": h.port, "user": h.user, "pid": h.pid,
                "host_keys": list(h.host_keys),
            }
            for h in lab.hosts
        ],
    }  # fmt: skip


def _hosts_lines(lab: Lab) -> str:
    return "".join(
        f'{h.user}@{h.address}:{h.port} name={h.name} key={shlex.quote(str(lab.key))} host_key="{h.host_keys[0]}"\n'
        for h in lab.hosts
    )


def _known_hosts_lines(lab: Lab) -> str:
    lines = []
    for host in lab.hosts:
        name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
        lines += [f"{name} {key}\n" for key in host.host_keys]
    return "".join(lines)
