"""Numbers of bytes as people write them: `64MB`, `1.5KB`, `200`; K, M and G are powers of 1024."""

from __future__ import annotations

import re

from fanout.errors import UsageError

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)


def parse_size(value: str | int) -> int:
    """Bytes.  UsageError for what is no size."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise UsageError(f"{value!r} is not a number of bytes; write for example 64MB, 200KB or 4096")
    return int(float(match[1]) * UNITS[match[2].lower()])
