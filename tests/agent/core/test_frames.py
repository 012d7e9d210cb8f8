"""Frames: the same out whatever the pieces in, and nothing held for a frame that will be refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import frames
from fanout.agent.core.codec import ProtocolError

FRAME = st.tuples(
    st.integers(0, 2), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40), st.binary(max_size=200)
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[i:j] for i, j in zip(at, at[1:], strict=False)]


@settings(deadline=None)
@given(sent=st.lists(FRAME, max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=20))
def test_any_chunking_gives_the_frames_that_were_sent(sent: list[frames.Frame], cuts: list[int]) -> None:
    decoder, got = frames.Decoder(), []
    for piece in pieces(b"".join(frames.encode(*frame) for frame in sent), cuts):
        got += decoder.feed(piece)
    assert got == sent
    assert not decoder._buffer


@settings(deadline=None)
@given(sent=st.lists(FRAME, min_size=1, max_size=4), missing=st.integers(1, 12))
def test_a_truncated_frame_never_comes_out(sent: list[frames.Frame], missing: int) -> None:
    data = b"".join(frames.encode(*frame) for frame in sent)
    assert list(frames.Decoder().feed(data[:-missing])) == sent[:-1]


@settings(deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_garbage_is_frames_or_a_protocol_error_and_never_held_beyond_a_frame(data: bytes, cuts: list[int]) -> None:
    decoder, outcomes = frames.Decoder(), []
    try:
        for piece in pieces(data, cuts):
            for frame in decoder.feed(piece):
                outcomes.append(frame)  # noqa: PERF402  what came before an error counts
    except ProtocolError:
        pass
    again = frames.Decoder()
    whole = []
    try:
        for frame in again.feed(data):
            whole.append(frame)  # noqa: PERF402
    except ProtocolError:
        pass
    assert outcomes == whole
    assert b"".join(frames.encode(*frame) for frame in whole) == data[: len(data) - len(again._buffer)]


@pytest.mark.parametrize("cls", [frames.CONTROL, frames.REPORT, frames.BULK])
def test_oversize_is_refused_by_the_header_alone(cls: int) -> None:
    most = frames.MAX_SIZE[cls]
    assert not list(frames.Decoder().feed(frames.HEADER.pack(most, cls, 16, 0, 1)))
    with pytest.raises(ProtocolError, match="more than class"):
        list(frames.Decoder().feed(frames.HEADER.pack(most + 1, cls, 16, 0, 1)))
    with pytest.raises(ValueError, match="at most"):
        frames.encode(cls, 16, 1, b"r", bytes(most))
    assert len(frames.encode(cls, 16, 1, b"", bytes(most))) == most + frames.HEADER.size


def test_an_unknown_class_and_a_route_beyond_its_frame_are_refused() -> None:
    with pytest.raises(ProtocolError, match="class 3"):
        list(frames.Decoder().feed(frames.HEADER.pack(0, 3, 16, 0, 1)))
    with pytest.raises(ProtocolError, match="route"):
        list(frames.Decoder().feed(frames.HEADER.pack(4, 0, 16, 5, 1)))


@settings(deadline=None)
@given(sent=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=60)), max_size=8))
def test_records_come_apart_as_they_were_joined(sent: list[tuple[int, bytes]]) -> None:
    body = b"".join(frames.record(*one) for one in sent)
    assert list(frames.records(body)) == sent


@settings(deadline=None)
@given(body=st.binary(max_size=100))
def test_garbage_as_records_is_a_protocol_error(body: bytes) -> None:
    try:
        found = list(frames.records(body))
    except ProtocolError:
        return
    assert b"".join(frames.record(*one) for one in found) == body
