"""A link: two real ends and a wire.  Handshake first, urgent things first, and only real silence is silence."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, frames
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.link import (
    ACK_DELAY,
    CLOSED,
    DRIFT,
    GREETED,
    HEARTBEAT,
    NEW,
    OPEN,
    PATIENCE,
    SILENCE,
    WINDOW,
    Link,
)  # fmt: skip


def ends(now: float = 100.0) -> tuple[Link, Link]:
    """The parent's end and the child's, open, after the first pings."""
    parent, child = Link(False, now), Link(True, now)
    parent._ping_due, parent._early = now + HEARTBEAT, []
    parent.state = child.state = OPEN
    return parent, child


def carry(source: Link, target: Link, now: float, piece: int = 1 << 20) -> list[frames.Frame]:
    data, found = source.pull(1 << 24), []
    for at in range(0, len(data), piece):
        found += target.receive(data[at : at + piece], now)
    return found


def acknowledge(parent: Link, child: Link, now: float) -> None:
    """All that came is settled, and the child is told."""
    for cls in range(3):
        for number in range(parent.receiver(cls).acked + 1, parent._received[cls] + 1):
            parent.receiver(cls).settle(number)
    parent.tick(now, 0, None, bool)
    parent.tick(now + ACK_DELAY, 0, None, bool)
    carry(parent, child, now + ACK_DELAY)


# Handshake.


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("kind", [*frames.UPWARD, *frames.COMMANDS, frames.PING, frames.PONG, frames.ACK])
def test_nothing_is_said_before_the_handshake(up: bool, kind: int) -> None:
    for state in (NEW, GREETED):
        link = Link(up, 0.0)
        link.state = state
        with pytest.raises(ProtocolError, match="before the handshake"):
            list(link.receive(frames.encode(0, kind, 1, b"", codec.pack([0, 0, 0])), 0.0))


@pytest.mark.parametrize("up", [True, False])
def test_the_handshake_runs_one_way(up: bool) -> None:
    hello, welcome = (frames.encode(0, kind, 0, b"", b"") for kind in (frames.HELLO, frames.WELCOME))
    right, wrong = (welcome, hello) if up else (hello, welcome)
    assert len(list(Link(up, 0.0).receive(right, 0.0))) == 1
    with pytest.raises(ProtocolError):
        list(Link(up, 0.0).receive(wrong, 0.0))
    link = Link(up, 0.0)
    link.state = OPEN
    for frame in (right, wrong):
        with pytest.raises(ProtocolError):
            list(link.receive(frame, 0.0))


@pytest.mark.parametrize("kind", [*frames.COMMANDS, frames.PING, frames.HELLO])
def test_a_child_cannot_command(kind: int) -> None:
    parent, _ = ends()
    with pytest.raises(ProtocolError, match="not for this direction"):
        list(parent.receive(frames.encode(0, kind, 1, b"", codec.pack([0, 0, 0])), 100.0))


@pytest.mark.parametrize("kind", [*frames.UPWARD, frames.PONG, frames.WELCOME])
def test_a_parent_cannot_report(kind: int) -> None:
    _, child = ends()
    with pytest.raises(ProtocolError, match="not for this direction"):
        list(child.receive(frames.encode(0, kind, 1, b"", codec.pack([0, 0])), 100.0))


@pytest.mark.parametrize(("numbers", "bad"), [((1, 1), 1), ((1, 3), 3), ((2,), 2), ((0,), 0)])
def test_repeated_and_missing_numbers_are_refused(numbers: tuple[int, ...], bad: int) -> None:
    parent, _ = ends()
    data = b"".join(frames.encode(0, frames.EVENTS, number, b"", b"") for number in numbers)
    with pytest.raises(ProtocolError, match=f"frame {bad} where"):
        list(parent.receive(data, 100.0))


@pytest.mark.parametrize(
    ("cls", "kind"),
    [(cls, kind) for kind in sorted(frames.UPWARD) for cls in range(3) if cls != frames.CLASS[kind]],
)
def test_a_kind_travels_in_its_own_class_only(cls: int, kind: int) -> None:
    """Or logs would come without credits, and before control."""
    parent, _ = ends()
    with pytest.raises(ProtocolError):
        list(parent.receive(frames.encode(cls, kind, 1, b"", b""), 100.0))


NONSENSE = [None, 5, "ab", [], [1], ["a", "b", "c"], [None, None, None], {"a": 1}, [[], [], []], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("body", NONSENSE)
@pytest.mark.parametrize("kind", [frames.PONG, frames.ACK])
def test_nonsense_from_a_child_is_a_protocol_error(kind: int, body: Any) -> None:
    parent, _ = ends()
    with pytest.raises(ProtocolError):
        list(parent.receive(frames.encode(0, kind, 0, b"", codec.pack(body)), 100.0))


@pytest.mark.parametrize("body", NONSENSE)
@pytest.mark.parametrize("kind", [frames.PING, frames.ACK])
def test_nonsense_from_a_parent_is_a_protocol_error(kind: int, body: Any) -> None:
    _, child = ends()
    with pytest.raises(ProtocolError):
        list(child.receive(frames.encode(0, kind, 0, b"", codec.pack(body)), 100.0))


@settings(deadline=None)
@given(data=st.binary(max_size=100), up=st.booleans(), state=st.sampled_from([NEW, OPEN]))
def test_garbage_is_frames_or_a_protocol_error(data: bytes, up: bool, state: str) -> None:
    link = Link(up, 0.0)
    link.state = state
    with suppress(ProtocolError):
        list(link.receive(data, 0.0))


# What goes first.


def test_control_overtakes_reports_and_reports_overtake_bulk() -> None:
    parent, child = ends()
    for _ in range(3):
        child.send_up(frames.BULK, frames.LOGS, bytes(30_000), [])
    child.send_up(frames.REPORT, frames.REPORTS, b"report", [])
    child.send_up(frames.CONTROL, frames.EVENTS, b"event", [])
    kinds = [frame[1] for frame in carry(child, parent, 100.0)]
    assert kinds == [frames.EVENTS, frames.REPORTS, frames.LOGS, frames.LOGS, frames.LOGS]


def test_control_that_comes_late_waits_for_one_pull_only() -> None:
    parent, child = ends()
    for _ in range(5):
        child.send_up(frames.BULK, frames.LOGS, bytes(30_000), [])
    list(parent.receive(child.pull(1), 100.0))
    child.send(frames.CONTROL, frames.PONG, 0, b"", codec.pack([99.0, 100.0]))
    list(parent.receive(child.pull(1), 100.0))
    assert parent.error(100.0) == 0.5


def test_small_records_of_one_kind_leave_as_one_frame() -> None:
    parent, child = ends()
    for i in range(100):
        child.send_up(frames.REPORT, frames.REPORTS, frames.record(i, b"x"), [])
    (frame,) = carry(child, parent, 100.0)
    assert [source for source, _ in frames.records(frame[4])] == list(range(100))
    assert child.queued(frames.REPORT) == 0


@settings(deadline=None)
@given(
    sends=st.lists(st.tuples(st.sampled_from([(0, 16), (1, 17), (2, 18)]), st.integers(0, 40_000)), max_size=40),
    limit=st.integers(1, 100_000),
    piece=st.integers(1, 50_000),
)
def test_each_class_arrives_whole_and_in_order(
    sends: list[tuple[tuple[int, int], int]], limit: int, piece: int
) -> None:
    parent, child = ends()
    sent: dict[int, bytes] = {0: b"", 1: b"", 2: b""}
    for i, ((cls, kind), size) in enumerate(sends):
        body = i.to_bytes(2, "big") * (size // 2)
        sent[cls] += body
        child.send_up(cls, kind, body, [])
    came: dict[int, bytes] = {0: b"", 1: b"", 2: b""}
    now = 100.0
    for _ in range(200):
        now += 0.001
        data = child.pull(limit)
        for at in range(0, len(data), piece):
            for cls, _, _, _, body in parent.receive(data[at : at + piece], now):
                came[cls] += body
        if not data:
            acknowledge(parent, child, now)
            now += 1.0
            if not child.undelivered():
                break
    assert came == sent
    assert child.delivered()
    assert not child.undelivered()


# Windows.


@pytest.mark.parametrize(("cls", "kind"), [(frames.REPORT, frames.REPORTS), (frames.BULK, frames.LOGS)])
def test_a_window_stops_its_class_until_the_root_has_it(cls: int, kind: int) -> None:
    parent, child = ends()
    for _ in range(100):
        child.send_up(cls, kind, bytes(10_000), [])
    carry(child, parent, 100.0)
    in_flight = child._senders[cls].unacked_bytes
    assert WINDOW[cls] <= in_flight < WINDOW[cls] + (32 << 10)
    assert not child.pull(1)
    child.send_up(frames.CONTROL, frames.EVENTS, b"event", [])
    assert [frame[1] for frame in carry(child, parent, 100.0)] == [frames.EVENTS]
    acknowledge(parent, child, 100.0)
    assert len(carry(child, parent, 101.0)) > 5


def test_a_child_that_ignores_its_window_is_refused() -> None:
    """Or one machine could fill its relay's memory."""
    parent, _ = ends()
    with pytest.raises(ProtocolError, match="more than its window"):
        for number in range(1, 40):
            list(parent.receive(frames.encode(frames.BULK, frames.LOGS, number, b"", bytes(60_000)), 100.0))


@pytest.mark.parametrize(("rate", "trip", "grant", "least"), [
    (40e6, 0.1, 4 << 20, 20e6), (20e6, 0.05, 4 << 20, 16e6), (2e6, 0.02, 4 << 20, 1.6e6),
    (100e6, 0.001, 4 << 20, 80e6), (40e6, 0.1, 256 << 10, 0.0)])
def test_the_window_of_logs_and_files_follows_what_the_way_carries(
    rate: float, trip: float, grant: int, least: float
) -> None:
    """A long line is used; what is sent beyond what it carries, and urgent messages would wait behind, is little."""
    parent, child = ends(0.0)
    parent.grant = grant
    now = free = 0.0
    wire: list[tuple[float, int, Link, bytes]] = []
    order = itertools.count()
    came = waits = 0.0
    while now < 12.0:
        while child.queued(frames.BULK) < 64 << 10:
            child.send_up(frames.BULK, frames.LOGS, bytes(30_000), [])
        for source, target in ((child, parent), (parent, child)):
            while data := source.pull(1):
                free = max(free, now) + len(data) / rate if source is child else free
                heapq.heappush(wire, ((free if source is child else now) + trip / 2, next(order), target, data))
        waits = max(waits, free - now) if now > 6.0 else 0.0
        now, _, target, data = heapq.heappop(wire)
        for frame in target.receive(data, now):
            if frame[0] == frames.BULK:
                parent.receiver(frames.BULK).settle(frame[2])
                came += len(frame[4]) * (now > 6.0)
        parent.tick(now, 0, None, bool)
    assert child._senders[frames.BULK].window in range(WINDOW[frames.BULK], grant + 1)
    assert came / 6.0 > least
    assert waits < max(trip, 2 * WINDOW[frames.BULK] / rate)


def test_acknowledgements_wait_a_little_and_are_told_once() -> None:
    parent, child = ends()
    child.send_up(frames.CONTROL, frames.EVENTS, b"event", [])
    carry(child, parent, 100.0)
    parent.receiver(frames.CONTROL).settle(1)
    parent.tick(100.0, 0, None, bool)
    assert not parent.pull(1)
    due = parent.timeout()
    assert due == 100.0 + ACK_DELAY
    parent.tick(due, 0, None, bool)
    carry(parent, child, due)
    assert not child.undelivered()
    parent.tick(due + 0.1, 0, None, bool)
    assert not parent.pull(1)


def test_nothing_is_told_before_it_is_settled() -> None:
    parent, child = ends()
    child.send_up(frames.CONTROL, frames.EVENTS, b"one", [])
    child.send_up(frames.CONTROL, frames.EVENTS, b"two", [])
    carry(child, parent, 100.0)
    parent.receiver(frames.CONTROL).settle(2)
    for i in range(4):
        parent.tick(100.0 + i * 0.4, 0, None, bool)
    carry(parent, child, 101.2)
    assert [body for _, _, body, _ in child.undelivered()] == [b"one", b"two"]


def test_what_the_root_may_not_have_goes_to_the_next_parent_in_order() -> None:
    parent, child = ends()
    for i in range(3):
        child.send_up(frames.CONTROL, frames.EVENTS, b"sent %d" % i, [])
    carry(child, parent, 100.0)
    child.send_up(frames.CONTROL, frames.EVENTS, b"waiting", [])
    child.send(frames.CONTROL, frames.PONG, 0, b"", codec.pack([100.0, 100.0]))
    parent.receiver(frames.CONTROL).settle(1)
    acknowledged = codec.pack([1, 0, 0, 0])
    list(child.receive(frames.encode(0, frames.ACK, 0, b"", acknowledged), 100.0))
    assert [body for _, _, body, _ in child.undelivered()] == [b"sent 1", b"sent 2", b"waiting"]


# Time.


def beat(parent: Link, child: Link, seconds: float, now: float = 100.0) -> float:
    """Run both ends on time, the way a driver does."""
    end = now + seconds
    while True:
        due = parent.timeout()
        assert due is not None
        assert due > now, "a tick at the time that was asked for did nothing"
        now = due
        if now > end:
            return end
        assert parent.tick(now, 0, 0.0, bool) is None
        carry(parent, child, now)
        carry(child, parent, now)


@settings(deadline=None)
@given(start=st.floats(0, 1e7))
def test_a_living_child_is_never_given_up_and_ticks_make_progress(start: float) -> None:
    parent, child = ends(start)
    beat(parent, child, 60.0, start)


def test_a_silent_child_is_given_up_within_six_seconds() -> None:
    parent, child = ends()
    now = beat(parent, child, 9.0)
    reason = None
    while reason is None:
        due = parent.timeout()
        assert due is not None
        now = due
        assert now < 109.0 + 7.5
        reason = parent.tick(now, 0, None, bool)
    assert now > 108.0 + SILENCE
    assert "no sign of life" in reason


def test_a_child_that_is_vouched_for_is_borne_with_for_a_while_and_not_for_ever() -> None:
    parent, child = ends()
    now = heard = beat(parent, child, 9.0)
    asked: list[float] = []

    def vouch() -> bool:
        asked.append(now)
        return True

    reason = None
    while reason is None:
        due = parent.timeout()
        assert due is not None and due > now
        now = due
        reason = parent.tick(now, 0, None, vouch)
    assert heard + PATIENCE - 3.0 < now < heard + PATIENCE + 1.5
    assert heard + 2.0 < asked[0] < heard + 7.5 and len(asked) < 60  # not before it is silent, and not at every turn


def test_time_in_which_we_did_not_run_is_not_silence() -> None:
    parent, child = ends()
    now = beat(parent, child, 9.0)
    parent.timeout()
    assert parent.tick(now + 3600, 0, None, bool) is None
    assert parent.state != CLOSED


@pytest.mark.parametrize("heard_first", [True, False])
def test_after_a_pause_of_ours_a_dead_child_is_noticed_as_fast_as_ever(heard_first: bool) -> None:
    parent, child = ends()
    now = beat(parent, child, 9.0) + 3600
    parent.timeout()
    if heard_first:  # what came while we slept is read before the tick
        child.send(frames.CONTROL, frames.PONG, 0, b"", codec.pack([now, now]))
        carry(child, parent, now)
    woke = now
    while parent.tick(now, 0, None, bool) is None:
        due = parent.timeout()
        assert due is not None
        now = due
        assert now < woke + 2 * SILENCE


def test_the_first_pings_come_at_once_and_the_clock_is_told_as_soon_as_it_is_known() -> None:
    parent, child = Link(False, 100.0), Link(True, 100.0)
    parent.state = child.state = OPEN
    told, now = [], 100.0
    while now < 101.0:
        parent.tick(now, 0, 3.0, bool)
        told += [(now, codec.unpack(frame[4])[2]) for frame in carry(parent, child, now - 7.0)]
        carry(child, parent, now)
        parent.tick(now, 0, 3.0, bool)  # as a loop does after any input
        told += [(now, codec.unpack(frame[4])[2]) for frame in carry(parent, child, now - 7.0)]
        carry(child, parent, now)
        now = parent.timeout() or 0.0
    assert [round(at - 100.0, 3) for at, _ in told] == [0.0, 0.0, 0.3]
    assert [clock for _, clock in told] == [None, -4.0, -4.0]


def test_a_measurement_ages_so_that_a_newer_one_can_replace_it() -> None:
    parent, child = ends()
    for now, trip in ((100.0, 0.002), (101.0, 0.004), (102.0, 0.3)):
        child.send(frames.CONTROL, frames.PONG, 0, b"", codec.pack([now - trip, now - trip / 2]))
        carry(child, parent, now)
        assert parent.error(now) < 0.0021
    assert parent.error(200.0) == pytest.approx(0.001 + DRIFT * 100)
    child.send(frames.CONTROL, frames.PONG, 0, b"", codec.pack([199.996, 205.0]))
    carry(child, parent, 200.0)
    assert parent.error(200.0) == pytest.approx(0.002) and parent.offset == pytest.approx(5.002)


def test_the_clock_is_known_after_two_heartbeats() -> None:
    parent, child = ends()
    skew = -7.0
    told = []
    for i in range(4):
        now = 100.0 + i * HEARTBEAT
        parent.tick(now, 0, 3.0, bool)
        told += [codec.unpack(frame[4])[2] for frame in carry(parent, child, now + skew + 0.01)]
        carry(child, parent, now + 0.02)
    assert parent.offset == pytest.approx(skew)
    assert told[-1] == pytest.approx(3.0 + skew)


def test_a_closed_link_takes_nothing_more() -> None:
    parent, _ = ends()
    parent.state = CLOSED
    parent.send(frames.CONTROL, frames.PING, 0, b"", b"")
    assert not parent.pull(1)


def shapes() -> list[Callable[[Link], object]]:
    return [lambda link: link.pull(0), lambda link: link.timeout(), lambda link: link.tick(0.0, 0, None, bool)]


def test_a_new_link_says_nothing_and_wants_nothing() -> None:
    for up in (True, False):
        for ask in shapes():
            assert not ask(Link(up, 0.0))


def test_time_that_a_node_spends_on_its_own_work_is_no_silence_of_a_child() -> None:
    parent, _ = ends(100.0)
    assert parent.tick(100.1, 0, None, bool) is None
    assert parent.tick(108.0, 0, None, bool) is None  # the same turn goes on: nothing was read in between
    for _ in range(5):
        due = parent.timeout()
        assert due is not None
        said = parent.tick(due, 0, None, bool)
        if said is not None:
            break
    assert said is not None and "no sign of life" in said
