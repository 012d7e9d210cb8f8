"""The Python files that travel with member functions: those of the scenario's folder, and which of them is meant."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from fanout.errors import UsageError

SIZE_MOST = 2 << 20
"""Bytes of all files."""
ENTRIES_MOST = 20_000
"""Entries of the folder that are looked at."""
NAMED = 5
"""Largest files that an error names."""

Member = Callable[..., Any]


class Code(NamedTuple):
    id: str
    """Of the content: what is on a machine already is not sent again."""
    files: dict[str, bytes]
    """By name, relative to the folder."""


class Place(NamedTuple):
    """Where a machine finds a function."""

    module: str
    function: str


def collect(folder: Path) -> Code:
    """All *.py files in and below the folder; hidden ones, virtual environments and caches are left out.

    UsageError when they are too large to travel.
    """
    files: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    entries = 0
    for place, folders, names in os.walk(folder):
        entries += len(folders) + len(names)
        if entries > ENTRIES_MOST:
            raise UsageError(
                f"{folder} holds more than {ENTRIES_MOST} files: for member functions, put the scenario in a folder "
                f"of its own, with the modules it needs"
            )
        folders[:] = sorted(name for name in folders if _travels(Path(place, name)))
        for name in sorted(names):
            path = Path(place, name)
            if name.endswith(".py") and not name.startswith(".") and path.is_file():
                relative = path.relative_to(folder).as_posix()
                sizes[relative] = path.stat().st_size
                if sum(sizes.values()) <= SIZE_MOST:
                    files[relative] = path.read_bytes()
    if sum(sizes.values()) > SIZE_MOST:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
        named = ", ".join(f"{name} ({sizes[name]} bytes)" for name in largest)
        raise UsageError(
            f"the Python files in {folder} have {sum(sizes.values())} bytes, and {SIZE_MOST} are the most that "
            f"travel with member functions; the largest: {named}.  Move the scenario to a folder of its own"
        )
    digest = blake2b(digest_size=12)
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return Code(digest.hexdigest(), files)


def _travels(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in ("__pycache__", "node_modules"):
        return False
    return not (folder / "pyvenv.cfg").exists()


def find(member: Member, folder: Path) -> Place:
    """UsageError for what a machine could not find again by its name."""
    if not inspect.isfunction(member):
        raise UsageError(f"each takes a function, not {member!r}")
    name = member.__qualname__
    if inspect.iscoroutinefunction(member) or inspect.isgeneratorfunction(member):
        raise UsageError(f"member {name} must be a plain function: it runs on the machine, without an event loop")
    if "<" in name:
        raise UsageError(f"member {name} must stand at the top of its file: machines find it by its name")
    path = Path(member.__code__.co_filename)
    try:
        relative = path.resolve().relative_to(folder)
    except ValueError:
        raise UsageError(
            f"member {name} is from {path}, which does not travel: write it in the scenario's folder, {folder}"
        ) from None
    parts = [*relative.parts[:-1], relative.stem]
    if parts[-1] == "__init__":
        parts.pop()
    if any("." in part for part in parts):
        raise UsageError(f"member {name} is from {relative}, which cannot be imported: rename it without the dot")
    return Place(".".join(parts), name)
