"""What `--fleet aws` may be told: a TOML file, `aws:FILE.toml`, or options, `aws:region=eu-west-1,types=t3.small`.

    region = "eu-west-1"                 # default: what AWS_REGION or ~/.aws/config says
    types = ["t3.small", "t3a.small"]    # in order of preference
    ttl = "1h"
    max_cost = 5.0

    [tags]
    team = "storage"

    [prices]                             # US dollars an hour; default: asked of AWS
    "t3.small" = 0.0228

    [relays]
    count = 4                            # so many of the machines are of these types, and relay
    types = ["c7i.large"]

As options the same names stand before `=`, lists are joined by `+`, and tables are left to files.  Everything is
checked here; nothing is asked of AWS.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanout.durations import parse_duration, show
from fanout.errors import UsageError
from fanout.fleets import options

TTL_LEAST = 600.0  # s; booting takes one or two minutes, and logins end with the last five (systemd's /run/nologin)
TTL_MOST = 7 * 86400.0  # s
IDLE_LEAST = 60.0  # s
BOOT_SPREAD = 30.0  # s that the first machine may be up before the last one is launched, at least
TAGS_MOST = 40  # AWS takes 50 for a resource; some are ours


@dataclass(frozen=True)
class Spec:
    """Durations in seconds, money in US dollars, sizes in GiB."""

    region: str | None = None
    profile: str | None = None
    types: tuple[str, ...] = ("t3.small",)
    image: str | None = None
    """An AMI, or the path of a public SSM parameter that names one; None: the newest Ubuntu LTS."""
    subnets: tuple[str, ...] = ()
    """None named: the default VPC's, one a zone."""
    address: str = "public"
    """Which address the root reaches machines by, `public` or `private`."""
    root_address: str | None = None
    """Who may log in from outside the group, an address or network; None: what `checkip` sees us as."""
    checkip: str = "https://checkip.amazonaws.com"
    spot: bool = False
    disk: int | None = None
    """Of the root disk; None: the image's."""
    user: str = "ubuntu"
    python: str = "python3"
    ttl: float = 3600.0
    """How long a machine lives at most, from its launch."""
    idle: float = 900.0
    """How long a machine without an agent waits for one before it powers off."""
    ready_timeout: float = 600.0
    """How long machines have to boot."""
    quorum: float = 1.0
    """The share of machines that must be there."""
    max_cost: float = 10.0
    """The most that machines x price x ttl may come to."""
    tags: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    """Type -> price an hour; those that are lacking are asked of AWS."""
    relays: int = 0
    """How many of the machines are of `relay_types`, and preferred as relays."""
    relay_types: tuple[str, ...] = ()

    @property
    def all_types(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.types, *self.relay_types)))


def parse(text: str) -> Spec:
    """The spec that the text after `aws:` stands for.  UsageError, with the key, for the first thing wrong."""
    if "=" in text:
        source, given = f"--fleet aws:{text}", _options(text)
    elif text:
        source, given = text, _file(Path(text).expanduser())
    else:
        source, given = "--fleet aws", {}
    try:
        return _checked(given)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def _file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"--fleet aws:{path}: this file cannot be read: {error.strerror};"
            " write aws:FILE.toml, or options as in aws:region=eu-west-1"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def _options(text: str) -> dict[str, Any]:
    known = [key for key in _KEYS if key not in TABLES]
    given = options.parse(text.split(","), known, f"aws:{text}")
    return {key: _WORDS.get(key, str)(value) for key, value in given.items()}


def _checked(given: Mapping[str, Any]) -> Spec:
    taken: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _KEYS:
            raise UsageError(f"unknown key {key!r}; known are {', '.join(_KEYS)}")
        try:
            taken.update(_KEYS[key](value) if key == "relays" else {key: _KEYS[key](value)})
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
    spec = Spec(**taken)
    if spec.address == "private" and spec.root_address is None:
        raise UsageError(
            "address: private machines are reached from inside: say from where, as in root_address = \"10.0.0.0/16\""
        )
    if spec.idle < spec.ready_timeout + BOOT_SPREAD:
        raise UsageError(
            f"idle: {show(spec.idle)} is too short: the first machines up wait for the last ones, for the"
            f" ready_timeout, {show(spec.ready_timeout)}, and {show(BOOT_SPREAD)} more"
        )
    return spec


# One function a kind of value: what was given in, what the Spec has out.


def _text(pattern: str, what: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise UsageError(f"{value!r} is not {what}")
        return value

    return check


def _texts(pattern: str, what: str) -> Callable[[Any], tuple[str, ...]]:
    one = _text(pattern, what)

    def check(value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values:
            raise UsageError(f"{value!r} is not a list of at least one; each is {what}")
        return tuple(dict.fromkeys(one(each) for each in values))

    return check


def _number(least: float, most: float, whole: bool = False) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        kinds = int if whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"{value!r} is not a {'whole ' if whole else ''}number from {least:g} to {most:g}")
        return value if whole else float(value)

    return check


def _seconds(least: float, most: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"{value!r} is not a duration such as \"30m\"")
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            raise UsageError(f"{show(seconds)} is not from {show(least)} to {show(most)}")
        return seconds

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{value!r} is not true or false")
    return value


def _network(value: Any) -> str:
    try:
        return str(ipaddress.IPv4Network(value))
    except (ValueError, TypeError):
        raise UsageError(f"{value!r} is not an IPv4 address or network such as 203.0.113.7 or 10.0.0.0/16") from None


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > TAGS_MOST:
        raise UsageError(f"this is not a table of at most {TAGS_MOST} tags")
    for key, text in value.items():
        if key == "Name" or key.startswith(("fanout", "aws:")) or len(key) > 128:
            raise UsageError(f"{key!r}: tags named Name, fanout... and aws:... are not yours to give")
        if not isinstance(text, str) or len(text) > 256:
            raise UsageError(f"{key} = {text!r} is not a text of at most 256 characters")
    return value


def _prices(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise UsageError("this is not a table of types and US dollars an hour")
    price = _number(0.0, 1000.0)
    return {kind: price(each) for kind, each in value.items()}


def _relays(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != {"count", "types"}:
        raise UsageError("this is a table with count and types")
    return {"relays": _number(0, 10_000, whole=True)(value["count"]), "relay_types": _types(value["types"])}


_types = _texts(r"[a-z0-9-]{2,20}\.[a-z0-9-]{1,20}", 'an instance type such as "t3.small"')

TABLES = ("tags", "prices", "relays")
_KEYS: dict[str, Callable[[Any], Any]] = {
    "region": _text(r"[a-z]{2}(-[a-z]+)+-[0-9]+", 'a region such as "eu-west-1"'),
    "profile": _text(r"[^\s]{1,100}", "the name of a profile"),
    "types": _types,
    "image": _text(r"ami-[0-9a-f]{8,17}|/[A-Za-z0-9_./-]{1,500}", "an AMI (ami-...) or an SSM parameter (/aws/...)"),
    "subnets": _texts(r"subnet-[0-9a-f]{8,17}", "a subnet (subnet-...)"),
    "address": _text("public|private", "public or private"),
    "root_address": _network,
    "checkip": _text(r"https?://[^\s]+", "a URL that answers with the address of who asks"),
    "spot": _flag,
    "disk": _number(1, 16_384, whole=True),
    "user": _text(r"[a-z_][a-z0-9_-]{0,31}", "the name of a user"),
    "python": _text(r"[A-Za-z0-9_./-]+", "a path without spaces"),
    "ttl": _seconds(TTL_LEAST, TTL_MOST),
    "idle": _seconds(IDLE_LEAST, TTL_MOST),
    "ready_timeout": _seconds(10.0, 3600.0),
    "quorum": _number(0.01, 1.0),
    "max_cost": _number(0.0, 1e6),
    "tags": _tags,
    "prices": _prices,
    "relays": _relays,
}


def _as_number(text: str) -> Any:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text  # told what it should be, with all others


_WORDS: dict[str, Callable[[str], Any]] = {
    "types": lambda text: text.split("+"),
    "subnets": lambda text: text.split("+"),
    "spot": lambda text: {"true": True, "false": False}.get(text, text),
    "disk": _as_number,
    "quorum": _as_number,
    "max_cost": _as_number,
}
"""How an option's text becomes what TOML would have given."""
