"""What machines may have missed: kept until they answer, within a bound, and what that bound costs is known."""

from __future__ import annotations

import pytest

from fanout.agent.core import frames
from fanout.root.outstanding import Outstanding


def filled() -> Outstanding:
    kept = Outstanding()
    for number, kind in ((3, frames.NETWORK), (4, frames.RUN), (5, frames.CONNECT), (6, frames.SPAWN)):
        kept.add(number, kind, 0b111, b"%d" % number)
    return kept


def test_what_came_after_the_last_command_is_sent_again_in_order_and_to_those_who_came() -> None:
    assert filled().after(4, 0b110) == [(4, frames.RUN, 0b110, b"4"), (6, frames.SPAWN, 0b110, b"6")], (
        "those below may lack 4, which the topmost had, but not the network")
    assert [entry[0] for entry in filled().after(2, 0b1)] == [3, 4, 6], "nobody is connected twice by an old command"


def test_who_has_answered_is_sent_nothing_again() -> None:
    kept = filled()
    kept.answered(4, 0b011)
    kept.answered(6, 0b111)
    assert kept.after(3, 0b111) == [(4, frames.RUN, 0b100, b"4")]
    kept.answered(4, 0b100)
    assert kept.after(3, 0b111) == [] and kept.unsure(0b111) == []


def test_beyond_the_bound_the_oldest_are_forgotten_and_it_is_known_who_may_have_missed_them(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outstanding, "MOST", 10)
    kept = Outstanding()
    for number in (1, 2, 3):
        kept.add(number, frames.RUN, 0b11, b"12345")
    assert [entry[0] for entry in kept.after(0, 0b11)] == [2, 3] and kept.unsure(0b10) == [1]
    kept.answered(1, 0b01)
    assert kept.unsure(0b01) == [] and kept.unsure(0b10) == [1]
    kept.answered(1, 0b10)
    assert kept.forgotten == {}
    kept.add(4, frames.RUN, 0b11, b"more than ten bytes")
    assert [entry[0] for entry in kept.after(0, 0b11)] == [4], "one command is kept however large"
