"""The machines that a command line chooses, and the tree over them: what `exec`, `copy`, `fetch` and `shell` share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.types import duration, relays
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.fleets.base import Host
    from fanout.root.session import Session
    from fanout.root.settings import Settings

FLAT = 256
"""Up to so many machines the root reaches each itself; beyond, relays pay for their start."""


def selection(function: Any) -> Any:
    """The options that say which machines, and how they are reached: the same for all of them."""
    for option in reversed([
        click.option("-w", "--hosts", "names", metavar="NAMES", multiple=True,
                     help="Machines, such as 'node[1-500],db[1-3]'; @FILE for a hosts file; may be repeated."),
        click.option("--fleet", metavar="SPEC", envvar="FANOUT_FLEET", help="Machines of a fleet instead of -w."),
        click.option("-x", "--exclude", metavar="NAMES", multiple=True, help="Leave these out."),
        click.option("-g", "--group", "roles", metavar="ROLE", multiple=True,
                     help="Only machines with this role= in the hosts file."),
        click.option("-f", "--fanout", "handshakes", type=click.IntRange(min=1), default=32, show_default=True,
                     metavar="N", help="SSH handshakes under way at once; commands run all at once."),
        click.option("-l", "--user", metavar="NAME", help="Log in by this name where none is given."),
        click.option("-t", "--connect-timeout", metavar="DURATION", callback=duration, default="15s",
                     show_default=True, help="Until a machine is connected, or given up."),
        click.option("-u", "--command-timeout", metavar="DURATION", callback=duration,
                     help="Until it is given up on a machine, and killed there; by default never."),
        click.option("--relays", metavar="auto|K", callback=relays, default="auto", show_default=True,
                     help=f"Machines that reach the others; 0: none, and auto: none up to {FLAT}."),
        click.option("--forward-agent", is_flag=True, help="Let relays log in by your SSH agent."),
        click.option("--kex", metavar="NAME", help="SSH key exchange; by default a fast one that both ends have."),
        click.option("--cipher", metavar="NAME", help="SSH cipher; by default a fast one that both ends have."),
    ]):
        function = option(function)
    return function


def chosen(options: dict[str, Any]) -> list[Host]:
    """The machines that the options select, in order, each once.  UsageError when there are none."""
    import dataclasses

    from fanout import names
    from fanout.fleets.hosts import HostsFleet

    if bool(options["names"]) == bool(options["fleet"]):
        raise UsageError("which machines? Name them by -w 'node[1-40]' or -w @FILE, or give --fleet (not both)")
    specs = list(options["names"])
    if options["fleet"]:
        kind, _, text = options["fleet"].partition(":")
        if kind != "hosts":
            raise UsageError(f"--fleet {options['fleet']}: exec runs on machines that exist; write hosts:FILE, or list"
                             " those of a lab by `fanout lab ls --hosts`")
        specs = [text]
    found: dict[str, Host] = {}
    for spec in specs:
        if spec.startswith("@"):
            spec = spec[1:] if spec == "@-" or "/" in spec else str(Path(spec[1:]).expanduser().absolute())
        elif not options["fleet"] and not names.expand(spec):
            continue
        for host in HostsFleet(spec).hosts:
            found.setdefault(host.name, host)
    for text in options["exclude"]:
        for name in _names(text):
            found.pop(name, None)
    hosts = [host for host in found.values() if not options["roles"] or host.role in options["roles"]]
    if not hosts:
        given = sorted({host.role for host in found.values() if host.role})
        known = f"; there are {', '.join(given)}" if given else "; no machine has a role="
        raise UsageError("no machine is left" + (known if options["roles"] else " after --exclude"))
    if options["user"]:
        hosts = [host if host.user else dataclasses.replace(host, user=options["user"]) for host in hosts]
    return hosts


def _names(text: str) -> list[str]:
    from fanout import names
    from fanout.fleets.hosts import HostsFleet

    if text.startswith("@"):
        return [host.name for host in HostsFleet(str(Path(text[1:]).expanduser().absolute())).hosts]
    return names.expand(text)


def settings(options: dict[str, Any]) -> Settings:
    from fanout.root.settings import CIPHER, KEX, Settings

    return Settings(
        run=f"exec-{os.getpid():x}-{os.urandom(3).hex()}", connect_timeout=options["connect_timeout"],
        handshakes=options["handshakes"], forward_agent=options["forward_agent"], keepalive=10.0,
        kex=options["kex"] or KEX, cipher=options["cipher"] or CIPHER)


def tree(hosts: list[Host], options: dict[str, Any], width: int | None = None) -> Session:
    """A session over these machines, not connected yet."""
    from fanout.root.machine import Machine
    from fanout.root.planner import plan
    from fanout.root.session import Session

    parents = plan(len(hosts), relays=options["relays"], depth=None, width=width,
                   preferred=[i for i, host in enumerate(hosts) if host.relay]).parents
    return Session([Machine(i, host, host.role or "") for i, host in enumerate(hosts)], parents, settings(options))
