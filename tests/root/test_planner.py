"""The planner: every machine once, the limits kept, the subtrees even, contradictions named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fanout.errors import UsageError
from fanout.root.model import DEFAULT, predict
from fanout.root.planner import FLAT, WIDTH, Tree, plan


def oracle(parents: tuple[int | None, ...]) -> list[list[int]]:
    """The way from the root to each machine, by walking up; fails on a cycle."""
    paths = []
    for machine in range(len(parents)):
        path, at = [machine], parents[machine]
        while at is not None:
            assert at not in path, "a cycle"
            path.append(at)
            at = parents[at]
        paths.append(path[::-1])
    return paths


def check(tree: Tree, n: int) -> None:
    """What holds for every tree, and that its properties say what the walks say."""
    assert len(tree.parents) == n
    paths = oracle(tree.parents)
    assert tree.depth == max(map(len, paths))
    for i, level in enumerate(tree.levels):
        assert set(level) == {path[-1] for path in paths if len(path) == i + 1}
    everyone = [None, *range(n)]
    children = {node: [m for m in range(n) if tree.parents[m] == node] for node in everyone}
    assert all(list(tree.children(node)) == children[node] for node in everyone)
    assert tree.width == max(map(len, children.values()))
    assert tree.relays == sum(bool(children[m]) for m in range(n))
    for machine in range(n):
        assert tree.subtree(machine) == sum(1 << path[-1] for path in paths if machine in path)


def relay_width(tree: Tree) -> int:
    return max((len(tree.children(m)) for m in range(len(tree.parents))), default=0)


def sizes(tree: Tree, level: tuple[int, ...]) -> list[int]:
    return [tree.subtree(machine).bit_count() for machine in level]


N = st.integers(1, 90)
SMALL = st.none() | st.integers(1, 8)


@settings(deadline=None)
@given(n=N, relays=st.none() | st.integers(0, 12), depth=SMALL, width=SMALL, data=st.data())
def test_what_can_be_planned_keeps_every_limit(
    n: int, relays: int | None, depth: int | None, width: int | None, data: st.DataObject
) -> None:
    preferred = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
    try:
        tree = plan(n, relays=relays, depth=depth, width=width, preferred=preferred)
    except UsageError as error:
        assert "--" in str(error)
        return
    check(tree, n)
    if depth is not None:
        assert tree.depth == depth
    if width is not None:
        assert relay_width(tree) <= width
    if relays:
        assert len(tree.children(None)) == relays
    if relays == 0:
        assert tree.depth == 1
    # Preferred machines are relays, and nobody else is while one of them is a leaf.
    is_relay = [bool(tree.children(m)) for m in range(n)]
    fit = set(preferred)
    assert all(is_relay[m] for m in fit) or not any(is_relay[m] for m in range(n) if m not in fit)


@settings(deadline=None)
@given(n=st.integers(1, 200), relays=st.none() | st.integers(0, 12), width=st.none() | st.integers(1, 8))
def test_where_no_depth_is_asked_for_each_level_is_even(
    n: int, relays: int | None, width: int | None
) -> None:
    assume(relays is None or relays <= n)
    tree = plan(n, relays=relays, depth=None, width=width)
    check(tree, n)
    for level in tree.levels:
        assert max(sizes(tree, level)) - min(sizes(tree, level)) <= 1


@settings(deadline=None)
@given(n=N, relays=st.integers(1, 6), depth=st.integers(2, 6), width=SMALL)
def test_it_is_refused_only_when_no_tree_exists(n: int, relays: int, depth: int, width: int | None) -> None:
    # Fewest: one chain and single relays.  Most: every relay full.
    fewest = relays + depth - 1
    most = n if width is None else relays * sum(width**level for level in range(depth))
    try:
        plan(n, relays=relays, depth=depth, width=width)
    except UsageError:
        assert n < fewest or n > most
    else:
        assert fewest <= n <= most


@settings(deadline=None)
@given(n=N, depth=st.integers(1, 8), width=SMALL)
def test_a_depth_alone_is_refused_only_when_there_are_too_few(n: int, depth: int, width: int | None) -> None:
    if n < depth:
        with pytest.raises(UsageError, match=f"at least {depth} machines"):
            plan(n, relays=None, depth=depth, width=width)
    else:
        assert plan(n, relays=None, depth=depth, width=width).depth == depth


def test_a_chain() -> None:
    assert plan(4, relays=1, depth=4, width=1).parents == (None, 0, 1, 2)


def test_a_binary_tree_of_depth_four() -> None:
    tree = plan(14, relays=1, depth=4, width=2)
    assert [len(level) for level in tree.levels] == [1, 2, 4, 7]


def test_relays_share_the_other_machines_evenly() -> None:
    tree = plan(200, relays=4, depth=None, width=None)
    assert sizes(tree, tree.levels[0]) == [50, 50, 50, 50]
    assert (tree.relays, tree.depth, tree.width) == (4, 2, 49)


def test_a_subtree_is_a_run_of_neighbours() -> None:
    tree = plan(60, relays=3, depth=3, width=None)
    for machine in range(60):
        bits = tree.subtree(machine) >> machine
        assert bits & (bits + 1) == 0


def test_marked_machines_become_relays_nearest_the_root_first() -> None:
    tree = plan(14, relays=2, depth=3, width=2, preferred=[13, 5])
    assert tree.children(None) == (5, 13)
    assert tree.parents[0] in (5, 13)


@settings(deadline=None)
@given(n=st.integers(1, 700), relays=st.none() | st.integers(0, 12), width=st.none() | st.integers(1, 12),
       size=st.sampled_from([1, 10**6, 10**8, 10**11]))
def test_for_files_every_limit_is_kept_too(n: int, relays: int | None, width: int | None, size: int) -> None:
    assume(relays is None or relays <= n)
    tree = plan(n, relays=relays, depth=None, width=width, size=size)
    check(tree, n)
    assert relay_width(tree) <= (width or WIDTH) and (not relays or len(tree.children(None)) == relays)
    plain = plan(n, relays=relays, depth=None, width=width)
    taken, other = (predict(n, fans, DEFAULT, size) for fans in (tree.fans, plain.fans))
    assert taken.ship <= other.ship


def test_a_large_file_goes_up_the_roots_line_once_and_from_each_relay_a_few_times() -> None:
    """... where the line is a slow one; where it is as fast as any, as many times as from a relay."""
    assert plan(40, relays=None, depth=None, width=None, size=10**8).fans == (1, 3, 3, 3)
    even = replace(DEFAULT, root_bandwidth=100e6)
    assert plan(39, relays=None, depth=None, width=None, size=10**8, costs=even).fans == (3, 3, 3)
    slow = replace(DEFAULT, bandwidth=5e6)
    assert plan(40, relays=None, depth=None, width=None, size=10**8, costs=slow).fans[0] > 2


def test_a_small_file_changes_nothing() -> None:
    for n in (10, FLAT, 100, 1000):
        tree = plan(n, relays=None, depth=None, width=None)
        assert plan(n, relays=None, depth=None, width=None, size=10_000).fans == tree.fans


def test_relays_that_are_given_get_few_children_each_for_a_large_file() -> None:
    assert plan(100, relays=4, depth=None, width=None).fans == (4, 24)
    assert plan(100, relays=4, depth=None, width=None, size=10**9).fans == (4, 5, 4)


def test_automatic_is_flat_while_the_root_is_quick_enough_itself() -> None:
    assert plan(FLAT, relays=None, depth=None, width=None).relays == 0
    assert plan(FLAT + 1, relays=None, depth=None, width=None).depth == 2


@pytest.mark.parametrize(("n", "depth"), [(200, 2), (1_000, 2), (4_000, 3), (10_000, 3)])
def test_automatic_grows_in_depth_rather_than_width(n: int, depth: int) -> None:
    tree = plan(n, relays=None, depth=None, width=None)
    assert tree.depth == depth
    assert tree.width <= WIDTH


def test_few_relays_for_many_machines_get_relays_of_their_own() -> None:
    tree = plan(1_000, relays=4, depth=None, width=None)
    assert tree.depth == 3
    assert tree.width <= WIDTH


def test_a_long_chain_is_no_trouble() -> None:
    tree = plan(5_000, relays=1, depth=None, width=1)
    assert tree.depth == 5_000
    assert tree.subtree(0).bit_count() == 5_000


@pytest.mark.parametrize(
    ("n", "relays", "depth", "width", "what"),
    [
        (0, None, None, None, "0 machines"),
        (10, -1, None, None, "--relays -1"),
        (10, None, 0, None, "--depth 0"),
        (10, None, None, 0, "--width 0"),
        (10, 11, None, None, "the fleet, which has 10"),
        (10, 0, 2, None, "--relays 0 contradicts --depth 2"),
        (10, 3, 1, None, "--relays 3 contradicts --depth 1: 7 machines"),
        (10, 3, 9, None, "at least 11 machines, and there are 10"),
        (60, 3, 3, 2, "--relays 3, --depth 3 and --width 2 together hold 21 machines, and there are 60"),
    ],
)
def test_a_contradiction_is_named(
    n: int, relays: int | None, depth: int | None, width: int | None, what: str
) -> None:
    with pytest.raises(UsageError) as error:
        plan(n, relays=relays, depth=depth, width=width)
    assert what in str(error.value)
