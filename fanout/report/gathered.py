"""What many machines printed, as lines with a prefix while it comes, or folded at the end.  Pure: bytes in, bytes out.

What always holds: a line is whole, of one machine; for a terminal, control characters are written out; otherwise
bytes stay exactly as they came, but that a last line without an end gets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fanout.names import fold
from fanout.report.text import clean, size

LINE_MOST = 1 << 20  # bytes of one line; what is longer is broken, behind a prefix of its own
KEPT = 256 << 20  # bytes of output kept of all machines together ...
KEPT_LEAST, KEPT_MOST = 64 << 10, 16 << 20  # ... and of each
DIFF_LINES = 2000  # lines of each side that are compared: the time grows with their product


def shown(line: bytes) -> bytes:
    """A line as a terminal may get it."""
    return clean(line.rstrip(b"\r").decode("utf-8", "backslashreplace").replace("\t", "    ")).encode()


class Lines:
    """One stream of one machine, cut into lines with a prefix."""

    def __init__(self, prefix: bytes, terminal: bool) -> None:
        self._prefix = prefix
        self._terminal = terminal
        self._rest: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> bytes:
        """The lines that are complete now."""
        at = data.rfind(b"\n") + 1
        out = b""
        if at:
            out = self._write(b"".join([*self._rest, data[: at - 1]]))
            self._rest, self._held = [], 0
            data = data[at:]
        if data:
            self._rest.append(data)
            self._held += len(data)
        return out + self.finish() if self._held > LINE_MOST else out

    def finish(self) -> bytes:
        """What is left, with an end."""
        rest, self._rest, self._held = b"".join(self._rest), [], 0
        return self._write(rest) if rest else b""

    def _write(self, text: bytes) -> bytes:
        lines = text.split(b"\n")
        if self._terminal:
            lines = [shown(line) for line in lines]
        return b"".join([self._prefix + line + b"\n" for line in lines])


@dataclass(frozen=True)
class Group:
    """Machines that printed the same, and ended alike."""

    names: tuple[str, ...]
    output: bytes
    end: str
    """How it ended where it did not end well, such as `exit 3`; empty for ok."""

    @property
    def label(self) -> str:
        return label(self.names)


def label(names: Sequence[str]) -> str:
    """Machines, and how many where they are several."""
    return f"{fold(names)} ({len(names)})" if len(names) > 1 else fold(names)


def alike(told: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Of (name, why): a line for each why, with all of whom it is told; the largest group first."""
    groups: dict[str, list[str]] = {}
    for name, why in told:
        groups.setdefault(why, []).append(name)
    for why, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield f"{label(names)}: {why}"


class Kept:
    """What one machine printed, both streams in the order they came, up to a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._room = most
        self.cut = 0

    def feed(self, data: bytes) -> None:
        part = data[: self._room]
        self._room -= len(part)
        self.cut += len(data) - len(part)
        if part:
            self._parts.append(part)

    def output(self) -> bytes:
        note = f"\n(and {size(self.cut)} more that were not kept)\n".encode() if self.cut else b""
        return b"".join(self._parts) + note


def room(machines: int) -> int:
    """Bytes kept of each of so many machines."""
    return max(KEPT_LEAST, min(KEPT_MOST, KEPT // max(1, machines)))


def grouped(results: Sequence[tuple[str, bytes, str]]) -> list[Group]:
    """(name, output, end) of each machine, folded; the largest group first, then by first name given."""
    alike: dict[tuple[bytes, str], list[str]] = {}
    for name, output, end in results:
        alike.setdefault((output, end), []).append(name)
    groups = [Group(tuple(names), output, end) for (output, end), names in alike.items()]
    return sorted(groups, key=lambda group: (-len(group.names), group.names))


def folded(groups: Sequence[Group], terminal: bool) -> bytes:
    """One line where the output is one line, else a heading and the output indented."""
    return b"".join(_folded(group, terminal) for group in groups)


def _folded(group: Group, terminal: bool) -> bytes:
    end = f" [{group.end}]" if group.end else ""
    head = f"{group.label}{end}:".encode()
    lines = group.output.removesuffix(b"\n").split(b"\n") if group.output else []
    if terminal:
        lines = [shown(line) for line in lines]
    if len(lines) < 2:
        return b" ".join([head, *lines]) + b"\n"
    return head + b"\n" + b"".join(b"  " + line + b"\n" for line in lines)


def diff(groups: Sequence[Group], terminal: bool) -> bytes:
    """The first group, which is the majority, in one line, and how each other differs from it."""
    if not groups:
        return b""
    import difflib

    most, *others = groups
    out = [_folded(Group(most.names, b"", most.end), terminal).removesuffix(b":\n")
           + (b" agree\n" if not others else b" are the majority\n")]
    reference = most.output.split(b"\n")[:DIFF_LINES]
    for group in others:
        out.append(f"{group.label}{f' [{group.end}]' if group.end else ''}:\n".encode())
        changes: Iterator[bytes] = difflib.diff_bytes(
            difflib.unified_diff, reference, group.output.split(b"\n")[:DIFF_LINES], n=1, lineterm=b"")
        for number, line in enumerate(changes):
            if number >= 2:  # the names of files
                out.append(b"  " + (shown(line) if terminal else line) + b"\n")
    return b"".join(out)
