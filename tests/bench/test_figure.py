"""Figures and their table: what is judged, and how it is told."""

from fanout.bench.figure import Figure, number, quantile, table


def test_a_figure_without_an_aim_is_not_judged() -> None:
    assert [Figure("x", 2, "s", aim).met for aim in (None, 2, 1)] == [None, True, False]


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, q) for q in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]


def test_three_digits_are_shown() -> None:
    assert [number(value) for value in (0.12345, 12.345, 1234.5)] == ["0.123", "12.3", "1234"]


def test_the_table_tells_a_missed_aim_and_the_floor() -> None:
    text = table([Figure("start", 45.0, "ms", 30.0, 15.0, "bare"), Figure("size", 1.0, "KB")])
    assert text.splitlines()[1].split() == ["start", "45", "ms", "30", "ms", "MISSED", "3", "x", "15", "ms:", "bare"]
    assert text.splitlines()[2].split() == ["size", "1", "KB"]
