"""How what fanout makes is told from everything else in an account: by tags, set as it is made."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

FANOUT = "fanout"
"""On everything; its value is the format of the others."""
RUN = "fanout:run"
EXPIRES = "fanout:expires"
OWNER = "fanout:owner"
VERSION = "1"


def tags(run: str, owner: str, expires: float, more: Mapping[str, str]) -> list[dict[str, str]]:
    """As EC2 takes them; `expires` is in seconds since the epoch."""
    ours = {"Name": f"fanout {run}", FANOUT: VERSION, RUN: run, EXPIRES: iso(expires), OWNER: owner[:256]}
    return [{"Key": key, "Value": value} for key, value in {**more, **ours}.items()]


def specification(kinds: list[str], given: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": given} for kind in kinds]


def of(resource: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())}


def iso(when: float) -> str:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def when(text: str) -> float | None:
    """Seconds since the epoch; None for what is no such time."""
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return None
