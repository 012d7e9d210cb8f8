"""A small budget of the campaigns on a lab."""

import pytest

from tests.faults.cases import CASES, FEW, Case, check
from tests.faults.chaos import campaign
from tests.faults.figures import Figures

pytestmark = pytest.mark.lab


async def test_nothing_is_lost_on_a_lab_under_random_faults() -> None:
    figures = await campaign(hosts=16, seed=2, runs=1, faults=10, over=10.0, say=print)
    assert figures.wrong == [] and sum(figures.faults.values()) >= 5


@pytest.mark.parametrize("case", [case for case in CASES if case.name in FEW], ids=lambda case: case.name)
async def test_one_fault_costs_what_it_must_and_nothing_else(case: Case) -> None:
    figures = Figures()
    await check(case, figures, say=print)
    assert figures.wrong == [] and figures.faults.total() == len(case.machines)
