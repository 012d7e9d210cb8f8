"""Merging: any order and grouping gives the same sets, nothing is lost, nothing is held beyond HOLD."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, machineset, merge
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.delivery import Receiver

KEY = st.builds(merge.key, st.integers(0, 3), st.integers(1, 4), st.sampled_from([b"", b"\0\0\0\1"]))
MACHINES = st.sets(st.integers(0, 12), min_size=1).map(machineset.of)
EVENT = st.tuples(KEY, st.sampled_from([b"\x00", b"\x01", b"\xc0"]), MACHINES)
EVENTS = st.lists(EVENT, max_size=20)


def union(events: list[tuple[bytes, bytes, int]]) -> dict[tuple[bytes, bytes], int]:
    found: dict[tuple[bytes, bytes], int] = {}
    for key, value, machines in events:
        found[key, value] = found.get((key, value), 0) | machines
    return found


def flushed(merger: merge.Merger, now: float) -> list[tuple[bytes, bytes, int]]:
    return [event for body, _ in merger.flush(now) for event in merge.decode(body)]


@settings(deadline=None)
@given(events=EVENTS, data=st.data())
def test_any_order_and_grouping_gives_the_same_union(
    events: list[tuple[bytes, bytes, int]], data: st.DataObject
) -> None:
    merger, out, now = merge.Merger(lambda: 0b1111111111111), [], 0.0
    merger.expect(1, machineset.of(range(13)))
    merger.expect(2, machineset.of([1, 2]))
    shuffled = list(data.draw(st.permutations(events)))
    while shuffled:
        take = data.draw(st.integers(1, len(shuffled)))
        merger.add(shuffled[:take], None, now)
        del shuffled[:take]
        now += data.draw(st.sampled_from([0.0, 0.01, 0.06]))
        if data.draw(st.booleans()):
            out += flushed(merger, now)
    out += flushed(merger, now + merge.HOLD)
    assert union(out) == union(events)
    assert merger.due() is None


@settings(deadline=None)
@given(events=EVENTS.filter(bool), expected=st.dictionaries(st.integers(0, 3), st.integers(0, 8191)))
def test_nothing_is_held_beyond_hold(events: list[tuple[bytes, bytes, int]], expected: dict[int, int]) -> None:
    merger = merge.Merger(lambda: 0b1111111111111)
    for call, machines in expected.items():
        merger.expect(call, machines)
    for i, event in enumerate(events):
        merger.add([event], None, 10.0 + i * 0.001)
    due = merger.due()
    assert due is not None
    assert due <= 10.0 + merge.HOLD
    assert union(flushed(merger, due)) == union(events)


def test_a_call_leaves_when_the_last_machine_has_spoken() -> None:
    merger, key = merge.Merger(lambda: 0b1111111111111), merge.key(7, 3)
    merger.expect(7, 0b111)
    for machine in range(3):
        assert merger.flush(1.0) == []
        merger.add([(key, b"\xc0", 1 << machine)], None, 1.0)
    assert flushed(merger, 1.0) == [(key, b"\xc0", 0b111)]


def test_a_call_does_not_wait_for_a_machine_that_is_gone() -> None:
    merger, key = merge.Merger(lambda: 0b1111111111111), merge.key(7, 3)
    merger.expect(7, 0b11)
    merger.add([(key, b"\xc0", 1)], None, 1.0)
    merger.gone(0b10)
    assert flushed(merger, 1.0) == [(key, b"\xc0", 1)]


def test_what_is_said_of_a_machine_last_is_sent_last() -> None:
    """That it is down, above all: whoever hears that expects nothing of it any more."""
    merger, down, done = merge.Merger(lambda: 0b1111111111111), merge.key(1, 2), merge.key(5, 3)
    merger.add([(down, b"\xa4lost", 0b01)], None, 0.0)
    merger.add([(done, b"\xc0", 0b10)], None, 0.0)
    merger.add([(down, b"\xa4lost", 0b10)], None, 0.0)
    said = [key for key, _, machines in flushed(merger, 1.0) if machines & 0b10]
    assert said == [done, down]


@settings(deadline=None)
@given(batches=st.lists(st.lists(EVENT, max_size=4), min_size=1, max_size=8), size=st.integers(0, 3))
def test_every_frame_that_came_in_is_settled_once_and_with_the_last_body(
    batches: list[list[tuple[bytes, bytes, int]]], size: int
) -> None:
    merger, receiver = merge.Merger(lambda: 0b1111111111111), Receiver()
    for number, batch in enumerate(batches, 1):
        padded = [(key, value + bytes(size * 100_000), machines) for key, value, machines in batch]
        merger.add(padded, (receiver, number), 0.0)
    bodies = merger.flush(1.0)
    assert [origins for _, origins in bodies[:-1]] == [[]] * max(0, len(bodies) - 1)
    if any(batches):
        assert bodies[-1][1] == [(receiver, number) for number in range(1, len(batches) + 1)]


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(1, 150_000), min_size=1, max_size=12))
def test_bodies_are_bounded_unless_one_event_is_larger(sizes: list[int]) -> None:
    merger = merge.Merger(lambda: 0b1111111111111)
    merger.add([(merge.key(i, 3), bytes(size), 1) for i, size in enumerate(sizes)], None, 0.0)
    for body, _ in merger.flush(1.0):
        assert len(body) < merge.FLUSH_BYTES + 1000


@settings(deadline=None)
@given(body=st.binary(max_size=60))
def test_garbage_as_events_is_a_protocol_error(body: bytes) -> None:
    with suppress(ProtocolError):
        merge.decode(body)


@pytest.mark.parametrize(
    "events",
    [None, 5, "abc", {1: 2}, [1], [[b"k", b"v"]], [["k", b"v", b""]], [[b"k", 3, b""]], [[b"k", b"v", 4]],
     [[1 << 40, b"v", b""]], [[b"k", [1, 2], b""]], [[b"k", b"v", b"123"]], [[b"k", b"v", [0, 0, 0, 0, 1]]]],
)
def test_events_of_the_wrong_shape_are_a_protocol_error(events: object) -> None:
    with pytest.raises(ProtocolError):
        merge.decode(codec.pack(events))


def test_a_key_comes_apart() -> None:
    assert merge.split_key(merge.key(70_000, 9, b"x")) == (70_000, 9, b"x")
    with pytest.raises(ProtocolError):
        merge.split_key(b"1234")


def test_what_is_remembered_is_bounded() -> None:
    merger = merge.Merger(lambda: 0b1111111111111)
    for call in range(merge.REMEMBERED * 2):
        merger.expect(call, 0b11)
        merger.add([(merge.key(call, 3), b"", 1)], None, 0.0)
    assert len(merger._expected) <= merge.REMEMBERED
    assert len(merger._missing) <= merge.REMEMBERED
