"""The model of what a tree costs: what bounds it, and that it agrees with the protocol core at scale."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.bench.grove import Grove
from fanout.root.model import DEFAULT, predict
from fanout.root.planner import plan

FAN = st.integers(1, 500)


@given(fan=FAN, more=FAN, below=FAN)
def test_more_machines_never_take_less(fan: int, more: int, below: int) -> None:
    steps = (((fan,), (fan + more,)), ((fan, below), (fan + more, below)), ((below, fan), (below, fan + more)))
    for fewer, all_of in steps:
        less, cost = predict(sum(fewer), fewer, DEFAULT), predict(sum(all_of), all_of, DEFAULT)
        assert less.ready <= cost.ready and less.command <= cost.command and less.root_cpu <= cost.root_cpu


def test_flat_is_bound_by_the_root_and_a_tree_is_not() -> None:
    flat, tree = predict(1000, (1000,), DEFAULT), predict(1000, (32, 31), DEFAULT)
    assert "the root" in flat.bound and flat.ready == pytest.approx(0.2 + 999 * 0.007, rel=0.1)
    assert tree.ready < flat.ready / 4 and tree.root_cpu < flat.root_cpu / 5
    assert tree.connections == 32 and flat.connections == 1000


def test_a_slow_login_is_paid_in_rounds() -> None:
    assert predict(32, (32,), replace(DEFAULT, dial=5.0)).ready == pytest.approx(15.0, rel=0.1)  # 9, 18 and 5


def test_machines_on_the_roots_own_host_share_its_cores() -> None:
    costs = replace(DEFAULT, here_direct=0.03, here_relayed=0.04, here_cores=2)
    flat, tree = predict(200, (200,), costs), predict(200, (8, 24), costs)
    assert flat.ready == pytest.approx(0.2 + 200 * (0.03 + DEFAULT.root_cpu) / 2, rel=0.05)
    assert tree.ready > flat.ready and "this host" in tree.bound


def test_the_slowest_node_says_how_long_a_file_takes() -> None:
    costs = replace(DEFAULT, root_bandwidth=10e6, bandwidth=100e6)
    assert predict(40, (4, 9), costs, 10**8).ship == pytest.approx(40)  # the root sends four copies
    assert predict(40, (1, 39), costs, 10**8).ship == pytest.approx(39)  # a relay sends 39
    assert predict(40, (1, 6, 6), costs, 10**8).ship == pytest.approx(10)
    here = replace(costs, here_byte=1e-8, here_cores=2)
    assert predict(40, (1, 6, 6), here, 10**8).ship == pytest.approx(20)  # all bytes of all machines pass here
    assert predict(40, (1, 6, 6), costs).ship == 0


@pytest.mark.parametrize(("n", "depth"), [(60, 1), (300, 2), (300, 3)])
def test_the_formula_agrees_with_the_protocol_core(n: int, depth: int) -> None:
    tree = plan(n, relays=None, depth=depth, width=None)
    grove = Grove(tree.parents, DEFAULT)
    connect, command = grove.operation("connect", grove.connect), grove.operation("command", grove.command)
    cost = predict(n, tree.fans, DEFAULT)
    assert cost.ready == pytest.approx(connect.seconds, rel=0.3)
    assert command.messages_in + command.messages_out == cost.root_messages
