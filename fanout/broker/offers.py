"""What tenants can ask for: fleets that the operator has configured, by name.

On the command line `NAME=SPEC`; in a TOML file, with what the fleet itself does not know:

    [offers.small]
    fleet = "exec:/etc/fanout/small.sh"
    price = 0.12                # US dollars an hour, for each machine
    types = ["m7i.large"]
    regions = ["eu-west-1"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fanout.errors import UsageError
from fanout.fleets import open_fleet

UNFIT = {
    "local": "its machines are processes of the client's own",
    "hosts": "it would give the same machines to everyone",
    "broker": "a broker does not lease from another",
}
NAME = r"[a-z0-9][a-z0-9-]{0,62}"


@dataclass(frozen=True)
class Offer:
    name: str
    spec: str
    """What `--fleet` would say."""
    types: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    price: float | None = None

    async def completed(self) -> Offer:
        """With what the fleet itself says of its machines; what the operator has said comes first."""
        terms = await open_fleet(self.spec).terms()
        return replace(
            self,
            types=self.types or terms.types,
            regions=self.regions or terms.regions,
            price=terms.price if self.price is None else self.price,
        )


def from_text(text: str) -> Offer:
    """`NAME=SPEC`."""
    name, _, spec = text.partition("=")
    return _offer(name, {"fleet": spec}, f"--offer {text}")


def from_file(path: Path) -> list[Offer]:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"the offers in {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    offers = tables.pop("offers", None)
    if tables or not isinstance(offers, dict) or not all(isinstance(each, dict) for each in offers.values()):
        raise UsageError(f"{path}: it has tables [offers.NAME], and nothing else")
    return [_offer(name, table, f"{path}: [offers.{name}]") for name, table in offers.items()]


def by_name(offers: list[Offer]) -> dict[str, Offer]:
    """UsageError when there are none, or two of a name."""
    if not offers:
        raise UsageError("a broker needs something to offer: --offer NAME=FLEET, such as --offer lab=lab")
    found = {offer.name: offer for offer in offers}
    for offer in offers:
        if found[offer.name] is not offer:
            raise UsageError(f"there are two offers {offer.name!r}: give one of them another name")
    return found


def _offer(name: str, table: Mapping[str, Any], where: str) -> Offer:
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{where}: {name!r} cannot name an offer: use lower-case letters, digits and dashes")
    unknown = ", ".join(table.keys() - {"fleet", "types", "regions", "price"})
    if unknown:
        raise UsageError(f"{where}: unknown: {unknown}; known are fleet, types, regions and price")
    spec, price = table.get("fleet"), table.get("price")
    if not isinstance(spec, str) or not spec:
        raise UsageError(f"{where}: which fleet? Write NAME=FLEET, or fleet = \"...\" in a file")
    kind = spec.partition(":")[0]
    if kind in UNFIT:
        raise UsageError(f"{where}: {kind} cannot be leased: {UNFIT[kind]}")
    if price is not None and (type(price) not in (int, float) or not 0 <= price < 1e6):
        raise UsageError(f"{where}: price is US dollars an hour for each machine, such as 0.12")
    for each in ("types", "regions"):
        if not isinstance(table.get(each, []), list) or not all(isinstance(one, str) for one in table.get(each, [])):
            raise UsageError(f"{where}: {each} is a list of texts")
    open_fleet(spec)  # a bad spec is told now
    return Offer(name, spec, tuple(table.get("types", ())), tuple(table.get("regions", ())), price)
