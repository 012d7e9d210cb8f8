"""What was found, and the judgements that are the same here and on the machines."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

LITTLE, TOO_LITTLE = 1 << 30, 100 << 20  # bytes of free space: run logs fill a gigabyte soon; an agent needs some MB
STARTUPS = 10  # logins under way that sshd has unless it is told otherwise (MaxStartups)


class Level(enum.StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    level: Level
    topic: str
    text: str
    remedy: str = ""


def space(what: str, free: int) -> Finding:
    """`free`: bytes."""
    text = f"{free / 1e9:.1f} GB free {what}"
    if free < TOO_LITTLE:
        return Finding(Level.FAIL, "space", text, "make room there")
    if free < LITTLE:
        return Finding(Level.WARN, "space", text, "make room there: logs and files of a run take it")
    return Finding(Level.OK, "space", text)


def how_many(those: Sequence[object]) -> str:
    """In words."""
    return f"{len(those)} machine{'s' * (len(those) != 1)}"
