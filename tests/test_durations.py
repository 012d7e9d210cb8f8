"""Durations: what is read, what is refused, and that what is shown can be read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.durations import UNITS, parse_duration, show
from fanout.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1m500ms", 60.5),
        ("12", 12),
        (" 0.5 ", 0.5),
        (7, 7),
        (0.25, 0.25),
        ("0s", 0),
    ],
)
def test_reads(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-1", "-1s", -1, "1x", "1 h", "30m1h", "1s1s", "nan", "inf", float("nan"), float("inf"),
     "1e3", "٣s", "9" * 400, 10**400, "1.s", ".5s", "1,5s", "5m30"],
)  # fmt: skip
def test_refuses(text: str | float) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@given(st.text(max_size=30))
def test_text_is_a_duration_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert 0 <= parse_duration(text) < float("inf")


@given(st.lists(st.integers(0, 10**6), min_size=len(UNITS), max_size=len(UNITS)))
def test_parts_add_up(numbers: list[int]) -> None:
    text = "".join(f"{n}{unit}" for n, unit in zip(numbers, UNITS, strict=True))
    expected = sum(n * size for n, size in zip(numbers, UNITS.values(), strict=True))
    assert parse_duration(text) == pytest.approx(expected)


@given(st.floats(0, 10**7))
def test_what_is_shown_is_short_and_reads_back_within_its_rounding(seconds: float) -> None:
    assert len(show(seconds)) <= 8
    assert parse_duration(show(seconds)) == pytest.approx(seconds, rel=0.06, abs=0.0006)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.25, "250ms"), (0.9999, "1.0s"), (3.14, "3.1s"), (9.97, "10s"), (59.7, "1m00s"),
     (303, "5m03s"), (3599.8, "1h00m"), (5400, "1h30m")],
)  # fmt: skip
def test_shows(seconds: float, text: str) -> None:
    assert show(seconds) == text
