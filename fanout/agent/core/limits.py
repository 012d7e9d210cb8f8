"""What programs and scenarios may hand to each other, the same for the root, members and the helper.  Pure.

Every function raises ValueError (or TypeError) with a text made for the one who called.
"""

from __future__ import annotations

from . import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VALUE_MOST = 64 << 10  # packed bytes of a signal's or topic's value, or of a report's fields
NAME_MOST = 200  # characters of a barrier, signal, topic or metric
UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))
PLAIN = "None, bool, int of 64 bits, float, str, bytes, and lists and dicts of these"


def name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MOST or not value.isprintable():
        raise ValueError("%.300r is no name: give 1 to %d printable characters" % (value, NAME_MOST))
    return value


def plain(value: Any, what: str) -> bytes:
    """Packed; `what` names it in the error."""
    try:
        return codec.pack(value, _strange)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError("%s is not plain data (%s): %s" % (what, PLAIN, error)) from None


def _strange(value: Any) -> None:
    """By its type: what it says of itself may be another on each machine, and equal errors are told once."""
    raise TypeError("it holds a value of the type %s" % type(value).__name__)


def value(value: Any, what: str) -> int:
    """Packed bytes of a value that may travel."""
    size = len(plain(value, what))
    if size > VALUE_MOST:
        raise ValueError("%s has %d bytes; %d are the most" % (what, size, VALUE_MOST))
    return size


def needed(size: int, count: int | None, quorum: float | None) -> int:
    """How many of `size` members: all, `count`, or the share `quorum`."""
    if count is not None and quorum is not None:
        raise ValueError("give count or quorum, not both")
    if quorum is not None:
        if not isinstance(quorum, (int, float)) or not 0 < quorum <= 1:
            raise ValueError("quorum %r: it is a share of the members, above 0 and up to 1" % (quorum,))
        return max(1, -int(-(size * quorum - 1e-9) // 1))  # 0.07 * 100 is 7, whatever floats say
    return size if count is None else whole(count)


def whole(count: Any) -> int:
    """How many are waited for."""
    if not isinstance(count, int) or count < 1:
        raise ValueError("count %r: give a whole number, 1 or more" % (count,))
    return count


def seconds(text: Any) -> float:
    """Of `60`, `"60"`, `"60s"`, `"250ms"`, `"2m"`, `"1h"`."""
    found: float | None = None
    if isinstance(text, str):
        for unit, factor in UNITS:
            if text.endswith(unit):
                text, found = text[: -len(unit)], factor
                break
    try:
        found = float(text) * (found or 1.0)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or not 0 <= found < 1e9:
        raise ValueError("%r is not a time: write for example 60, 60s, 250ms or 2m" % (text,))
    return found
