"""A small budget of the fuzzing."""

from tests.faults.fuzz import fuzz


def test_whatever_comes_over_a_link_is_taken_or_refused() -> None:
    counts = fuzz(20_000)
    assert counts["refused by a parent"] and counts["refused by a child"]
