"""Text from machines, made safe to show: whatever a machine prints, it cannot steer the user's terminal.

What always holds: `clean` returns no control characters but tabs, nothing that reorders a line, and no
lone surrogates; `lines` returns no more than `MAX_LINES` lines of about `MAX_LINE` characters.
"""

from __future__ import annotations

import re

MAX_LINE = 2000  # characters shown of one line; the run's folder has all of it
MAX_LINES = 200  # lines shown of one text

# C0 and C1 controls without tab, line and paragraph separators, bidirectional overrides, surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """One line, with unsafe characters written as Python writes them: `\\x1b`, `\\u202e`."""
    return _UNSAFE.sub(lambda match: repr(match[0])[1:-1], text)


def lines(text: str) -> list[str]:
    """The lines of a text, cleaned and cut; at least one, without empty ones at the end."""
    found = text[: MAX_LINE * MAX_LINES].rstrip().split("\n", MAX_LINES)
    more = found[MAX_LINES:]
    shown = [cut(clean(line.rstrip("\r")), MAX_LINE) for line in found[:MAX_LINES]]
    return [*shown, "... (more lines, not shown)"] if more else shown


def cut(text: str, limit: int) -> str:
    """The text, or its first `limit` characters and a note of how many were left out."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more characters)"


def size(count: float) -> str:
    """Bytes for people: `812 B`, `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
