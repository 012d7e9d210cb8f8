"""Plain data to bytes and back: msgpack, with every failure turned into one error.

Nothing that is decoded is executed; extension types are refused (but for msgpack's own timestamp, which is plain,
at the root), and so is nesting beyond msgpack's own limit.
"""

from __future__ import annotations

import msgpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ProtocolError(Exception):
    """The other side of a link broke the protocol; the text says how."""


def pack(value: Any, strange: Any = None) -> bytes:
    """TypeError, ValueError or OverflowError for what is not plain data; `strange` is called with it, and may raise."""
    packed: bytes = msgpack.packb(value, default=strange)
    return packed


def unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, strict_map_key=False, ext_hook=_refuse)
    except Exception as error:  # msgpack raises many kinds for bad input, RecursionError among them
        raise ProtocolError("a body that does not decode: %s" % (error or type(error).__name__)) from None


def fields(data: bytes, *kinds: Any) -> list[Any]:
    """A list of values of these types, as `isinstance` takes them, in this order."""
    values = unpack(data)
    if not isinstance(values, list) or len(values) != len(kinds) or not all(map(isinstance, values, kinds)):
        raise ProtocolError("a message of the wrong shape")
    return values


def _refuse(code: int, data: bytes) -> None:
    raise ProtocolError("extension type %d" % code)
