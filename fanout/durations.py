"""Lengths of time as people write them: `30s`, `5m`, `1h30m`, `250ms`, or a number of seconds.

Inside fanout a duration is always a float of seconds; text exists only at the edges.
"""

from __future__ import annotations

import math
import re

from fanout.errors import UsageError

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_BARE = re.compile(_NUMBER)
_PARTS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in UNITS))


def parse_duration(value: str | float) -> float:
    """Seconds, finite and not negative.  Text is a number of seconds or parts from the longest unit down.

    Raises UsageError for anything else.
    """
    seconds = _from_text(value.strip()) if isinstance(value, str) else _from_number(value)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        shown = value if len(str(value)) <= 40 else str(value)[:40] + "..."
        raise UsageError(f"{shown!r} is not a duration; write for example 30s, 5m, 1h30m, 250ms or 1.5")
    return seconds


def _from_number(value: float) -> float | None:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return None


def _from_text(text: str) -> float | None:
    if _BARE.fullmatch(text):
        return float(text)
    match = _PARTS.fullmatch(text)
    if not match or not text:
        return None
    return sum(float(number) * UNITS[unit] for unit, number in match.groupdict().items() if number)


def show(seconds: float) -> str:
    """The same for people, in about three digits: `250ms`, `1.5s`, `5m03s`, `1h30m`.  Can be parsed again."""
    if seconds < 0.9995:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}m"
