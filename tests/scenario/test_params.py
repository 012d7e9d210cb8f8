"""--arg becomes the types of the signature; what does not fit is told by name."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from fanout.errors import UsageError
from fanout.scenario.decorator import scenario
from fanout.scenario.params import bind


@scenario
async def typed(
    fleet: NotEvenImported,  # type: ignore[name-defined]  # noqa: F821  the fleet's own annotation is not looked at
    count: int,
    share: float = 0.5,
    loud: bool = False,
    label: str = "x",
    names: list[str] = [],  # noqa: B006
    ports: Optional[list[int]] = None,  # noqa: UP045
    limit: int | None = None,
    bare="y",  # type: ignore[no-untyped-def]
    by_default=3,
) -> None: ...


DEFAULTS = {
    "count": 1,
    "share": 0.5,
    "loud": False,
    "label": "x",
    "names": [],
    "ports": None,
    "limit": None,
    "bare": "y",
    "by_default": 3,
}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("share=1", 1.0),
        ("share=1e-3", 0.001),
        ("loud=yes", True),
        ("loud=False", False),
        ("label=a=b c", "a=b c"),
        ("label=none", "none"),
        ("names=a, b", ["a", "b"]),
        ("names=", []),
        ("ports=1,2", [1, 2]),
        ("ports=none", None),
        ("limit=7", 7),
        ("bare=7", "7"),
        ("by_default=7", 7),
    ],
)
def test_text_becomes_the_type_that_is_said(given: str, value: object) -> None:
    name, _, text = given.partition("=")
    assert bind(typed, {"count": "1", name: text}) == {**DEFAULTS, name: value}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs a value for 'count': give --arg count="),
        ({"count": "many"}, "--arg count=many: 'many' is not a whole number"),
        ({"count": "1.5"}, "not a whole number"),
        ({"count": "1", "share": "half"}, "not a number"),
        ({"count": "1", "loud": "maybe"}, "not true or false"),
        ({"count": "1", "ports": "1,x"}, "'x' is not a whole number"),
        ({"count": "1", "cuont": "2"}, "no such parameter; it has count, share"),
    ],
)
def test_what_does_not_fit_is_told(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bind(typed, given)


def test_parameters_that_text_cannot_give_are_told() -> None:
    async def table(fleet: Any, sizes: dict[str, int]) -> None: ...

    async def rest(fleet: Any, *names: str) -> None: ...

    async def misspelt(fleet: Any, count: Int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UsageError, match="'sizes' is of a type that --arg cannot give"):
        bind(scenario(table), {})
    with pytest.raises(UsageError, match=r"\*names.* cannot be given"):
        bind(scenario(rest), {})
    with pytest.raises(UsageError, match="type of 'count', Int"):
        bind(scenario(misspelt), {})


def test_a_scenario_without_parameters_says_so() -> None:
    async def plain(fleet: Any) -> None: ...

    with pytest.raises(UsageError, match="it has none"):
        bind(scenario(plain), {"x": "1"})
