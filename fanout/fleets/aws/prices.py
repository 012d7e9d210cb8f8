"""What machines cost: an hour of each type, and what a run may come to and came to.

A machine's price is that of its type on demand, with its root disk and its public address.  That bounds the price of a
spot machine too, as no higher one is bid; what such a machine may be expected to cost is asked for beside it.  Traffic
is not counted.  US dollars throughout.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fanout.errors import FleetError
from fanout.fleets.aws.api import Api

GOOD_FOR = 7 * 86400.0  # s that a price is taken from the cache
ADDRESS = 0.005  # an hour, everywhere: https://aws.amazon.com/vpc/pricing/
DISK = 0.12 / 730  # a GiB and hour of gp3 where it is dear: https://aws.amazon.com/ebs/pricing/
LEAST = 60.0  # s that are paid for at least


async def hourly(api: Api, types: Sequence[str], given: Mapping[str, float], more: float) -> dict[str, float]:
    """Type -> price of a machine of it, `more` included.  FleetError where a price cannot be learned."""
    cache = _Cache(api.region)
    found = {}
    for kind in types:
        price = given.get(kind)
        if price is None:
            price = await asyncio.to_thread(cache.get, kind)
        if price is None:
            price = await _ask(api, kind)
            await asyncio.to_thread(cache.put, kind, price)
        found[kind] = price + more
    return found


async def spot(api: Api, types: Sequence[str], zones: Collection[str], more: float) -> dict[str, float]:
    """Type -> price of a spot machine of it now, where it is dearest of these zones, `more` included.

    Types that AWS names no such price of are left out.
    """
    found: dict[str, float] = {}
    now = {"StartTime": datetime.now(UTC), "ProductDescriptions": ["Linux/UNIX"], "InstanceTypes": list(types)}
    async for told in api.each("ec2", "describe_spot_price_history", "SpotPriceHistory", **now):
        if told["AvailabilityZone"] in zones:
            kind = told["InstanceType"]
            found[kind] = max(found.get(kind, 0.0), float(told["SpotPrice"]) + more)
    return found


def beside(disk: int, public: bool) -> float:
    """What a machine costs an hour beside its type."""
    return disk * DISK + (ADDRESS if public else 0.0)


def paid(seconds: float) -> float:
    """How many seconds are paid for a machine that lived for `seconds`."""
    return max(LEAST, seconds)


def money(dollars: float) -> str:
    """`$1.25`, `$0.0042`: to the cent, and small sums to two digits."""
    return f"${dollars:.2f}" if dollars >= 0.1 or not dollars else f"${dollars:.2g}"


async def _ask(api: Api, kind: str) -> float:
    wanted = {
        "instanceType": kind, "regionCode": api.region, "operatingSystem": "Linux", "tenancy": "Shared",
        "preInstalledSw": "NA", "capacitystatus": "Used",
    }  # fmt: skip
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    remedy = f'give it, as in [prices] "{kind}" = 0.05'
    try:
        answer = await api.call("pricing", "get_products", ServiceCode="AmazonEC2", Filters=filters)
    except FleetError as error:
        raise FleetError(f"the price of {kind} cannot be learned: {error}\n{remedy}") from None
    prices = [price for text in answer["PriceList"] for price in _on_demand(json.loads(text))]
    if not prices:
        raise FleetError(f"AWS names no price of {kind} in {api.region}: {remedy}")
    return max(prices)


def _on_demand(product: Mapping[str, Any]) -> list[float]:
    return [
        float(dimension["pricePerUnit"]["USD"])
        for term in product["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == "Hrs" and float(dimension["pricePerUnit"].get("USD", 0))
    ]


class _Cache:
    """A file that may be missing, broken or not writable: then prices are asked for."""

    def __init__(self, region: str) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self._path = Path(base).expanduser() / "fanout" / f"aws-prices-{region}.json"

    def get(self, kind: str) -> float | None:
        try:
            price, when = self._read()[kind]
            return float(price) if 0 <= time.time() - when < GOOD_FOR else None
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, kind: str, price: float) -> None:
        known = {**self._read(), kind: [price, time.time()]}
        beside = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(known))
            beside.replace(self._path)
        except OSError:
            return

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
