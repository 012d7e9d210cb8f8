"""Figures of metrics are exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.errors import UsageError
from fanout.scenario.metrics import Metrics


def test_the_figures() -> None:
    metrics = Metrics()
    metrics.add("t", range(1, 100), "s")
    metrics.add("t", 100)
    metrics.add("none", [])
    assert metrics.summary() == {
        "t": {
            "count": 100,
            "sum": 5050,
            "min": 1,
            "max": 100,
            "mean": 50.5,
            "p50": 50,
            "p90": 90,
            "p99": 99,
            "unit": "s",
        },
        "none": {"count": 0, "unit": ""},
    }


@given(st.lists(st.integers(-1000, 1000), min_size=1))
def test_percentiles_are_values_that_were_given(values: list[int]) -> None:
    metrics = Metrics()
    metrics.add("x", values)
    figures = metrics.summary()["x"]
    assert figures["min"] <= figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]
    for percent in 50, 90, 99:
        value = figures[f"p{percent}"]
        assert value in values
        assert sum(v <= value for v in values) * 100 >= percent * len(values)


def test_what_is_no_number_is_refused() -> None:
    for bad in math.nan, math.inf, "3", None:
        with pytest.raises((UsageError, TypeError)):
            Metrics().add("x", [bad])  # type: ignore[list-item]


def test_a_unit_does_not_change() -> None:
    metrics = Metrics()
    metrics.add("x", 1, "s")
    with pytest.raises(UsageError, match="is in 's', and now in 'ms'"):
        metrics.add("x", 1, "ms")
