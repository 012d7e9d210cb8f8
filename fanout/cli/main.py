"""The command `fanout`.  Parsing, printing and exit codes only; each subcommand is a module of its own.

What always holds: `fanout --help` and a mistyped option import nothing but click; an error that fanout raises
on purpose is one `fanout: error:` line and its exit code; any other exception is called a bug, which it is.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from typing import Any, NoReturn

import click

from fanout.errors import FanoutError
from fanout.version import __version__

COMMANDS = {
    "run": ("fanout.cli.run", "Run a scenario on a fleet."),
    "exec": ("fanout.cli.exec", "Run one command on many machines."),
    "copy": ("fanout.cli.copy", "Copy files and folders to many machines."),
    "fetch": ("fanout.cli.fetch", "Bring files of many machines here."),
    "shell": ("fanout.cli.shell", "A prompt over many machines."),
    "logs": ("fanout.cli.logs", "The logs of a run, while it goes on and afterwards."),
    "ls": ("fanout.cli.ls", "The runs there are, and what they still hold."),
    "down": ("fanout.cli.down", "End what a run has left, and give back its machines."),
    "check": ("fanout.cli.check", "Check scenarios without any machine."),
    "doctor": ("fanout.cli.doctor", "What would fail here or on a fleet, and the remedy."),
    "plan": ("fanout.cli.plan", "The tree for N machines, and what it would cost."),
    "bench": ("fanout.cli.bench", "Does the tree pay on a fleet? Flat beside trees, measured."),
    "reap": ("fanout.cli.reap", "Remove machines of runs whose time is over."),
    "lab": ("fanout.cli.lab", "Isolated hosts on this machine, to try things on."),
    "broker": ("fanout.cli.broker", "Lease machines to those who have no rights in the cloud."),
    "version": ("fanout.cli.version", "Print the version."),
}
"""Name -> the module that has the command as `command`, and its line in `--help`."""

INTERRUPTED = 130
YOUNG_MOST = 50_000  # objects made before Python looks for garbage: imports make as many, and nearly all of them stay
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What standard output answers when its reader, or the room for it, is gone."""


class Lazy(click.Group):
    """Imports the module of the command that is asked for, and no other."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        open_streams()
        if os.path.expanduser("~") == "~":  # noqa: PTH111 - that of Path raises an error instead
            # A user whom only a container knows, by number, is at home where Docker says so too.
            os.environ["HOME"] = "/"
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}; there are: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            refuse(error, ctx)

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command, and turns what it raises into text and an exit code."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            refuse(error, ctx)
        except FanoutError as error:
            click.echo(f"fanout: error: {error}", err=True)
            show_traceback()
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("fanout: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None and error.errno in UNWRITABLE:
                unwritten(error)
            click.echo(f"fanout: error: {type(error).__name__}: {error}", err=True)
            if not show_traceback():
                click.echo("This is a bug in fanout; FANOUT_DEBUG=1 shows where.", err=True)
            sys.exit(1)


def refuse(error: click.UsageError, ctx: click.Context) -> NoReturn:
    """In one line, as every other error; click takes four."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    where = (error.ctx or ctx).command_path
    click.echo(f"fanout: error: {error.format_message().rstrip('.')} (see {where} --help)", err=True)
    sys.exit(error.exit_code)


def open_streams() -> None:
    """Standard streams that were closed (`>&-`) lead nowhere; else the next socket or file would be taken for them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def unwritten(error: OSError) -> NoReturn:
    """What was to be shown could not be; a reader that is gone (`| head`) wants to hear no more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # Python's own last flush must not fail
    os.close(null)
    if error.errno != errno.EPIPE:
        click.echo(f"fanout: error: standard output cannot be written: {error.strerror}", err=True)
    show_traceback()
    sys.exit(1)


def show_traceback() -> bool:
    """Prints the exception at hand if tracebacks are wanted; `fanout run --debug` sets the same variable."""
    wanted = os.environ.get("FANOUT_DEBUG", "") not in ("", "0")
    if wanted:
        import traceback

        traceback.print_exc()
    return wanted


@click.command(
    "fanout",
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="fanout %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Write a scenario as plain Python; run it on a thousand machines through a tree of SSH relays.

    \b
    Try one here, without SSH:
      fanout run scenarios/quickstart.py
    On sixty isolated hosts of this machine (as root), behind four relays:
      fanout run scenarios/gossip.py --fleet lab -n 60 --relays 4
    On machines of your own:
      fanout run scenarios/gossip.py --fleet hosts:nodes.txt
      fanout run scenarios/gossip.py --fleet 'hosts:node[1-40],db[1-3]'
    One command, without a scenario:
      fanout exec -w 'node[1-40]' -- uptime

    \b
    Exit codes: 0 passed, 1 failed, 2 bad usage or a scenario that does not load,
    3 no fleet, 130 interrupted.  Those of exec, copy and fetch are in their --help.

    \b
    Completion of commands and options in your shell:
      bash   eval "$(_FANOUT_COMPLETE=bash_source fanout)"     in ~/.bashrc
      zsh    eval "$(_FANOUT_COMPLETE=zsh_source fanout)"      in ~/.zshrc
      fish   _FANOUT_COMPLETE=fish_source fanout | source      in ~/.config/fish/config.fish
    """
    gc.set_threshold(YOUNG_MOST)
    if os.environ.get("NO_COLOR"):  # rich heeds it, click does not
        ctx.color = False


if __name__ == "__main__":
    main()
