"""A small budget of the campaign in simulation."""

import pytest

from tests.faults.storm import storm


@pytest.mark.parametrize("seed", range(1, 31))
def test_nothing_is_lost_doubled_or_out_of_order_under_random_faults(seed: int) -> None:
    assert sum(storm(seed).values()) > 10
