"""Quantiles of merged metrics are within the stated error, whatever was merged in whatever order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec
from fanout.agent.core.sketch import ERROR, Sketch

VALUES = st.one_of(st.floats(1e-6, 1e9), st.floats(-1e9, -1e-6), st.just(0.0), st.integers(-1000, 1000).map(float))


def sketch(values: list[float]) -> Sketch:
    made = Sketch()
    for value in values:
        made.add(value)
    return made


def merged(parts: list[Sketch]) -> Sketch:
    whole = Sketch()
    for part in parts:
        whole.merge(part)
    return whole


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=200), st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_within_the_error_of_the_value_at_its_rank(values: list[float], q: float) -> None:
    true = sorted(values)[max(0, math.ceil(q * len(values) - 1e-9) - 1)]
    assert abs(sketch(values).quantile(q) - true) <= ERROR * abs(true) * (1 + 1e-9) + 1e-12


@settings(deadline=None)
@given(st.lists(st.lists(VALUES, max_size=20), min_size=1, max_size=6), st.randoms())
def test_merging_in_any_order_and_grouping_is_adding_all(parts: list[list[float]], random: object) -> None:
    whole = sketch([value for part in parts for value in part])
    made = [sketch(part) for part in parts]
    random.shuffle(made)  # type: ignore[attr-defined]
    cut = len(made) // 2
    found = merged([merged(made[:cut]), merged(made[cut:])])
    for one in (found, Sketch.of(codec.unpack(codec.pack(found.plain())))):
        assert (one.count, one.zeros, one.least, one.most) == (whole.count, whole.zeros, whole.least, whole.most)
        assert (one.positive, one.negative) == (whole.positive, whole.negative)
        assert one.total == pytest.approx(whole.total, abs=1e-3)


def test_what_is_not_finite_is_refused_and_nothing_has_no_quantile() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            Sketch().add(bad)
    with pytest.raises(ValueError, match="no values"):
        Sketch().quantile(0.5)
