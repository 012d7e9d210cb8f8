"""Lines and log policies: no byte is made, lost or counted twice, however they come."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core.lines import LINE_MOST, TAIL_MOST, Lines, LogPolicy

TEXT = st.lists(st.sampled_from([b"a", b"ERROR", b"\n", b"\0", b"\xff", b"\r\n", b"b" * 20, b"x" * LINE_MOST]), max_size=20).map(b"".join)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)
POLICIES = ["none", "file", "all", "tail:0", "tail:1", "tail:3", "match:ERROR", "match:^b+"]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[i:j] for i, j in pairwise(at)]


def cut_into_lines(data: bytes, cuts: list[int]) -> list[bytes]:
    lines, found = Lines(), []
    for piece in pieces(data, cuts):
        found += lines.feed(piece)
        assert lines.held < LINE_MOST
    return found + lines.finish()


@settings(deadline=None)
@given(data=TEXT, cuts=CUTS)
def test_lines_are_the_bytes_cut_after_each_newline_whatever_the_pieces(data: bytes, cuts: list[int]) -> None:
    found = cut_into_lines(data, cuts)
    assert b"".join(found) == data
    assert all(found)
    assert found == cut_into_lines(data, [])
    expected = []
    for line in data.splitlines(keepends=True) if b"\r" not in data else re.findall(rb"[^\n]*\n|[^\n]+", data):
        expected += re.findall(rb"(?s).{1,%d}" % LINE_MOST, line)
    if not re.search(rb"[\x0b\x0c\x1c-\x1e\x85]", data):
        assert found == expected


def run(text: str, data: bytes, cuts: list[int]) -> tuple[LogPolicy, bytes]:
    policy, lines, out = LogPolicy(text, re.compile), Lines(), b""
    for piece in pieces(data, cuts):
        whole = lines.feed(piece) if policy.by_line else []
        out += policy.feed(piece, whole)
        held = policy._tail_bytes + lines.held
        assert policy.bytes_in == policy.forwarded + policy.dropped + held
        assert held <= TAIL_MOST + LINE_MOST
    out += policy.finish(lines.finish())
    return policy, out


@settings(deadline=None)
@given(text=st.sampled_from(POLICIES), data=TEXT, cuts=CUTS)
def test_bytes_in_are_forwarded_or_dropped_and_pieces_make_no_difference(text: str, data: bytes, cuts: list[int]) -> None:
    policy, out = run(text, data, cuts)
    assert policy.bytes_in == len(data) == policy.forwarded + policy.dropped
    assert policy.forwarded == len(out)
    assert out == run(text, data, [])[1]
    lines = cut_into_lines(data, [])
    kind, _, argument = text.partition(":")
    if kind == "all":
        assert out == data
    elif kind == "match":
        assert out == b"".join(line for line in lines if re.search(argument.encode(), line))
    elif kind == "tail":
        assert out == b"".join(lines[len(lines) - min(len(lines), int(argument)) :])
    else:
        assert out == b""


def test_a_tail_is_bounded_in_bytes_too() -> None:
    policy, _ = run("tail:1000000", b"x" * 1000 + b"\n" + b"y" * (3 << 20), [1 << 19, 1 << 20])
    assert 0 < policy.forwarded <= TAIL_MOST


def test_a_giant_line_is_never_held_and_comes_in_pieces_of_one_size() -> None:
    data = b"z" * (LINE_MOST * 5 + 17) + b"\n"
    found = cut_into_lines(data, [1000, 70_000, 200_000])
    assert [len(line) for line in found] == [LINE_MOST] * 5 + [18]


def test_a_process_that_starts_again_gets_a_new_tail() -> None:
    policy = LogPolicy("tail:1", re.compile)
    policy.feed(b"a\n", [b"a\n"])
    assert policy.finish([]) == b"a\n"
    policy.feed(b"b\n", [b"b\n"])
    assert policy.finish([]) == b"b\n"


@pytest.mark.parametrize("text", ["", "some", "none:1", "all:x", "tail", "tail:", "tail:x", "tail:-1", "tail:\u00b2", "match:", "match:("])
def test_what_is_no_policy_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="log policy"):
        LogPolicy(text, re.compile)


def test_only_none_keeps_output_out_of_the_file() -> None:
    assert [text for text in POLICIES if not LogPolicy(text, re.compile).to_file] == ["none"]
