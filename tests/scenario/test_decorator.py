"""`@scenario` keeps what was asked for, and refuses what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.errors import UsageError
from fanout.scenario.decorator import scenario


async def body(fleet: Any) -> str:
    return f"ran on {fleet}"


async def test_a_scenario_is_still_callable() -> None:
    assert await scenario(body)("x") == "ran on x"


def test_what_is_asked_for_is_kept() -> None:
    made = scenario(machines={"boot": 5, "peer": 200}, ttl="2h", tags=["p2p"], name="restart", quorum=0.9)(body)
    assert (made.name, made.machines, made.roles) == ("restart", None, {"boot": 5, "peer": 200})
    assert (made.ttl, made.tags, made.quorum) == (7200.0, ("p2p",), 0.9)


def test_the_name_is_the_functions_by_default() -> None:
    assert scenario(machines=3)(body).name == scenario(body).name == "body"
    assert scenario(machines=3)(body).machines == 3


@pytest.mark.parametrize(
    "options",
    [
        {"machines": 0},
        {"machines": -1},
        {"machines": True},
        {"machines": "5"},
        {"machines": {}},
        {"machines": {"peer": 0}},
        {"machines": {"no role": 1}},
        {"ttl": "soon"},
        {"tags": "p2p"},
        {"quorum": 0},
        {"quorum": 1.1},
    ],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        scenario(**options)(body)


def test_a_plain_function_is_refused() -> None:
    with pytest.raises(UsageError, match="async def"):
        scenario(lambda fleet: None)  # type: ignore[arg-type,return-value]


def test_a_function_without_a_fleet_is_refused() -> None:
    async def empty() -> None: ...

    with pytest.raises(UsageError, match="the fleet"):
        scenario(empty)
