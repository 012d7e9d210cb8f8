"""The words for shapes, and the trees they stand for."""

import pytest

from fanout.bench.shapes import check, tree
from fanout.errors import UsageError
from fanout.root.model import DEFAULT


@pytest.mark.parametrize(("n", "shape", "fans"), [
    (10, "flat", (10,)), (10, "2", (2, 4)), (11, "2", (2, 5)), (100, "8x4", (8, 4, 2)), (22, "2x2x2", (2, 2, 2, 1)),
    (20, "auto", (20,)),
])
def test_a_shape_is_as_even_as_it_can_be(n: int, shape: str, fans: tuple[int, ...]) -> None:
    found = tree(n, check(shape), DEFAULT)
    assert found is not None and found.fans == fans and len(found.parents) == n


@pytest.mark.parametrize(("n", "shape"), [(3, "2"), (15, "4x4"), (1, "1")])
def test_a_relay_without_a_leaf_is_no_shape(n: int, shape: str) -> None:
    assert tree(n, shape, DEFAULT) is None


@pytest.mark.parametrize("shape", ["", "round", "0", "8x", "x8", "8x0", "-1", "8 x 8"])
def test_what_is_no_shape_is_said(shape: str) -> None:
    with pytest.raises(UsageError, match="write flat, auto"):
        check(shape)
