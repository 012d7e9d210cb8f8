"""Where shown lines go: two streams and, on a terminal, a block of status lines kept below them.

What always holds: all writing is done by one thread, so a terminal that is stopped (Ctrl-S, a pager) never
stops the event loop, and with it the fleet's lease.  What such a terminal cannot take is dropped beyond
`PENDING` lines, and counted.  rich is imported by that thread, and only for a live display.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from fanout.durations import show

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType
    from rich.live import Live

PENDING = 20_000  # lines that wait for a slow terminal
FRAME = 0.1  # s between two frames of a live display


@dataclass(frozen=True)
class Line:
    """One line to show.  `text` and `prefix` are clean already, and are never read as markup."""

    text: str
    prefix: str = ""
    style: str = ""
    """A rich style for the prefix, or for the whole line when there is none; plain output ignores it."""
    err: bool = False
    """To stderr; such lines are few, and are never dropped."""


@dataclass(frozen=True)
class Row:
    """One line of the status block."""

    name: str
    began: float | None = None
    """By `time.monotonic`; None: not yet."""
    seconds: float | None = None
    """How long it took; None: not over."""
    done: int = 0
    total: int = 0


class Printed:
    """Stands in for a standard stream: what is printed there is shown by whole lines, in its place among all others.

    Python's print writes a line in pieces, and another thread's line must not get between them.
    """

    def __init__(self, screen: Screen, stream: TextIO, *, err: bool) -> None:
        self._screen = screen
        self._stream = stream
        self._err = err
        self._rest = ""

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            if not self._screen.wait_to_put(Line(line, err=self._err)):
                self._stream.write(f"{line}\n")  # by one who kept this until now
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Whole lines do not wait, and a part of one has to."""

    def end(self) -> None:
        if self._rest:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:  # fileno, encoding, isatty ...
        return getattr(self._stream, name)


class Screen:
    """Puts lines out in the order given.  `close` waits for the last one, as any program's output does."""

    def __init__(self, out: TextIO, err: TextIO, *, live: bool) -> None:
        self.rows: tuple[Row, ...] = ()
        """The status block of a live display; replaced as a whole."""
        self._out: TextIO | None = out
        self._err: TextIO | None = err
        self._lines: list[Line] = []
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run_live if live else self._run_plain, name="fanout-screen", daemon=True
        )
        self._thread.start()

    def put(self, line: Line) -> None:
        with self._changed:
            if line.err or len(self._lines) < PENDING:
                self._lines.append(line)
                self._changed.notify()
            else:
                self._dropped += 1

    def wait_to_put(self, line: Line) -> bool:
        """As `put`, and waits where that would drop the line; False when the screen is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lines) < PENDING or self._closed)
            if not self._closed:
                self._lines.append(line)
                self._changed.notify()
            return not self._closed

    def close(self) -> None:
        """Idempotent.  Nothing is shown after it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _take(self, timeout: float | None) -> tuple[list[Line], bool]:
        """All that waits, once there is anything or `timeout` seconds passed; and whether it is the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed, timeout)
            lines, self._lines = self._lines, []
            self._changed.notify()  # one who waits to put
            if self._dropped:
                text = f"{self._dropped} lines are not shown: the terminal was too slow for them"
                lines.append(Line(text, prefix="warning: ", style="yellow", err=True))
                self._dropped = 0
            return lines, self._closed

    # Plain

    def _run_plain(self) -> None:
        closed = False
        while not closed:
            lines, closed = self._take(None)
            self._write(lines)

    def _write(self, lines: list[Line]) -> None:
        for index, line in enumerate(lines):
            stream = self._err if line.err else self._out
            if stream is None:
                continue
            text = f"{line.prefix}{line.text}\n"
            encoding = stream.encoding or "utf-8"
            try:
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                # A change of stream is flushed, so that both in one pipe keep their order.
                if index + 1 == len(lines) or lines[index + 1].err != line.err:
                    stream.flush()
            except (OSError, ValueError):
                self._lose(stream)

    def _lose(self, stream: TextIO) -> None:
        """The reader is gone (`| head`): the run goes on, and Python's last flush must not fail."""
        self._out = None if self._out is stream else self._out
        self._err = None if self._err is stream else self._err
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        except (OSError, ValueError):
            pass

    # Live

    def _run_live(self) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        console = RichConsole(file=self._err, highlight=False, markup=False, emoji=False)
        with Live(
            console=console,
            auto_refresh=False,
            transient=True,
            # A scenario's own `print` goes above the status block.
            redirect_stdout=self._shares_terminal(),
            redirect_stderr=True,
        ) as live:
            closed = False
            while not closed:
                lines, closed = self._take(FRAME)
                self._draw(console, live, lines, closed)
                if not closed:
                    time.sleep(FRAME)  # a burst of reports costs one frame, not one each

    def _shares_terminal(self) -> bool:
        """Whether stdout is a terminal too: the same one as stderr, so both go through the live display."""
        return self._out is not None and self._out.isatty()

    def _draw(self, console: RichConsole, live: Live, lines: list[Line], closed: bool) -> None:
        from rich.text import Text

        shared = self._shares_terminal()
        block = Text()
        for line in lines:
            if not (line.err or shared):
                continue
            block.append(line.prefix, line.style)
            block.append(f"{line.text}\n", "" if line.prefix else line.style)
        self._write([line for line in lines if not (line.err or shared)])
        try:
            if block:
                console.print(block, end="", soft_wrap=True)
            live.update(Text() if closed else self._status(), refresh=True)
        except OSError:
            pass  # the terminal is gone; the run goes on

    def _status(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=10)
        table.add_column(width=24)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, justify="right", style="dim")
        for row in self.rows:
            count = f"{row.done}/{row.total}" if row.total > 1 else ""
            if row.began is None:
                table.add_row(Text(" "), Text(row.name, "dim"))
            elif row.seconds is not None:
                table.add_row(Text("✓", "green"), Text(row.name), "", Text(count), Text(show(row.seconds)))
            else:
                spin = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(now / FRAME) % 10]
                bar = ProgressBar(total=row.total, completed=row.done, width=24) if row.total > 1 else ""
                elapsed = Text(show(now - row.began))
                table.add_row(Text(spin, "cyan"), Text(row.name, "bold"), bar, Text(count), elapsed)
        return table
