"""The trees that a bench compares, by the words they are asked for with.  Pure.

`flat`: no relay.  `auto`: what a run would choose.  `8`: eight relays, the others shared among them.  `8x4`: eight
relays, each with four relays below it, the others shared among those; and so on.
"""

from __future__ import annotations

import math
import re

from fanout.errors import UsageError
from fanout.root.model import Costs
from fanout.root.planner import Tree, plan

FLAT, AUTO = "flat", "auto"


def check(shape: str) -> str:
    """The shape itself; UsageError for what is none."""
    if shape not in (FLAT, AUTO) and not re.fullmatch(r"[1-9][0-9]{0,4}(x[1-9][0-9]{0,4})*", shape):
        raise UsageError(f"the shape {shape!r}: write flat, auto, a number of relays such as 8, or levels such as 8x4")
    return shape


def tree(n: int, shape: str, costs: Costs) -> Tree | None:
    """None where there are not enough machines for a leaf below each of the relays."""
    if shape == FLAT:
        return plan(n, relays=0, depth=None, width=None)
    if shape == AUTO:
        return plan(n, relays=None, depth=None, width=None, costs=costs)
    levels = [int(number) for number in shape.split("x")]
    relays = sum(math.prod(levels[: i + 1]) for i in range(len(levels)))
    if n < relays + math.prod(levels):
        return None
    parents: list[int | None] = []
    above: list[int | None] = [None]
    for count in levels:
        level = [parent for parent in above for _ in range(count)]
        above = list(range(len(parents), len(parents) + len(level)))
        parents += level
    parents += [above[i % len(above)] for i in range(n - relays)]
    return Tree(tuple(parents))
