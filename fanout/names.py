"""Folded node names, as ClusterShell's users know them: `node[1-200]`, `a[1-3,7]b[01-10]`, `n[0-10/2]`.

Entries are joined from left to right, without precedence: `,` or white space adds, `!` takes away, `&` keeps
what is in both.  `fold` is the inverse: `expand(fold(names))` holds the same names, for any names that
contain none of the characters this notation is made of.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fanout.errors import UsageError

MAX_NAMES = 1_000_000
"""Most names one text may stand for, counted before duplicates and differences are taken out."""
MAX_DIGITS = 18
"""Most digits of a number; a longer run of digits in a name is text, and is not folded."""
MAX_DIMENSIONS = 8
"""Only so many numbers of a name, its last ones, are folded: the time to fold grows with their square."""

_PART = re.compile(r"\s*(?:(?P<operator>[,!&])|(?P<word>(?:[^\s,!&\[\]]|\[[^\[\]]*\])+)|(?P<stray>.))", re.S)
_DIGITS = rf"([0-9]{{1,{MAX_DIGITS}}})"
_RANGE = re.compile(rf"{_DIGITS}(?:-{_DIGITS}(?:/{_DIGITS})?)?")
_NUMBER = re.compile(r"([0-9]+)")
_UNNAMEABLE = re.compile(r"[\s,!&\[\]]")


class _Range(NamedTuple):
    values: range
    digits: int
    """Numbers are filled with zeros to this length."""


def expand(text: str) -> list[str]:
    """The names a folded text stands for, in its order, each once; blank text stands for none.

    UsageError, with the position counted from 1, when it cannot be read or stands for more than MAX_NAMES.
    """
    if text and not _UNNAMEABLE.search(text):
        return [text]
    names: dict[str, None] = {}
    budget = MAX_NAMES
    for operator, word, position in _entries(text):
        pieces = _pieces(text, word, position)
        budget -= math.prod(sum(len(r.values) for r in p) for p in pieces if not isinstance(p, str))
        if budget < 0:
            raise _error(text, position, f"this makes more than {MAX_NAMES:,} names")
        entry = dict.fromkeys(map("".join, itertools.product(*map(_texts, pieces))))
        if operator == "!":
            names = {name: None for name in names if name not in entry}
        elif operator == "&":
            names = {name: None for name in names if name in entry}
        else:
            names.update(entry)
    return list(names)


def fold(names: Iterable[str]) -> str:
    """The names as one short text, in natural order, each once.

    Time grows with the number of names alone, whether they fold or not.  A full product of several numbers
    becomes one entry; what is not a full product becomes several, which together are right but perhaps not
    the fewest.  UsageError for a name that is empty or contains white space or one of `,!&[]`.
    """
    alike: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for name in dict.fromkeys(names):
        if not name or _UNNAMEABLE.search(name):
            raise UsageError(f"{name!r} cannot be folded: a name has no white space and none of ,!&[] in it")
        texts, numbers = _dissect(name)
        alike[texts].append(numbers)
    entries: list[str] = []
    for texts in sorted(alike):
        entries += _fold_alike(texts, alike[texts])
    return ",".join(entries)


def _entries(text: str) -> Iterator[tuple[str, str, int]]:
    """(operator before it, word, index of the word) for each entry."""
    operator, at = "", 0
    first = True
    for match in _PART.finditer(text.rstrip()):
        kind, position = match.lastgroup, match.start(match.lastindex or 0)
        if kind == "word":
            yield operator or ",", match["word"], position
            operator, first = "", False
        elif kind == "stray":
            what = "'[' is never closed" if match["stray"] == "[" else "']' closes nothing"
            raise _error(text, position, what)
        elif operator or first:
            raise _error(text, position, f"a name is missing before {match['operator']!r}")
        else:
            operator, at = match["operator"], position
    if operator:
        raise _error(text, at, f"a name is missing after {operator!r}")


def _pieces(text: str, word: str, position: int) -> list[str | list[_Range]]:
    """A word as its plain texts and its brackets, in order."""
    pieces: list[str | list[_Range]] = []
    for index, piece in enumerate(re.split(r"[\[\]]", word)):
        pieces.append(list(_ranges(text, piece, position)) if index % 2 else piece)
        position += len(piece) + 1
    return pieces


def _ranges(text: str, bracket: str, position: int) -> Iterator[_Range]:
    """The inside of one bracket, which begins at `position` of the text."""
    for item in bracket.split(","):
        match = _RANGE.fullmatch(item.strip())
        if not match:
            raise _error(
                text,
                position,
                f"{item.strip()!r} is not a number or a range such as 1-10, 01-10 or 0-10/2"
                f" (of at most {MAX_DIGITS} digits)",
            )
        low, high, step = match[1], match[2] or match[1], int(match[3] or 1)
        digits = len(low) if low.startswith("0") else 1
        if high.startswith("0") and len(high) != digits:
            raise _error(text, position, f"{item.strip()!r} begins and ends with different numbers of digits")
        if int(high) < int(low):
            raise _error(text, position, f"{item.strip()!r} runs backwards")
        if step < 1:
            raise _error(text, position, f"{item.strip()!r} has a step of 0")
        yield _Range(range(int(low), int(high) + 1, step), digits)
        position += len(item) + 1


def _texts(piece: str | list[_Range]) -> Iterable[str]:
    if isinstance(piece, str):
        return (piece,)
    return (str(value).zfill(digits) for values, digits in piece for value in values)


def _dissect(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts around a name's numbers, and the numbers: one text more than numbers."""
    parts = _NUMBER.split(name)
    fixed = max(0, len(parts) - 1 - 2 * MAX_DIMENSIONS)
    for index in range(1, len(parts), 2):
        if len(parts[index]) > MAX_DIGITS:
            fixed = index + 1
    parts[: fixed + 1] = ["".join(parts[: fixed + 1])]
    return tuple(parts[::2]), tuple(parts[1::2])


def _fold_alike(texts: tuple[str, ...], names: list[tuple[str, ...]]) -> Iterator[str]:
    """Folds names that differ in their numbers only.

    One number at a time, the last first: names that are equal but for that number become one.
    """
    if len(names) == 1:
        yield _assemble(texts, names[0])
        return
    dimensions = len(texts) - 1
    lengths = [sorted({len(name[d]) for name in names if name[d][0] == "0"}) for d in range(dimensions)]
    padded: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    for name in names:
        digits = tuple(_padding(number, lengths[d]) for d, number in enumerate(name))
        padded[digits].append(tuple(map(int, name)))
    for digits, points in sorted(padded.items()):
        # Each box is the numbers still to be folded, and the texts of those that are.
        boxes: list[tuple[tuple[int, ...], tuple[str, ...]]] = [(point, ()) for point in sorted(points)]
        for d in reversed(range(dimensions)):
            merged: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = defaultdict(list)
            for numbers, folded in boxes:
                merged[numbers[:-1], folded].append(numbers[-1])
            boxes = [(rest, (_bracket(v, digits[d]), *folded)) for (rest, folded), v in merged.items()]
        for _, folded in boxes:
            yield _assemble(texts, folded)


def _assemble(texts: tuple[str, ...], numbers: tuple[str, ...]) -> str:
    return texts[0] + "".join(number + text for number, text in zip(numbers, texts[1:], strict=True))


def _padding(number: str, lengths: list[int]) -> int:
    """The length to which `number` is filled with zeros.

    `10` goes with `9` as well as with `09`: it is taken for padded where `lengths`, those of the numbers
    that do begin with a zero, allow it.
    """
    return max((length for length in lengths if length <= len(number)), default=1)


def _bracket(values: list[int], digits: int) -> str:
    """Ascending numbers without duplicates, as `7` or `[1-3,7]`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [
        str(low).zfill(digits) if low == high else f"{str(low).zfill(digits)}-{str(high).zfill(digits)}"
        for low, high in runs
    ]
    return texts[0] if len(values) == 1 else f"[{','.join(texts)}]"


def _error(text: str, position: int, what: str) -> UsageError:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return UsageError(f"{shown!r}, character {position + 1}: {what}")
