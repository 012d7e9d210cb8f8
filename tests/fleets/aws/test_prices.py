"""Prices: given, or asked of AWS once; and what is said of money."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from fanout.errors import FleetError
from fanout.fleets.aws import prices
from fanout.fleets.aws.api import Api


class Answers:
    """An Api that knows prices."""

    region = "eu-west-1"

    def __init__(self, *products: dict[str, Any]) -> None:
        self.products = products
        self.asked: list[str] = []

    async def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        fields = {each["Field"]: each["Value"] for each in parameters["Filters"]}
        assert (service, operation, fields["regionCode"]) == ("pricing", "get_products", "eu-west-1")
        self.asked.append(fields["instanceType"])
        return {"PriceList": [json.dumps(product) for product in self.products]}


def product(dollars: str, unit: str = "Hrs") -> dict[str, Any]:
    dimension = {"unit": unit, "pricePerUnit": {"USD": dollars}}
    return {"terms": {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}, "Reserved": {}}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fanout/aws-prices-eu-west-1.json"


async def hourly(api: Answers, **given: float) -> dict[str, float]:
    return await prices.hourly(cast(Api, api), ["t3.small"], given, 0.0)


async def test_a_price_is_asked_for_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Answers(product("0.0228"), product("0"), product("7", unit="Quantity"))
    assert await hourly(api) == await hourly(api) == {"t3.small": 0.0228}
    assert api.asked == ["t3.small"]
    monkeypatch.setattr(prices, "GOOD_FOR", 0.0)
    assert await hourly(api) == {"t3.small": 0.0228} and len(api.asked) == 2


async def test_a_price_that_was_given_is_not_asked_for() -> None:
    api = Answers()
    assert await prices.hourly(cast(Api, api), ["t3.small"], {"t3.small": 1.0}, 0.25) == {"t3.small": 1.25}
    assert not api.asked


@pytest.mark.parametrize("content", ["not json", "[]", '{"t3.small": 5}', '{"t3.small": ["a", "b"]}'])
async def test_a_cache_that_is_broken_is_no_cache(cache: Path, content: str) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    assert await hourly(Answers(product("0.5"))) == {"t3.small": 0.5}


async def test_no_price_is_an_error_with_the_remedy() -> None:
    with pytest.raises(FleetError, match=r'names no price of t3.small in eu-west-1: give it, as in \[prices\]'):
        await hourly(Answers())


@pytest.mark.parametrize(
    ("dollars", "text"), [(0.0, "$0.00"), (0.00123, "$0.0012"), (0.0228, "$0.023"), (12.345, "$12.35"), (3, "$3.00")]
)
def test_money_is_readable(dollars: float, text: str) -> None:
    assert prices.money(dollars) == text


def test_a_minute_is_paid_at_least() -> None:
    assert (prices.paid(3.0), prices.paid(61.0)) == (60.0, 61.0)
