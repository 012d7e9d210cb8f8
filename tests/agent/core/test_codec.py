"""The codec: plain data survives, anything else is one error."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(value=PLAIN)
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    assert codec.unpack(codec.pack(value)) == value


@settings(deadline=None)
@given(data=st.binary(max_size=64))
def test_garbage_is_a_value_or_a_protocol_error(data: bytes) -> None:
    try:
        codec.unpack(data)
    except codec.ProtocolError as error:
        assert str(error)


@settings(deadline=None)
@given(value=PLAIN, data=st.data())
def test_what_is_cut_short_or_continued_is_refused(value: object, data: st.DataObject) -> None:
    packed = codec.pack(value)
    at = data.draw(st.integers(0, len(packed) - 1))
    for broken in (packed[:at], packed + b"\0"):
        with pytest.raises(codec.ProtocolError):
            codec.unpack(broken)


@pytest.mark.parametrize("depth", [600, 2_000, 100_000])
def test_deep_nesting_is_refused_or_can_be_packed_again(depth: int) -> None:
    try:
        value = codec.unpack(b"\x91" * depth + b"\xc0")
    except codec.ProtocolError:
        return
    codec.pack(value)


def test_huge_claims_take_no_memory() -> None:
    for header in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"):
        with pytest.raises(codec.ProtocolError):
            codec.unpack(header)


@pytest.mark.parametrize("code", [-128, -2, 0, 5, 127])
def test_extension_types_are_refused(code: int) -> None:
    data = b"\xd6" + code.to_bytes(1, "big", signed=True) + b"\0\0\0\0"
    with pytest.raises(codec.ProtocolError):
        codec.unpack(data)


def test_what_is_not_plain_cannot_be_sent() -> None:
    for value in (object(), {1, 2}, 1 << 64, msgpack.ExtType):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            codec.pack(value)
