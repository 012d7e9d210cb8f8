"""`fanout version`."""

from __future__ import annotations

import platform

import click

from fanout.version import __version__


@click.command("version", short_help="Print the version.")
def command() -> None:
    """Print the versions of fanout and of the Python that runs it."""
    click.echo(f"fanout {__version__}, Python {platform.python_version()}")
