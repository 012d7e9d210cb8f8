"""Shows what machines print and how they end, in the form that was asked for; knows the exit code of it all."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from fanout.report.gathered import Kept, Lines, alike, diff, folded, grouped, room
from fanout.report.text import clean, plural
from fanout.root.oneshot import Ended
from fanout.root.outcomes import Outcome

UNREACHED = 255
TIMED_OUT = 124
UNWRITTEN = 1  # exit code, at least, when what is to be shown cannot be written here
CUT_SHORT = "interrupted"
FRAME = 0.1  # s between two looks of the progress


def exit_code(how: Ended) -> int:
    if how.code is not None:
        return how.code
    return TIMED_OUT if how.outcome == Outcome.TIMED_OUT else UNREACHED


def end(how: Ended) -> str:
    """In words; empty for one that went well."""
    if how.outcome == Outcome.OK:
        return ""
    if how.code is not None:
        return f"exit {how.code}"
    return f"{how.outcome}: {how.reason}" if how.reason else str(how.outcome)


def heading(how: Ended | None) -> str:
    """Beside what a machine printed; why it came to no end is in the summary.  None: it was interrupted."""
    if how is None:
        return CUT_SHORT
    return end(how) if how.code is not None else str(how.outcome)


class Printer:
    """`form`: stream (lines as they come), stream-errors, fold, diff or json.  Watches a one-shot."""

    def __init__(self, names: list[str], form: str, *, errors_only: bool, prefix: bool, quiet: bool,
                 out: BinaryIO | None = None, err: BinaryIO | None = None) -> None:
        self.code = 0
        """The highest so far."""
        self.unread = False
        """Whoever read the lines is gone, while commands were under way."""
        self.on_unread: Callable[[], object] = lambda: None
        self._names = names
        self._form = form
        self._errors_only = errors_only
        self._prefix = prefix
        self._quiet = quiet
        self._streams: dict[int, BinaryIO | None] = {1: out or sys.stdout.buffer, 2: err or sys.stderr.buffer}
        self._terminal = {number: stream is not None and stream.isatty() for number, stream in self._streams.items()}
        self._progress = self._terminal[2] and not quiet and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._due = 0.0
        self._lines: dict[tuple[int, int], Lines] = {}
        self._kept: dict[tuple[int, int], Kept] = {}
        self._ends: dict[int, Ended] = {}
        self._failed = 0
        self._closed = False

    # What a one-shot tells.

    def output(self, machine: int, stream: int, data: bytes) -> None:
        if self._form == "stream":
            if self._streams[stream] is None:
                return
            lines = self._lines.get((machine, stream))
            if lines is None:
                prefix = f"{self._names[machine]}: ".encode() if self._prefix else b""
                lines = self._lines[machine, stream] = Lines(prefix, self._terminal[stream])
            self._write(stream, lines.feed(data))
            return
        key = machine, stream if self._form in ("json", "stream-errors") else 1
        if key not in self._kept:
            self._kept[key] = Kept(room(len(self._names)))
        self._kept[key].feed(data)

    def ended(self, machine: int, how: Ended) -> None:
        self._ends[machine] = how
        self.code = max(self.code, exit_code(how))
        self._failed += how.outcome != Outcome.OK
        for stream in (1, 2):
            lines = self._lines.pop((machine, stream), None)
            if lines is not None:
                self._write(stream, lines.finish())
            if self._form == "stream-errors":
                kept = self._kept.pop((machine, stream), None)
                if kept is not None and how.outcome != Outcome.OK:
                    prefix = f"{self._names[machine]}: ".encode() if self._prefix else b""
                    shown = Lines(prefix, self._terminal[stream])
                    self._write(stream, shown.feed(kept.output()) + shown.finish())
        if self._progress and time.monotonic() >= self._due:
            self._draw()

    def gone(self) -> None:
        """Nobody reads standard output any more; where lines are shown as they come, nobody waits for the others."""
        stream, self._streams[1] = self._streams[1], None
        if stream is not None:
            nowhere(stream)
        if self._form.startswith("stream") and not self._closed and not self.unread:
            self.unread = True
            self.on_unread()

    # The end.

    def close(self, interrupted: bool = False) -> None:
        """What is told at the end; idempotent."""
        if self._closed:
            return
        self._closed = True
        for (_, stream), lines in self._lines.items():
            self._write(stream, lines.finish())
        self._erase()
        self._progress = False
        wanted: list[tuple[int, Ended | None]] = [
            (i, self._ends.get(i)) for i in range(len(self._names)) if i in self._ends or interrupted]
        if self._errors_only:
            wanted = [(i, how) for i, how in wanted if how is None or how.outcome != Outcome.OK]
        if self._form == "json":
            self._write(1, json.dumps([self._record(i, how) for i, how in wanted], indent=1).encode() + b"\n")
        elif self._form in ("fold", "diff"):
            ran = [(self._names[i], output, heading(how)) for i, how in wanted
                   if (output := self._output(i)) or (how is not None and how.code is not None)]
            show = folded if self._form == "fold" else diff
            self._write(1, show(grouped(ran), self._terminal[1]))
        if not self._quiet:
            self._summary()
            if interrupted:
                left = len(self._names) - len(self._ends)
                why = "nobody reads the output any more" if self.unread else "interrupted"
                self._say(f"{why}; the command was killed on {left} of {plural(len(self._names), 'machine')}")

    def _summary(self) -> None:
        for line in alike((self._names[machine], end(how)) for machine, how in sorted(self._ends.items())
                          if how.outcome != Outcome.OK and not (self._form == "fold" and how.code is not None)):
            self._say(line)

    def _say(self, text: str) -> None:
        self._write(2, f"fanout: {clean(text)}\n".encode("utf-8", "backslashreplace"))

    def _output(self, machine: int, stream: int = 1) -> bytes:
        kept = self._kept.get((machine, stream))
        return b"" if kept is None else kept.output()

    def _record(self, machine: int, how: Ended | None) -> dict[str, Any]:
        record: dict[str, Any] = {"name": self._names[machine], "outcome": CUT_SHORT, "exit": None, "reason": ""}
        if how is not None:
            record.update(outcome=str(how.outcome), exit=how.code, reason=how.reason)
        for stream, key in ((1, "stdout"), (2, "stderr")):
            data = self._output(machine, stream)
            try:
                record[key] = data.decode()
            except UnicodeDecodeError:
                record[f"{key}_base64"] = base64.b64encode(data).decode()
        return record

    # The terminal.

    def _write(self, number: int, data: bytes) -> None:
        if data and self._streams[number] is not None:
            self._erase()
            self._put(number, data)

    def _draw(self) -> None:
        if not self._closed:
            failed = f", {self._failed} failed" if self._failed else ""
            self._put(2, f"\r\x1b[K{len(self._ends)}/{len(self._names)} machines{failed}".encode())
            self._drawn = True
            self._due = time.monotonic() + FRAME

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = False
            self._put(2, b"\r\x1b[K")

    def _put(self, number: int, data: bytes) -> None:
        stream = self._streams[number]
        if stream is None:
            return
        try:
            stream.write(data)
            stream.flush()
        except (OSError, ValueError) as error:
            if number == 1 and isinstance(error, BrokenPipeError):
                self.gone()
                return
            # No machine is to blame: the commands go on.
            self._streams[number] = None
            nowhere(stream)
            if not isinstance(error, BrokenPipeError | ValueError):
                self.code = max(self.code, UNWRITTEN)
                name = "standard output" if number == 1 else "standard error"
                self._say(f"error: {name} cannot be written, the rest of it is lost: {error.strerror}")


def nowhere(stream: BinaryIO) -> None:
    """What is still to be written there is dropped; Python's own last flush must not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
