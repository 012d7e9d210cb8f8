"""The shape of the tree: which machine is whose child.  Pure.

Every machine is in the tree once, relays too: they do their own share of the scenario.  Siblings' subtrees
differ by one machine at most.  Machines keep their order from subtree to subtree (a subtree is a run of
neighbours in the hosts file, often a rack), but for those that are moved to be relays.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fanout.errors import UsageError
from fanout.root.model import DEFAULT, Costs, predict

FLAT = 32
"""Up to so many machines relays must save a second: the root reaches each itself by a second of its CPU at most."""
FLAT_MOST = 256
"""Most machines that the root reaches itself when nobody says, even where that is fastest: descriptors, and logs."""
WIDTH = 64
"""Most children of a node when nobody says: a relay pays 8 MB and 12 ms or more for the `ssh` of each."""
COMMANDS = 10
"""So many commands on all machines are counted with the connecting when trees are compared."""
DEEPEST = 5
"""Most links from the root to a leaf, where so many hold all machines."""
DEEPER = 1.0
"""Seconds that a level of relays must save, but for the first: a hop more for all that follows, more relays to lose."""


@dataclass(frozen=True)
class Tree:
    """A tree of machines 0 ... n-1, given by each one's parent; None is the root, which is no machine."""

    parents: tuple[int | None, ...]

    def children(self, node: int | None) -> tuple[int, ...]:
        """Ascending; None asks for those of the root."""
        return self._children.get(node, ())

    def subtree(self, machine: int) -> int:
        """The machine and all below it, as a bitmap (see `agent.core.machineset`)."""
        return self._subtrees[machine]

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The machines one link from the root, two links from it, and so on."""
        levels: list[tuple[int, ...]] = []
        level = self.children(None)
        while level:
            levels.append(level)
            level = tuple(child for machine in level for child in self.children(machine))
        return tuple(levels)

    @cached_property
    def relays(self) -> int:
        """How many machines have children."""
        return len(self._children.keys() - {None})

    @property
    def depth(self) -> int:
        """Links from the root to the deepest leaf."""
        return len(self.levels)

    @cached_property
    def width(self) -> int:
        """Most children of any node, the root's among them."""
        return max(map(len, self._children.values()), default=0)

    @cached_property
    def fans(self) -> tuple[int, ...]:
        """Most children of a node, for each level that has any: the root's first."""
        levels: list[tuple[int | None, ...]] = [(None,), *self.levels[:-1]]
        return tuple(max(len(self.children(node)) for node in level) for level in levels)

    @cached_property
    def _children(self) -> dict[int | None, tuple[int, ...]]:
        children: dict[int | None, list[int]] = defaultdict(list)
        for machine, parent in enumerate(self.parents):
            children[parent].append(machine)
        return {parent: tuple(machines) for parent, machines in children.items()}

    @cached_property
    def _subtrees(self) -> list[int]:
        subtrees = [1 << machine for machine in range(len(self.parents))]
        for level in reversed(self.levels):
            for machine in level:
                parent = self.parents[machine]
                if parent is not None:
                    subtrees[parent] |= subtrees[machine]
        return subtrees


def plan(
    n: int, *, relays: int | None, depth: int | None, width: int | None, preferred: Iterable[int] = (),
    costs: Costs = DEFAULT, size: int = 0,
) -> Tree:
    """The tree of `n` machines, as even as it can be.

    `relays`: how many machines are right under the root and share the others; 0 for no relay at all, None to
    have it chosen.  `depth`: links from the root to the deepest leaf, exactly; None for the fewest that the
    width allows.  `width`: most children of any relay; None for what the depth needs, else WIDTH.
    `preferred`: machines that take the places of relays before others, those nearest the root first.
    `costs`: by which the number of relays is chosen, where nothing but the width is given.
    `size`: bytes of the files that all machines will be sent.  Where they take longer than connecting, few machines
    at each node are best: what leaves a node leaves it once for each of its children.

    UsageError, saying which of these contradict each other.
    """
    _check(n, relays, depth, width)
    if relays is None:
        top, depth, width = _even(n, depth, width) if depth else _cheapest(n, None, width, costs, size)
    elif relays == 0:
        top, depth, width = n, 1, 1
    elif size and depth is None and relays < n:
        top, depth, width = _cheapest(n, relays, width, costs, size)
    else:
        top, (depth, width) = relays, _given(n, relays, depth, width)
    return _name(*_shape(n, top, depth, width), preferred)


def _check(n: int, relays: int | None, depth: int | None, width: int | None) -> None:
    if n < 1:
        raise UsageError(f"a tree of {n} machines: there must be at least one")
    if relays is not None and relays < 0:
        raise UsageError(f"--relays {relays}: give auto, 0 for none, or how many")
    if depth is not None and depth < 1:
        raise UsageError(f"--depth {depth}: 1 is the least, for machines right under the root")
    if width is not None and width < 1:
        raise UsageError(f"--width {width}: a relay has at least one child")
    if relays is not None and relays > n:
        raise UsageError(f"--relays {relays}: relays are machines of the fleet, which has {n}")
    if relays == 0 and depth is not None and depth > 1:
        raise UsageError(f"--relays 0 contradicts --depth {depth}: without relays the depth is 1")
    if relays and depth == 1 and n > relays:
        raise UsageError(
            f"--relays {relays} contradicts --depth 1: {n - relays} machines would be below the relays,"
            f" at depth 2"
        )
    least = (relays or 1) + (depth or 1) - 1
    if n < least:
        under = f"under {relays} relays " if relays else ""
        raise UsageError(f"--depth {depth} {under}needs at least {least} machines, and there are {n}")


def _even(n: int, depth: int, width: int | None) -> tuple[int | None, int, int]:
    """(relays, depth, width) of a depth; relays None has the root as wide as a relay: the depth-th root of `n`."""
    # The root counts as one more node here, above `depth` levels.
    even = _narrowest(n + 1, depth + 1)
    if depth == 1 or width is None or even <= width:
        return None, depth, even
    return _ceil(n, _capacity(width, depth, n)), depth, width


def _cheapest(
    n: int, relays: int | None, width: int | None, costs: Costs, size: int
) -> tuple[int | None, int, int]:
    """(relays, depth, width) of the tree that the model says costs least, among all that are even."""
    limit = width or WIDTH
    found: list[tuple[float, tuple[int | None, int, int]]] = []
    if relays is None and n <= (FLAT if width else FLAT_MOST):
        found.append((_price(n, (n,), costs, size), (None, 1, n)))
    tops = range(1 if size else 2, max(limit, FLAT) + 1) if relays is None else (relays,)
    for depth in itertools.count(2):
        for top in tops:
            even = _narrowest(_ceil(n, top), depth)
            if even <= limit and top + depth - 1 <= n:
                price = _price(n, (top, *[even] * (depth - 1)), costs, size)
                found.append((price, (top, depth, even)))
        if found and depth >= DEEPEST:
            return min(found, key=lambda entry: entry[0])[1]
    raise AssertionError


def _price(n: int, fans: tuple[int, ...], costs: Costs, size: int) -> float:
    """Seconds that the user waits and that the root works, for connecting, some commands, and the files."""
    cost = predict(n, fans, costs, size)
    commands = COMMANDS * (cost.command + cost.root_command_cpu)
    deeper = DEEPER * max(0, len(fans) - (1 if n <= FLAT else 2))
    return cost.ready + cost.root_cpu + cost.ship + commands + deeper


def _given(n: int, relays: int, depth: int | None, width: int | None) -> tuple[int, int]:
    """(depth, width) for the number of relays that the user gave."""
    largest = _ceil(n, relays)
    if depth is None:
        depth = 1
        while _capacity(width or WIDTH, depth, largest) < largest:
            depth += 1
    even = _narrowest(largest, depth)
    if width is not None and even > width:
        raise UsageError(
            f"--relays {relays}, --depth {depth} and --width {width} together hold"
            f" {relays * _capacity(width, depth, n)} machines, and there are {n}: raise one of them"
        )
    return depth, even


def _shape(n: int, top: int | None, depth: int, width: int) -> tuple[list[int | None], list[int]]:
    """The tree over places 0 ... n-1: the parent of each, and the places of relays, nearest the root first.

    Places are numbered depth first, so a subtree is a run of them.  Along the first child of each node the
    tree is `depth` deep exactly; everywhere else it is as wide as it may, which is as shallow as it can be.
    """
    parents: list[int | None] = [None] * n
    relays: list[int] = []
    waiting: deque[tuple[int | None, int, int]] = deque([(None, n, depth)])
    while waiting:
        node, below, levels = waiting.popleft()
        if not below:
            continue
        count = min(width, below)
        if levels > 1:
            count = min(count, (below - 1) // (levels - 1))  # more, and no child has `levels` machines
        if node is None:
            count = top or count
        else:
            relays.append(node)
        first = max(_ceil(below, count), levels)
        place = 0 if node is None else node + 1
        for index in range(count):
            size = first if index == 0 else _ceil(below, count - index)
            parents[place] = node
            waiting.append((place, size - 1, levels - 1 if index == 0 else 0))
            place += size
            below -= size
    return parents, relays


def _name(places: list[int | None], relays: list[int], preferred: Iterable[int]) -> Tree:
    """Puts machines in the places: the preferred ones where relays are, all others in order."""
    machines: dict[int, int] = dict(zip(relays, dict.fromkeys(preferred), strict=False))
    taken = set(machines.values())
    others = (machine for machine in range(len(places)) if machine not in taken)
    for place in range(len(places)):
        if place not in machines:
            machines[place] = next(others)
    parents: list[int | None] = [None] * len(places)
    for place, parent in enumerate(places):
        parents[machines[place]] = None if parent is None else machines[parent]
    return Tree(tuple(parents))


def _capacity(width: int, levels: int, enough: int) -> int:
    """Machines in a full subtree of so many levels, its head among them; counted no further than `enough`."""
    held = level = 1
    for _ in range(levels - 1):
        if held >= enough:
            break
        level *= width
        held += level
    return held


def _narrowest(machines: int, levels: int) -> int:
    """The least width with which a subtree of so many levels holds the machines."""
    widths = range(1, machines + 1)
    return 1 + bisect.bisect_left(
        widths, True, key=lambda width: _capacity(width, levels, machines) >= machines
    )


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
