"""The run's folder: everything that is kept of a run, written as it comes.

    run.json                          who, what and when; written first
    machines.json                     what the run holds; there once anything is made, and brought up to date
    reports.jsonl                     every report, one JSON object a line
    machines/<name>/<process>.log     forwarded logs, byte for byte
    machines/<name>/<process>.times   ... and when they were printed: "from-byte seconds-since-the-epoch", a line each
    machines/<name>/collected/        logs brought whole at the end
    machines/<name>/files/            what `fetch` brought
    live                              while it goes on: a socket, for `fanout logs -f`
    result.json                       the result; there only when the run ended
    lock                              locked for as long as the root lives, by whatever way it ends
    key, known_hosts                  while machines are kept for the user: what lets them in (`keep.py`)

What always holds: a report or log is with the operating system when the call returns, so a crash of the
root loses none; the folder is the user's alone (0700); no name that a machine made up leads out of it.
fanout never deletes a folder: each is the user's to keep.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from fanout.errors import FanoutError, UsageError
from fanout.report.keep import write_login
from fanout.root.holdings import Holdings
from fanout.root.outcomes import Report, RunResult
from fanout.scenario.observer import Observer
from fanout.scenario.safe_names import SafeNames
from fanout.version import __version__

MACHINES, LOCK, REPORTS = "machines.json", "lock", "reports.jsonl"
LIVE = "live"  # the socket of a run that goes on, for `fanout logs -f`
MARK = 0.005  # s between two times that are noted of one log
FLUSH = 0.5  # s that they may stay in memory while more comes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OPEN_LOGS = 64  # logs, of two files each; the least recently written is closed first

_SECRET = re.compile(r"(?i)pass|secret|token|credential|key")
_PAIR = re.compile(r"((?:--\w+=)?[^=]*=).+", re.DOTALL)
_LOGIN = re.compile(r"://[^/@\s]*@")


def new_run_id() -> str:
    """`YYYYMMDD-HHMMSS-xxxx`, in UTC, so that runs sort by their start; safe as a host's or file's name."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def runs_folder() -> Path:
    """Where runs go when not told otherwise: `$XDG_STATE_HOME/fanout/runs`, below `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "fanout" / "runs"


def redact(argument: str) -> str:
    """An argument of the command line without what looks like a secret: `token=***`, `https://***@host`."""
    pair = _PAIR.fullmatch(argument)
    if pair and _SECRET.search(pair[1]):
        return f"{pair[1]}***"
    return _LOGIN.sub("://***@", argument)


class RunFolder(Observer):
    """Makes the folder, and writes down a run.  A context manager; errors name the path and a remedy."""

    def __init__(
        self, run: str, *, scenario: str, fleet: str, argv: Sequence[str] = (), path: Path | None = None
    ) -> None:
        """`path` is the run's folder itself, empty or new; by default one is made, and is `latest`."""
        self.path = (path or runs_folder() / run).absolute()
        self._machines = SafeNames()
        self._processes: dict[str, SafeNames] = {}
        self._logs: OrderedDict[tuple[str, str], _Log] = OrderedDict()
        self.complete = False
        """Whether the result is written."""
        with self._explained(self.path, FanoutError if path is None else UsageError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=path is not None)
            if any(self.path.iterdir()):
                raise UsageError(f"run folder {self.path} is not empty; name a new one, or delete this one")
            try:
                self._lock = lock(self.path)
            except BlockingIOError:
                raise UsageError(f"run folder {self.path} is that of a run that has just begun; name another") from None
            about = {
                "run": run,
                "scenario": scenario,
                "fleet": redact(fleet),
                "argv": [redact(argument) for argument in argv],
                "started": time.time(),
                "pid": os.getpid(),
                "fanout": __version__,
            }
            write_whole(self.path / "run.json", about)
            self._reports: BinaryIO = (self.path / REPORTS).open("ab", buffering=0)
            if path is None:
                self._link_latest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        os.close(self._lock)

    def close(self) -> None:
        """Closes the files; idempotent."""
        self._reports.close()
        while self._logs:
            self._logs.popitem()[1].close()

    def report(self, report: Report) -> None:
        record = {
            "time": report.time,
            "when": report.when,
            "machine": report.machine,
            "name": report.name,
            "seq": report.seq,
            "text": report.text,
            "fields": report.fields,
        }
        with self._explained(self.path / REPORTS):
            _write_all(self._reports, _json(record).encode() + b"\n")

    def machine(self, name: str) -> Path:
        """Where what is kept of a machine is; not made yet."""
        return self.path / "machines" / self._machines.get(name)

    def log(self, machine: str, process: str, data: bytes, when: float) -> None:
        folder = self._machines.get(machine)
        file = self._processes.setdefault(machine, SafeNames()).get(process)
        with self._explained(self.path / "machines" / folder / f"{file}.log"):
            self._open_log(folder, file).write(data, when)

    def holds(self, holdings: Holdings) -> None:
        with self._explained(self.path / MACHINES):
            write_whole(self.path / MACHINES, holdings.as_json())

    def kept(self, holdings: Holdings, key: str | None) -> None:
        with self._explained(self.path):
            write_login(self.path, holdings, key)

    def finished(self, result: RunResult) -> None:
        with self._explained(self.path / "result.json"):
            write_whole(self.path / "result.json", result.as_json())
        self.complete = True
        self.close()

    def _open_log(self, folder: str, file: str) -> _Log:
        key = (folder, file)
        if key in self._logs:
            self._logs.move_to_end(key)
            return self._logs[key]
        if len(self._logs) >= OPEN_LOGS:
            self._logs.popitem(last=False)[1].close()
        path = self.path / "machines" / folder
        path.mkdir(parents=True, exist_ok=True)
        log = self._logs[key] = _Log(path / file)
        return log

    def _link_latest(self) -> None:
        """Replaced in one step: `latest` is there at every moment, with runs that start at once too."""
        link = self.path.parent / f".latest-{self.path.name}"
        link.symlink_to(self.path.name)
        link.replace(self.path.parent / "latest")

    @contextlib.contextmanager
    def _explained(self, path: Path, kind: type[FanoutError] = FanoutError) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "free some space there" if error.errno in FULL else "make it yours to write to"
            why = error.strerror or error
            raise kind(f"cannot write {path}: {why}; {remedy} or choose another folder with --run-dir") from error


def lock(folder: Path, look: bool = False) -> int:
    """The descriptor that holds a run's lock, until it is closed or this process ends, however that happens.

    BlockingIOError when another process holds it; that may be one that only looks (`look`), for a moment.
    """
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if look else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def write_whole(path: Path, value: dict[str, Any]) -> None:
    """The file is there as a whole or not at all, and the user's alone."""
    draft = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(_json(value, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class _Log:
    """One log, and beside it the times; these are buffered, and what a crash costs of them is only the order."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.with_name(path.name + ".log").open("ab", buffering=0)
        self._times = path.with_name(path.name + ".times").open("a", encoding="ascii")
        self._at = self._file.tell()
        self._marked = 0.0
        self._flushed = time.monotonic()

    def write(self, data: bytes, when: float) -> None:
        if not self._marked <= when < self._marked + MARK:
            self._times.write(f"{self._at} {when:.3f}\n")
            self._marked = when
            if time.monotonic() > self._flushed + FLUSH:
                self._times.flush()
                self._flushed = time.monotonic()
        _write_all(self._file, data)
        self._at += len(data)

    def close(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._times.close()


def _write_all(file: BinaryIO, data: bytes) -> None:
    """An unbuffered write may take only a part, on a disk that is nearly full."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def result_text(result: RunResult) -> str:
    """What `result.json` holds, as text."""
    return _json(result.as_json(), indent=2)


def _json(value: Any, indent: int | None = None) -> str:
    """Strict JSON of anything: what JSON cannot say (bytes, NaN, odd keys) is said as text."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent)
    except (TypeError, ValueError):
        return json.dumps(_sayable(value), allow_nan=False, indent=indent)


def _sayable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_sayable(key)): _sayable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
