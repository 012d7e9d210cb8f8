"""Finding a fleet by name: built in or of another package, and nothing more is imported than it needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from fanout import fleets
from fanout.errors import UsageError
from fanout.fleets import open_fleet
from fanout.fleets.hosts import HostsFleet
from fanout.fleets.local import LocalFleet

PROJECT = Path(__file__).parents[2]


def installed(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """As if packages with these fleets were installed."""
    points = metadata.EntryPoints(
        metadata.EntryPoint(name, value, fleets.ENTRY_POINTS) for name, value in values.items()
    )
    monkeypatch.setattr(metadata, "entry_points", lambda **params: points.select(**params))


def test_built_in_fleets() -> None:
    assert isinstance(open_fleet("local"), LocalFleet)
    hosts = open_fleet("hosts:n[1-2]:22")
    assert isinstance(hosts, HostsFleet)
    assert [(h.name, h.port) for h in hosts.hosts] == [("n1", 22), ("n2", 22)]


def test_the_built_in_fleets_are_those_of_the_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][fleets.ENTRY_POINTS] == fleets.BUILT_IN


def test_a_fleet_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, cloud="fanout.fleets.hosts:HostsFleet")
    assert isinstance(open_fleet("cloud:a"), HostsFleet)


def test_an_unknown_fleet_is_answered_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, cloud="cloud:Fleet")
    with pytest.raises(
        UsageError, match=r"there is no fleet 'nodes\.txt'; known are (\w+, )*cloud, exec, hosts, lab, local"
    ):
        open_fleet("nodes.txt")


@pytest.mark.parametrize("value", ["no_such_module_here:Fleet", "fanout.fleets.hosts:NoSuchFleet"])
def test_a_fleet_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    installed(monkeypatch, cloud=value)
    with pytest.raises(UsageError, match=f"--fleet cloud: {value} does not load"):
        open_fleet("cloud")


def test_a_built_in_fleet_loads_neither_the_others_nor_package_metadata() -> None:
    code = (
        "import sys; before = set(sys.modules); from fanout.fleets import open_fleet; open_fleet('local');"
        "new = set(sys.modules) - before;"
        "print(*sorted(new & {'fanout.fleets.hosts', 'fanout.fleets.lab', 'importlib.metadata', 'asyncio'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
