"""Programs of this machine that know what is to be found out."""

from __future__ import annotations

import subprocess

PATIENCE = 10.0  # s


def ask(argv: list[str]) -> tuple[int, str] | None:
    """Exit code, and all that it said; None: it is not there, or does not end."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout.decode("utf-8", "replace")
