"""The runs that this user's folders tell of: which still run, how the others ended, and what they hold.

What always holds: nothing here asks the network, or changes anything.  Whether a root lives is told by its lock, which
the kernel drops with the process; a number of a process may be another's by now.
"""

from __future__ import annotations

import enum
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanout.errors import FanoutError, UsageError
from fanout.report.folder import MACHINES, lock, runs_folder
from fanout.root.holdings import Holdings

ENDING = 30.0  # s that an agent has for its own end, amply
LOCK_WAIT = 1.0  # s; one that only looks has it for a moment


class State(enum.StrEnum):
    RUNNING = "running"
    ENDED = "ended"
    DIED = "died"
    """Its root is gone, and has not ended it."""


@dataclass(frozen=True)
class Run:
    path: Path
    id: str
    scenario: str
    fleet: str
    started: float
    """Seconds since the epoch."""
    pid: int
    """Of the root; only while it is running is it certain to be that."""
    state: State
    outcome: str
    """Empty unless it has ended."""
    ended: float | None
    """When it did."""
    holdings: Holdings | None
    """None: nothing had been made."""
    damaged: str = ""
    """Why what it holds cannot be told."""

    @property
    def leased(self) -> bool:
        """Whether agents that its end did not reach may still be there: they go with their lease."""
        return self.holdings is not None and bool(self.holdings.left) and (
            self.ended is None or time.time() < self.ended + self.holdings.lease + ENDING)

    @property
    def overdue(self) -> float:
        """Seconds for which machines have been kept too long."""
        until = self.holdings.kept if self.holdings is not None and self.holdings.made is not None else None
        return 0.0 if until is None else max(0.0, time.time() - until)


def every(folder: Path | None = None) -> list[Run]:
    """All runs in a folder, newest first; by default in that where runs go."""
    folder = folder or runs_folder()
    if not folder.is_dir():
        return []
    found = [run for path in folder.iterdir() if not path.is_symlink() and (run := read(path))]
    return sorted(found, key=lambda run: (run.started, run.id), reverse=True)


def find(name: str) -> Run:
    """By its id, the first letters of it, `last`, or the path of its folder.  UsageError when there is none such."""
    if "/" in name or Path(name).is_dir():
        run = read(Path(name).expanduser().resolve())
        if run is None:
            raise UsageError(f"{name} is not the folder of a run")
        return run
    runs = every()
    if name == "last" and runs:
        return runs[0]
    fitting = [run for run in runs if run.id.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{len(fitting)} runs begin with {name!r}: {', '.join(run.id for run in fitting[:5])}")
    raise UsageError(f"there is no run {name!r} in {runs_folder()}; `fanout ls` lists them, and a path is good too")


def read(path: Path) -> Run | None:
    """None for what is no folder of a run."""
    about = _json(path / "run.json")
    if about is None or not isinstance(about.get("run"), str):
        return None
    # The lock first: a run that ends meanwhile is seen as ended, not as died.
    alive = _locked(path)
    result = _json(path / "result.json")
    holdings, damaged = None, ""
    try:
        if (whole := _json(path / MACHINES)) is not None:
            holdings = Holdings.from_json(_trusted(path / MACHINES, whole))
    except UsageError as error:
        damaged = f"{path / MACHINES}: {error}"
    state = State.ENDED if result is not None else State.RUNNING if alive else State.DIED
    return Run(
        path, about["run"], str(about.get("scenario", "")), str(about.get("fleet", "")),
        float(about.get("started", 0.0)), int(about.get("pid", 0)), state, str((result or {}).get("outcome", "")),
        (path / "result.json").stat().st_mtime if result is not None else None, holdings, damaged)


def take(run: Run) -> int:
    """Its lock, as `folder.lock`, for as long as something is done about it.  FanoutError when its root lives."""
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            return lock(run.path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FanoutError(
                    f"run {run.id} still runs, or another `fanout down` is at work on it: end it first, by Ctrl-C or"
                    f" kill {run.pid}"
                ) from None
            time.sleep(0.02)  # a lock with a deadline cannot be waited for otherwise
        except OSError as error:
            raise FanoutError(f"{run.path} cannot be locked: {error.strerror}") from None


def _locked(path: Path) -> bool:
    try:
        os.close(lock(path, look=True))
    except BlockingIOError:
        return True
    except OSError:  # a folder that was made read-only, or by another user
        return False
    return False


def _trusted(path: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """UsageError when anyone else could have written it: it names machines to log in to, and a program to call."""
    state = path.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise UsageError(f"it is not yours alone: chown or chmod go-w {path}, if you trust it")
    return whole


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
