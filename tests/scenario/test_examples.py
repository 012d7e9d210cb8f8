"""The scenarios that users begin with do what they say, on local machines and on isolated hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.scenario.play import play
from tests.sshd import need_isolation, need_sshd

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FLEETS = ["local", pytest.param("lab", marks=pytest.mark.lab)]


async def example(name: str, fleet: str, **options: Any) -> Any:
    if fleet == "lab":
        need_sshd()
        need_isolation()
    result, seen = await play(SCENARIOS / name, fleet=fleet, **options)
    assert result.outcome == "passed", result.reason
    assert not seen.warnings
    return result, seen


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize(("n", "relays"), [(2, 0), (5, 2)])
async def test_quickstart(fleet: str, n: int, relays: int) -> None:
    _, seen = await example("quickstart.py", fleet, machines=n, relays=relays)
    [(title, [(_, said)])] = seen.shown
    assert title == "what the server said" and said.startswith("hello from ")


@pytest.mark.parametrize("fleet", FLEETS)
async def test_gossip(fleet: str) -> None:
    result, seen = await example("gossip.py", fleet, machines=6, relays=2, args={"share": "0.5"})
    assert result.metrics.keys() == {"discovery_s", "spread_s", "recovery_s"}
    assert "6 nodes agree again after 2 were restarted" in seen.reports[0].text


@pytest.mark.parametrize("fleet", FLEETS)
async def test_octez_like(fleet: str) -> None:
    result, seen = await example("octez_like.py", fleet, machines=5, relays=2)
    said = [(report.name, report.text) for report in seen.reports]
    assert said[0] == ({"local": "local-1", "lab": "lab-002"}[fleet], "injected an operation at level 3")
    assert said[1:] == [("root", "5 nodes have followed the chain to level 3")]
    assert result.metrics["peers"]["count"] == 5 and result.metrics["peers"]["min"] == 5
    assert not seen.logs, "what daemons print stays on their machines"


@pytest.mark.parametrize(("fleet", "generators"), [("local", 20), pytest.param("lab", 6, marks=pytest.mark.lab)])
async def test_load(fleet: str, generators: int) -> None:
    roles = {"server": 1, "generator": generators}
    result, _ = await example("load.py", fleet, machines=None, roles=roles, relays=2, args={"requests": "20"})
    latency = result.metrics["latency"]
    assert latency["count"] == 20 * generators and latency["error"] == 0.01
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
    assert result.metrics["skew"]["max"] < 2000


@pytest.mark.parametrize("fleet", FLEETS)
async def test_rolling(fleet: str) -> None:
    result, _ = await example("rolling.py", fleet, machines=5, relays=1)
    assert 3 <= result.metrics["least_up"]["min"] <= 4
