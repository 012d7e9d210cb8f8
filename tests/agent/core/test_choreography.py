"""Barriers, signals and metrics through simulated trees: the same as a flat counter's, and cheap for the root."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core.merge import split_sync
from tests.agent.core.network import Network
from tests.agent.core.test_node import random_tree


def test_a_barrier_of_ten_thousand_machines_costs_the_root_two_messages_a_relay() -> None:
    relays, machines = 100, 10_000
    net = Network(seed=1, grain=0.005)
    net.build([None if i < relays else i % relays for i in range(machines)])
    net.run(within=1.0)
    before = net.messages()
    for machine in range(machines):
        net.ask(machine, net.everyone, ["barrier", "wired", 1, machines], [60.0, 1])
    assert net.run(lambda: len(net.told) == machines, within=1.0)
    came, went = (now - then for now, then in zip(net.messages(), before, strict=True))
    assert all(ok and value == machines for [(_, ok, value)] in net.told.values())
    assert came <= 2 * relays
    assert went <= relays


def below(parents: list[int | None], machine: int) -> int:
    found = 1 << machine
    for child, parent in enumerate(parents):
        if parent == machine:
            found |= below(parents, child)
    return found


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1 << 30))
def test_links_lost_and_made_again_change_no_barrier_signal_or_metric(seed: int) -> None:
    rng = Random(seed)
    parents = random_tree(rng, most=30)
    net = Network(seed=seed, chunk=rng.choice([None, 7, 300]))
    net.build(parents)
    total = len(parents)
    values: list[float] = []

    def lose_one() -> None:
        """The link above a machine breaks at any moment, and is made again by the same parent."""
        machine = rng.randrange(total)
        assert net.run(lambda: net.up == net.everyone, within=20.0)
        net.cut(machine)
        assert net.run(lambda: not net.up >> machine & 1, within=20.0)  # the root connects what it knows is lost
        subtree = below(parents, machine)
        spec = {"id": machine, "subtree": machineset.pack(subtree)}
        parent = parents[machine]
        if parent is None:
            net.connect(net.root, machine, 0, subtree)
        else:
            net.call(frames.CONNECT, 1 << parent, {"children": [spec]})

    for generation in (1, 2, 3):
        for machine in rng.sample(range(total), total):
            net.ask(machine, net.everyone, ["barrier", "b", generation, total], [1000.0, 1])
            net.ask(machine, 0, ["signal", "s", generation], [machine, generation])
            for _ in range(rng.randint(0, 3)):
                values.append(rng.choice([1.0, 50.0, 2000.0]))
                net.hosts[machine].node.metric("m", "ms", "", values[-1], net.now)
            if rng.random() < 0.2:
                net.run(within=rng.random() * 0.3)
            if rng.random() < 3 / total:
                lose_one()
        assert net.run(lambda generation=generation: all(
            len(net.told.get(machine, ())) == 2 * generation for machine in range(total)), within=20.0), generation
    net.run(within=3.0)
    assert not net.root.node.refused
    numbers = []
    for machine in range(total):
        for key, ok, value in net.told[machine]:
            assert ok, value
            op = codec.unpack(split_sync(key)[1])
            assert op[0] == "signal" or value == total
            numbers += [value] if op[0] == "signal" else []
    assert sorted(numbers) == list(range(1, 3 * total + 1))
    measured = net.measured.metrics.get(("m", "ms", ""))
    assert (measured.count, measured.total) == (len(values), sum(values)) if measured else not values


def test_the_clocks_of_a_deep_tree_are_known_within_a_second() -> None:
    net = Network(seed=3, latency=(0.001, 0.02))
    net.build([None, 0, 1, 2, 3])
    assert net.run(lambda: all(host.node.clock is not None for host in net.hosts.values()), within=1.0)
    net.run(within=1.0)
    for depth, machine in enumerate(range(5), 1):
        clock = net.hosts[machine].node.clock  # all tell the same time here, so what differs is the error
        assert clock is not None and abs(clock) <= depth * 0.01
