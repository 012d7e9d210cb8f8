"""Where machines come from; `open_fleet` makes the fleet that `--fleet` names.

A fleet is a subclass of `fleets.base.Fleet` under the entry-point group `fanout.fleets`.  Those of
fanout itself are known here as well: they work in a plain source tree, and only the one asked for is
imported, without the time that looking through installed packages takes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.fleets.base import Fleet

ENTRY_POINTS = "fanout.fleets"
BUILT_IN = {
    "local": "fanout.fleets.local:LocalFleet",
    "hosts": "fanout.fleets.hosts:HostsFleet",
    "lab": "fanout.fleets.lab:LabFleet",
    "exec": "fanout.fleets.script:ScriptFleet",
    "aws": "fanout.fleets.aws:AwsFleet",
    "broker": "fanout.fleets.broker:BrokerFleet",
}


def kind_of(name: str, asked: str) -> type[Fleet]:
    """The fleet of that name; UsageError, which tells what was asked for, when there is none or it does not load."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return cast("type[Fleet]", getattr(importlib.import_module(module), attribute))
    return cast("type[Fleet]", _installed(name, asked))


def open_fleet(spec: str) -> Fleet:
    """The fleet that `spec`, `NAME` or `NAME:TEXT`, asks for; nothing is provisioned yet.

    UsageError for an unknown name, one that cannot be loaded, or a text which that fleet does not take.
    """
    name, _, text = spec.partition(":")
    return cast("Callable[[str], Fleet]", kind_of(name, f"--fleet {spec}"))(text)


def _installed(name: str, asked: str) -> object:
    """The class of a fleet that another package brings."""
    from importlib import metadata  # tens of ms, which the built-in fleets need not pay

    found = metadata.entry_points(group=ENTRY_POINTS)
    for entry in found.select(name=name):
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{asked}: {entry.value} does not load: {error}") from error
    known = ", ".join(sorted(BUILT_IN.keys() | found.names))
    raise UsageError(
        f"{asked}: there is no fleet {name!r}; known are {known}"
        f" (a file or names of machines are given as hosts:FILE or hosts:NAMES)"
    )
