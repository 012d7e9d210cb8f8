"""A small budget of the campaign on a lab."""

import pytest

from tests.faults.chaos import campaign

pytestmark = pytest.mark.lab


async def test_nothing_is_lost_on_a_lab_under_random_faults() -> None:
    figures = await campaign(hosts=16, seed=2, runs=1, faults=10, over=10.0, say=print)
    assert figures.wrong == [] and sum(figures.faults.values()) >= 5
