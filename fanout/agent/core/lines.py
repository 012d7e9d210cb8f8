"""Bytes to lines, with a bound, and what is forwarded of them: the log policy of one process.  Pure.

Bytes are kept exactly.  A line longer than LINE_MOST is taken in pieces of that size.
Invariant: bytes in == forwarded + dropped + held, and held is 0 after `finish`.
"""

from __future__ import annotations

from _collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LINE_MOST = 64 << 10
TAIL_MOST = 1 << 20  # bytes kept for `tail:N`, whatever N


class Lines:
    """Cuts a stream into lines, newline included; the last may lack one."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = []
        for line in whole:
            lines += _pieces(line + b"\n")
        if len(self._rest) >= LINE_MOST:
            whole_size = len(self._rest) // LINE_MOST * LINE_MOST
            lines += _pieces(self._rest[:whole_size])
            self._rest = self._rest[whole_size:]
        return lines

    def finish(self) -> list[bytes]:
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    @property
    def held(self) -> int:
        return len(self._rest)


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= LINE_MOST:
        return [line]
    return [line[at : at + LINE_MOST] for at in range(0, len(line), LINE_MOST)]


def text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def groups(match: Any) -> list[str]:
    """What the groups of a pattern matched; the whole match where it has none."""
    return [text(group or b"") for group in match.groups() or (match.group(),)]


class LogPolicy:
    """`none`, `file`, `tail:N`, `match:REGEX` or `all`: what of a process's output travels to the root.

    `none` also keeps it out of the file on the machine.
    """

    def __init__(self, text: str, compile: Callable[[bytes], object] | None = None) -> None:
        """ValueError for a text that is no policy.  `compile` is `re.compile`, given where it is needed."""
        self.kind, _, argument = text.partition(":")
        takes_argument = self.kind in ("tail", "match")
        if (self.kind not in ("none", "file", "all") and not takes_argument) or bool(argument) != takes_argument:
            raise ValueError("log policy %r: use none, file, tail:N, match:REGEX or all" % text)
        self._tail: deque[bytes] = deque()
        self._tail_lines = 0
        self._tail_bytes = 0
        self._search = None
        if self.kind == "tail":
            if not (argument.isascii() and argument.isdigit()):
                raise ValueError("log policy %r: N in tail:N is a number of lines" % text)
            self._tail_lines = int(argument)
        elif self.kind == "match" and compile is not None:
            try:
                self._search = compile(argument.encode()).search  # type: ignore[attr-defined]
            except Exception as error:  # `re.error`, without the import
                raise ValueError("log policy %r: %s" % (text, error)) from None
        self.bytes_in = self.forwarded = self.dropped = 0

    @property
    def to_file(self) -> bool:
        return self.kind != "none"

    @property
    def by_line(self) -> bool:
        return self.kind in ("tail", "match")

    def feed(self, data: bytes, lines: list[bytes]) -> bytes:
        """What to forward now.  `lines` are the lines that `data` completed; only read where `by_line`."""
        self.bytes_in += len(data)
        out = b""
        if self.kind == "all":
            out = data
        elif self.kind == "match" and self._search is not None:
            search = self._search
            out = b"".join([line for line in lines if search(line)])
            self.dropped += sum(map(len, lines)) - len(out)
        elif self.kind == "tail":
            for line in lines:
                self._tail.append(line)
                self._tail_bytes += len(line)
                while len(self._tail) > self._tail_lines or self._tail_bytes > TAIL_MOST:
                    gone = len(self._tail.popleft())
                    self._tail_bytes -= gone
                    self.dropped += gone
        else:
            self.dropped += len(data)
        self.forwarded += len(out)
        return out

    def finish(self, lines: list[bytes]) -> bytes:
        """The process has ended; `lines` is what was left of an unfinished line."""
        out = self.feed(b"", lines)
        if self.kind == "tail":
            out = b"".join(self._tail)
            self._tail.clear()
            self._tail_bytes = 0
            self.forwarded += len(out)
        return out
