"""Every Python on this machine that the agent must run under."""

import os
import re
from pathlib import Path

SUPPORTED = [(3, minor) for minor in range(8, 14)]


def pythons() -> list[str]:
    """The paths of all interpreters 3.8 to 3.13: of pyenv, and of the system; by version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found: dict[Path, tuple[int, int]] = {}
    for path in (*pyenv.glob("versions/*/bin/python3.*"), *Path("/usr/bin").glob("python3.*")):
        match = re.fullmatch(r"python(\d+)\.(\d+)", path.name)
        if match and (version := (int(match[1]), int(match[2]))) in SUPPORTED:
            found.setdefault(path.resolve(), version)
    return [str(path) for path, _ in sorted(found.items(), key=lambda item: (item[1], str(item[0])))]
