"""`fanout exec`: one command on many machines, now.  Options in, lines and an exit code out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.main import INTERRUPTED
from fanout.cli.types import duration, relays
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.cli.printer import Printer
    from fanout.fleets.base import Host

STDIN_MOST = 16 << 20
FLAT = 256
"""Up to so many machines the root reaches each itself; beyond, relays pay for their start."""
PER_RELAY = 64


def selection(function: Any) -> Any:
    """The options that say which machines, and how they are reached: those of `exec` and `shell` alike."""
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


@click.command("exec", short_help="Run one command on many machines.",
               context_settings={"ignore_unknown_options": False})
@selection
@click.option("-b", "--fold", "form", flag_value="fold", help="At the end, equal outputs once: 'node[1-499]: ...'.")
@click.option("--diff", "form", flag_value="diff", help="At the end, how machines differ from the majority.")
@click.option("--errors-only", is_flag=True, help="Only what comes from machines where it failed, at the end.")
@click.option("--json", "form", flag_value="json", help="At the end, one JSON document.")
@click.option("-N", "--no-prefix", is_flag=True, help="Lines without the machine's name.")
@click.option("-I", "--stdin", "with_stdin", is_flag=True,
              help="Give each machine what this command reads on its standard input; else they read nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary of failures.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@click.pass_context
def command(
    ctx: click.Context, /, words: tuple[str, ...], form: str | None, errors_only: bool, no_prefix: bool,
    with_stdin: bool, quiet: bool, **options: Any,
) -> None:
    """Run one command on many machines at once, over plain SSH: a machine needs no Python.

    \b
    fanout exec -w 'node[1-500]' -- uptime
    fanout exec -w @hosts.txt -g db -b -- 'rpm -q postgresql | sort'
    fanout exec -w 'web[1-9]' --diff -- cat /etc/resolv.conf

    Words are joined by spaces and read by each machine's shell, as with ssh; quote what it must not read.  Lines
    come whole, as NAME: LINE, each to the stream it was written to.  On a terminal control characters are written
    out; to a pipe or file bytes go exactly.

    \b
    Exit code: the highest of
      0    it went well on every machine
      N    the command's own exit code; 128 + N for signal N
      124  it ran longer than --command-timeout
      255  a machine could not be reached, or was lost (the summary tells)
    and 130 after Ctrl-C, which ends the command on every machine.
    """
    hosts = chosen(options)
    import asyncio

    from fanout.cli.printer import Printer

    if errors_only and form is None:
        form = "stream-errors"
    printer = Printer([host.name for host in hosts], form or "stream", errors_only=errors_only, prefix=not no_prefix,
                      quiet=quiet)
    stdin = read_stdin() if with_stdin else b""
    try:
        code = asyncio.run(execute(hosts, " ".join(words), stdin, printer, options))
    except KeyboardInterrupt:
        printer.close(interrupted=True)
        ctx.exit(INTERRUPTED)
    ctx.exit(code)


def read_stdin() -> bytes:
    data = sys.stdin.buffer.read(STDIN_MOST + 1)
    if len(data) > STDIN_MOST:
        raise UsageError(f"--stdin: more than {STDIN_MOST >> 20} MiB: ship a file instead")
    return data


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


def relay_count(asked: int | None, machines: int) -> int:
    if asked is None:
        return 0 if machines <= FLAT else -(-machines // PER_RELAY)
    if asked > machines:
        raise UsageError(f"--relays {asked}: relays are machines of the fleet, which has {machines}")
    return asked


def settings(options: dict[str, Any]) -> Any:
    from fanout.root.settings import CIPHER, KEX, Settings

    return Settings(
        run=f"exec-{os.getpid():x}-{os.urandom(3).hex()}", connect_timeout=options["connect_timeout"],
        handshakes=options["handshakes"], forward_agent=options["forward_agent"], keepalive=10.0,
        kex=options["kex"] or KEX, cipher=options["cipher"] or CIPHER)


async def execute(hosts: list[Host], line: str, stdin: bytes, printer: Printer, options: dict[str, Any]) -> int:
    """Runs it; the exit code."""
    import asyncio
    import contextlib
    import signal

    from fanout.root.oneshot import Flat, Job

    job = Job(line, stdin, options["connect_timeout"], options["command_timeout"])
    count = relay_count(options["relays"], len(hosts))
    if count:
        from fanout.root.relayed import Relayed

        work: Any = Relayed(hosts, count, job, settings(options), printer)
    else:
        work = Flat(hosts, job, settings(options), printer)
    task = asyncio.ensure_future(work.run())
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        task.cancel()
        loop.remove_signal_handler(signal.SIGINT)  # a second one ends us at once

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    interrupted = True
    with contextlib.suppress(asyncio.CancelledError):
        await task
        interrupted = False
    printer.close(interrupted=interrupted)
    return INTERRUPTED if interrupted else printer.code
