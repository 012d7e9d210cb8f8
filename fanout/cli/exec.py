"""`fanout exec`: one command on many machines, now.  Options in, lines and an exit code out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.main import INTERRUPTED
from fanout.cli.selection import FLAT, Machines, on_machines, selection, settings
from fanout.cli.types import utf8
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.cli.printer import Printer

STDIN_MOST = 16 << 20
PER_RELAY = 64
UNREAD = 141  # as of what ends by SIGPIPE


@click.command("exec", short_help="Run one command on many machines.",
               context_settings={"allow_interspersed_args": False})  # as ssh: what follows COMMAND is its own
@selection(f"none up to {FLAT} machines", "Until it is given up on a machine, and killed there")
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
    come whole, as NAME: LINE, each to the stream it was written to; the last gets an end where it has none, and one
    longer than 1 MiB is broken.  On a terminal control characters are written out; to a pipe or file they go as they
    are.

    \b
    Exit code: the highest of
      0    it went well on every machine
      N    the command's own exit code; 128 + N for signal N
      124  it ran longer than --command-timeout
      255  a machine could not be reached, or was lost (the summary tells)
    at least 1 when what is printed cannot be written here; and 130 after
    Ctrl-C, 141 when whoever reads the lines is gone (as of `| head`): either
    ends the command on every machine.
    """
    if errors_only and form is None:
        form = "stream-errors"
    line = utf8(" ".join(words), "the command")
    stdin = read_stdin() if with_stdin else b""

    async def work(machines: Machines) -> int:
        import asyncio

        from fanout.cli.printer import Printer

        if any(host.local for host in machines.hosts):
            raise UsageError("exec goes over SSH, and the machines of --fleet local have none: take --fleet lab, or"
                             " `fanout shell --fleet local`")
        printer = Printer([host.name for host in machines.hosts], form or "stream", errors_only=errors_only,
                          prefix=not no_prefix, quiet=quiet)
        try:
            return await execute(machines, line, stdin, printer, options)
        except asyncio.CancelledError:  # by a second Ctrl-C
            printer.close(interrupted=True)
            raise

    ctx.exit(on_machines(options, work))


def read_stdin() -> bytes:
    data = sys.stdin.buffer.read(STDIN_MOST + 1)
    if len(data) > STDIN_MOST:
        raise UsageError(f"--stdin: more than {STDIN_MOST >> 20} MiB: ship a file instead")
    return data


def relay_count(asked: int | None, width: int | None, machines: int) -> int:
    """How many of the machines are relays; each runs the command too, and has at most `width` others."""
    share = PER_RELAY if width is None else width + 1
    if asked is None:
        return 0 if machines <= FLAT else -(-machines // share)
    if asked > machines:
        raise UsageError(f"--relays {asked}: relays are machines of the fleet, which has {machines}")
    if asked and width is not None and machines > asked * share:
        raise UsageError(f"--relays {asked} contradicts --width {width}: {machines} machines need"
                         f" {-(-machines // share)} relays")
    return asked


async def execute(machines: Machines, line: str, stdin: bytes, printer: Printer, options: dict[str, Any]) -> int:
    """Runs it; the exit code."""
    import asyncio

    from fanout.cli.interrupts import completed, reader_watched
    from fanout.root.oneshot import Flat, Job

    job = Job(line, stdin, options["connect_timeout"], options["command_timeout"])
    hosts = machines.hosts
    count = relay_count(options["relays"], options["width"], len(hosts))
    if count:
        from fanout.root.relayed import Relayed

        work: Any = Relayed(hosts, count, job, settings(options), printer, machines.relay_key)
    else:
        work = Flat(hosts, job, settings(options), printer)
    task = asyncio.ensure_future(work.run())
    printer.on_unread = task.cancel
    with reader_watched(1, printer.gone):
        whole = await completed(task)
    printer.close(interrupted=not whole)
    if whole:
        return printer.code
    return UNREAD if printer.unread else INTERRUPTED
