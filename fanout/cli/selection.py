"""The machines that a command line chooses, and the tree over them: what `exec`, `copy`, `fetch` and `shell` share.

What always holds: machines that a fleet has made for the command are given back when it ends, however it does; what
was made is written down first, as of a run, so that `fanout down` gives it back when the command itself was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.main import INTERRUPTED
from fanout.cli.types import duration, relays
from fanout.errors import FanoutError, FleetError, UsageError

if TYPE_CHECKING:
    from fanout.fleets.base import Fleet, Host
    from fanout.report.folder import RunFolder
    from fanout.root.session import Session
    from fanout.root.settings import Settings

FLAT = 256
"""Up to so many machines `exec` reaches each itself; beyond, relays pay for their start."""


@dataclass(frozen=True)
class Machines:
    hosts: list[Host]
    """In order, each once, one at least."""
    relay_key: str | None = None
    """See `Fleet.relay_key`."""
    fleet: str = ""
    """Whose measured constants the tree goes by."""


def selection(auto: str, timeout: str) -> Callable[[Any], Any]:
    """The options; `auto` says which relays are taken when nobody says, `timeout` what --command-timeout ends."""
    options = [
        click.option("-w", "--hosts", "names", metavar="NAMES", multiple=True,
                     help="Machines, such as 'node[1-500],db[1-3]'; @FILE for a hosts file; may be repeated."),
        click.option("--fleet", metavar="SPEC",
                     help="Machines of a fleet, as for `fanout run`; those it makes are given back at the end.  Without"
                          " -w, FANOUT_FLEET counts."),
        click.option("-n", "--machines", type=click.IntRange(min=1), metavar="N",
                     help="How many machines of the fleet; by default all it has, or its own default."),
        click.option("-x", "--exclude", metavar="NAMES", multiple=True, help="Leave these out; @FILE, as for -w."),
        click.option("-g", "--group", "roles", metavar="ROLE", multiple=True,
                     help="Only machines with this role= in the hosts file."),
        click.option("-f", "--fanout", "handshakes", type=click.IntRange(min=1), default=32, show_default=True,
                     metavar="N", help="SSH handshakes under way at once; all else goes on at all machines at once."),
        click.option("-l", "--user", metavar="NAME", help="Log in by this name where none is given."),
        click.option("-t", "--connect-timeout", metavar="DURATION", callback=duration, default="15s",
                     show_default=True, help="Until a machine is connected, or given up."),
        click.option("-u", "--command-timeout", metavar="DURATION", callback=duration,
                     help=f"{timeout}; by default never."),
        click.option("--relays", metavar="auto|K", callback=relays, default="auto", show_default=True,
                     help=f"Machines that reach the others; 0: none, auto: {auto}."),
        click.option("--width", type=click.IntRange(min=1), metavar="N",
                     help="Machines that one relay reaches, at most."),
        click.option("--forward-agent", is_flag=True, help="Let relays log in by your SSH agent."),
        click.option("--kex", metavar="NAME", help="SSH key exchange; by default a fast one that both ends have."),
        click.option("--cipher", metavar="NAME", help="SSH cipher; by default a fast one that both ends have."),
        click.option("-y", "--yes", is_flag=True, help="Whatever the machines of the fleet cost: no max_cost."),
    ]

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def on_machines(options: dict[str, Any], work: Callable[[Machines], Awaitable[int]]) -> int:
    """What `work` on the chosen machines returns, an exit code; INTERRUPTED when it came to no end."""
    import asyncio

    from fanout.root.transport import check_algorithms

    check_algorithms(options["kex"], options["cipher"])

    async def go() -> int:
        async with chosen(options) as machines:
            return await work(machines)

    try:
        return asyncio.run(go())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


@contextlib.asynccontextmanager
async def chosen(options: dict[str, Any]) -> AsyncIterator[Machines]:
    """The machines that the options select.  UsageError when there are none."""
    spec = options["fleet"] or ("" if options["names"] else os.environ.get("FANOUT_FLEET", ""))
    if bool(options["names"]) == bool(spec):
        raise UsageError("which machines? Name them by -w 'node[1-40]' or -w @FILE, or give --fleet (not both)")
    if options["names"]:
        if options["machines"]:
            raise UsageError(f"-n {options['machines']} is for machines of a --fleet; -w names them all")
        yield Machines(narrowed(named(options["names"]), options))
        return
    from fanout.fleets import open_fleet

    fleet = open_fleet(spec)
    fleet.unlimited = options["yes"]
    async with provisioned(fleet, spec, options["machines"]) as hosts:
        yield Machines(narrowed(hosts, options), fleet.relay_key, spec)


def named(specs: Iterable[str]) -> list[Host]:
    """What -w names: folded names, and hosts files."""
    found: dict[str, Host] = {}
    for spec in specs:
        for host in hosts_of(spec):
            found.setdefault(host.name, host)
    if not found:
        raise UsageError("-w names no machine: write it as in -w 'node[1-40]' or -w @FILE")
    return list(found.values())


def hosts_of(spec: str) -> list[Host]:
    """Those of a hosts file, @FILE, or else of folded names, whatever files there are of such a name."""
    from fanout.fleets.hosts import HostsFleet, from_names

    if not spec.startswith("@"):
        return from_names(spec)
    return HostsFleet("-" if spec == "@-" else str(Path(spec[1:]).expanduser().absolute())).hosts


def narrowed(hosts: Iterable[Host], options: dict[str, Any]) -> list[Host]:
    """Without --exclude, only those of --group, and with --user."""
    found = {host.name: host for host in hosts}
    for text in options["exclude"]:
        for host in hosts_of(text):
            found.pop(host.name, None)
    left = [host for host in found.values() if not options["roles"] or host.role in options["roles"]]
    if not left:
        given = sorted({host.role for host in found.values() if host.role})
        known = f"there are {', '.join(given)}" if given else "no machine has a role="
        raise UsageError(f"no machine is left: {known}" if found else "no machine is left after --exclude")
    if options["user"]:
        left = [host if host.user else dataclasses.replace(host, user=options["user"]) for host in left]
    return left


@contextlib.asynccontextmanager
async def provisioned(fleet: Fleet, spec: str, machines: int | None) -> AsyncIterator[list[Host]]:
    """The machines of a fleet, for as long as they are needed."""
    import asyncio

    from fanout.cli.interrupts import cancel_tidily
    from fanout.fleets.base import Request
    from fanout.report.folder import new_run_id
    from fanout.report.text import clean

    run = new_run_id()
    stack = contextlib.ExitStack()
    record = Record(run, fleet.name, spec, stack)
    fleet.record = record.made
    fleet.say = lambda text: click.echo(f"fanout: {clean(text)}", err=True)
    cancel_tidily()
    try:
        hosts = await fleet.provision(Request(run, machines), lambda done, total: None)
        if not hosts:
            raise FleetError(f"the fleet {spec} has no machines")
        record.hosts(hosts)
        yield hosts
    finally:
        try:
            async with asyncio.timeout(fleet.release_timeout):
                await fleet.release()
        except (FanoutError, OSError, TimeoutError) as error:
            why = str(error) or f"it took longer than {fleet.release_timeout:g} s"
            raise FanoutError(f"the fleet {spec} was not released: {why}; `fanout down {run}` tries again") from error
        else:
            record.over()
        finally:
            stack.close()


class Record:
    """What a fleet has made, in the folder of a run; there is none until it makes something."""

    def __init__(self, run: str, kind: str, spec: str, stack: contextlib.ExitStack) -> None:
        from fanout.root.holdings import Holdings

        self._run = run
        self._spec = spec
        self._stack = stack
        self._folder: RunFolder | None = None
        self._holdings = Holdings(run, kind)

    def made(self, made: Mapping[str, Any] | None) -> None:
        from fanout.report.folder import RunFolder

        if self._folder is None:  # without the command: it may hold secrets
            command = click.get_current_context().command_path
            self._folder = self._stack.enter_context(RunFolder(self._run, scenario=command, fleet=self._spec))
        self._hold(made=made)

    def hosts(self, hosts: list[Host]) -> None:
        from fanout.root.machine import Machine

        if self._folder is not None:
            machines = [Machine(i, host, host.role or "") for i, host in enumerate(hosts)]
            self._hold(machines=machines, parents=[None] * len(hosts))

    def over(self) -> None:
        """Everything is given back."""
        from fanout.root.outcomes import RunOutcome, RunResult

        if self._folder is not None:
            self._hold(made=None)
            self._folder.finished(RunResult(self._run, click.get_current_context().command_path, RunOutcome.PASSED))

    def _hold(self, **changes: Any) -> None:
        assert self._folder is not None
        self._holdings = dataclasses.replace(self._holdings, **changes)
        self._folder.holds(self._holdings)


def settings(options: dict[str, Any]) -> Settings:
    from fanout.root.settings import CIPHER, KEX, Settings

    return Settings(
        run=f"exec-{os.getpid():x}-{os.urandom(3).hex()}", connect_timeout=options["connect_timeout"],
        handshakes=options["handshakes"], forward_agent=options["forward_agent"], keepalive=10.0,
        kex=options["kex"] or KEX, cipher=options["cipher"] or CIPHER)


def tree(machines: Machines, options: dict[str, Any], size: int = 0) -> Session:
    """A session over these machines, not connected yet; `size`: bytes that each of them will be sent."""
    from fanout.root import constants
    from fanout.root.machine import Machine
    from fanout.root.planner import plan
    from fanout.root.session import Session

    hosts = machines.hosts
    parents = plan(len(hosts), relays=options["relays"], depth=None, width=options["width"],
                   preferred=[i for i, host in enumerate(hosts) if host.relay], costs=constants.of(machines.fleet),
                   size=0 if all(host.here for host in hosts) else size).parents
    return Session([Machine(i, host, host.role or "") for i, host in enumerate(hosts)], parents, settings(options),
                   relay_key=machines.relay_key)
