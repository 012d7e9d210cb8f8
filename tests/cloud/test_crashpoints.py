"""A small budget of the campaign."""

from tests.cloud.crashpoints import campaign


def test_whatever_call_the_root_dies_at_nothing_of_its_is_left() -> None:
    figures = campaign(points=12, seed=3, say=print)
    assert figures.wrong == []
    assert figures.struck.total() == 12 and figures.instances and figures.groups
