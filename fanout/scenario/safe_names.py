"""File names for names that are not ours: of machines, of processes."""

from __future__ import annotations

import re

NAME = 120  # characters of a file's name that are kept; file systems take 255 bytes
_ODD = re.compile(rb"[^A-Za-z0-9._@+=,-]|^\.")


class SafeNames:
    """File names for names from elsewhere: no separator, no dot in front, distinct on any file system.

    Bytes that are odd in a file's name become `%XX`; a name that is too long, or equals an earlier one when
    case is ignored, gets a number after a `~`.
    """

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def get(self, name: str) -> str:
        """Always the same for the same name."""
        if name not in self._given:
            raw = name.encode("utf-8", "surrogatepass")
            safe = _ODD.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii") or "%"
            safe, base, count = safe[:NAME], safe[:NAME], 1
            while safe.casefold() in self._taken:
                count += 1
                safe = f"{base}~{count}"
            self._taken.add(safe.casefold())
            self._given[name] = safe
        return self._given[name]
