"""Metrics on their way up: gathered, covered by batch numbers, and refused when they speak for others."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.agent.core import codec
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.delivery import Receiver
from fanout.agent.core.metrics import FLUSH, NAMES, MetricMerger, decode
from fanout.agent.core.sketch import Sketch
from fanout.root.measured import Measured


def test_values_are_gathered_and_leave_together_with_the_frames_they_came_in() -> None:
    child, relay, origin = MetricMerger(), MetricMerger(), (Receiver(), 1)
    for value in (1.0, 2.0):
        child.add(3, "m", "ms", "", value, 100.0)
    assert child.due() == 100.0 + FLUSH and child.flush(100.1) is None
    sent = child.flush(100.0 + FLUSH)
    assert sent is not None and child.due() is None
    relay.merge(sent[0], 0b1000, origin, 101.0)
    relay.add(0, "m", "ms", "", 4.0, 101.0)
    body, origins = relay.flush(102.0) or (b"", [])
    cover, metrics = decode(body, 0b1001)
    assert origins == [origin] and cover == {3: 1, 0: 1}
    assert metrics["m", "ms", ""].count == 3 and metrics["m", "ms", ""].total == 7.0


def test_a_message_that_comes_twice_or_in_parts_again_counts_once() -> None:
    part = Sketch()
    part.add(5.0)
    measured, name = Measured(), ("m", "", "")
    measured.take({1: 1, 2: 1}, {name: part})
    for cover in ({1: 1, 2: 1}, {1: 1}, {2: 1}):
        measured.take(cover, {name: part})
    assert measured.metrics[name].count == 1
    measured.take({1: 2}, {name: part})
    assert measured.metrics[name].count == 2


@pytest.mark.parametrize("body", [
    None, [], [[], [], []], [[[b"x", 1]], []], [[], [[["a", "b"], []]]], [[], [[["a", "b", "c"], [1, 2]]]],
    [[[b"\0\0\0\0\x02", 1]], []]])
def test_what_is_no_message_or_speaks_for_others_breaks_the_protocol(body: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(codec.pack(body), 0b1)


def test_names_are_bounded() -> None:
    merger = MetricMerger()
    for i in range(NAMES):
        merger.add(0, f"m{i}", "", "", 1.0, 0.0)
    with pytest.raises(ValueError, match="different metrics"):
        merger.add(0, "one more", "", "", 1.0, 0.0)
