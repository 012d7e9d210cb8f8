"""Machine sets: Python's own sets are the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import machineset

IDS = st.sets(st.integers(0, 3_000) | st.integers(0, machineset.MAX_ID - 1), max_size=30)


@settings(deadline=None)
@given(ids=IDS)
def test_a_set_is_its_members(ids: set[int]) -> None:
    bits = machineset.of(ids)
    assert machineset.members(bits) == sorted(ids)
    assert machineset.count(bits) == len(ids)
    if ids:
        assert machineset.first(bits) == min(ids)
    assert bits == sum(machineset.single(machine) for machine in ids)


@settings(deadline=None)
@given(ids=IDS)
def test_packed_and_back(ids: set[int]) -> None:
    bits = machineset.of(ids)
    packed = machineset.pack(bits)
    assert machineset.unpack(packed) == bits
    if ids:
        assert len(packed) <= 5 + (max(ids) - min(ids) + 7) // 8


def test_one_machine_costs_five_bytes_whatever_its_id() -> None:
    for machine in (0, 7, 8, 70_000, machineset.MAX_ID - 1):
        assert len(machineset.pack(machineset.single(machine))) == 5


@settings(deadline=None)
@given(data=st.binary(max_size=40))
def test_garbage_is_a_set_below_the_limit_or_a_value_error(data: bytes) -> None:
    try:
        bits = machineset.unpack(data)
    except ValueError:
        return
    assert bits.bit_length() <= machineset.MAX_ID


def test_a_set_beyond_the_limit_is_refused() -> None:
    beyond = (machineset.MAX_ID >> 3).to_bytes(4, "big") + b"\1"
    with pytest.raises(ValueError, match="beyond"):
        machineset.unpack(beyond)
