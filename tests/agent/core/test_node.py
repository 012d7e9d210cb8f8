"""Many real nodes in one process: whatever the tree, the chunking and the loss, every machine is accounted for."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core import node as tree
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.link import WINDOW, WINDOW_MOST, Link
from fanout.agent.core.node import Node
from tests.agent.core import network
from tests.agent.core.network import WIRE, Host, Network, answer

RELAYED = [None, None, 0, 0, 0, 1, 1, 1]
"""Two relays, 0 and 1, with three leaves each."""


def random_tree(rng: Random, most: int = 60) -> list[int | None]:
    """Width 1 to 5, depth 1 to 5."""
    parents: list[int | None] = []
    level: list[int | None] = [None]
    for _ in range(rng.randint(1, 5)):
        below: list[int | None] = []
        for parent in level:
            for _ in range(rng.randint(0 if below else 1, 5)):
                if len(parents) < most:
                    below.append(len(parents))
                    parents.append(parent)
        level = below
    return parents


def each_once(answers: dict[int, list[Any]]) -> bool:
    return all(len(said) == 1 for said in answers.values())


# Scale.


def test_a_command_to_ten_thousand_machines_costs_the_root_two_messages_a_relay() -> None:
    relays, machines = 100, 10_000
    net = Network(seed=1, grain=0.005)
    net.build([None if i < relays else i % relays for i in range(machines)])
    assert net.up == net.everyone
    net.run(within=1.0)  # the first pings of a link are close together
    before = net.messages()
    call = net.call(frames.RUN, net.everyone, "uptime")
    assert net.run(lambda: net.settled(call), within=1.0)
    came, went = (now - then for now, then in zip(net.messages(), before, strict=True))
    assert net.answered(call) == net.everyone
    assert each_once(net.answers(call))
    assert went == relays
    assert came <= 2 * relays


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1 << 30))
def test_any_tree_in_any_pieces_answers_once(seed: int) -> None:
    rng = Random(seed)
    net = Network(seed, chunk=rng.choice([1, 7, 100, None]))
    net.build(random_tree(rng))
    assert net.up == net.everyone
    assert not net.reasons
    targets = rng.getrandbits(net.everyone.bit_length()) & net.everyone
    call = net.call(frames.RUN, targets, "uptime")
    assert net.run(lambda: net.settled(call), within=5.0)
    assert net.answered(call) == targets
    assert each_once(net.answers(call))


def test_different_answers_stay_apart_and_equal_ones_are_folded() -> None:
    def parity(host: Host, kind: int, call: int, body: Any) -> None:
        assert host.id is not None
        host.node.emit(call, tree.DONE, host.id % 2, host.network.now)

    net = Network(seed=5)
    net.behave = parity
    net.build(RELAYED)
    call = net.call(frames.RUN, net.everyone, None)
    assert net.run(lambda: net.settled(call), within=1.0)
    assert net.answers(call) == {machine: [machine % 2] for machine in range(8)}


# Loss.


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1 << 30))
def test_whatever_is_lost_every_machine_answers_or_is_down(seed: int) -> None:
    rng = Random(seed)
    net = Network(seed, chunk=rng.choice([5, 50, None]))
    parents = random_tree(rng, 40)
    net.unreachable = {machine for machine in range(len(parents)) if rng.random() < 0.05}
    for _ in range(rng.randint(0, 3)):  # while it comes up
        net.at(net.now + rng.random() * 0.1, net.power_off,
               rng.randrange(len(parents)))
    net.build(parents, within=120.0)
    assert not net.everyone & ~(net.up | net.down), "neither up nor down"
    calls = []
    for _ in range(3):
        calls.append(net.call(frames.RUN, net.everyone, "uptime"))
        for _ in range(rng.randint(0, 4)):
            machine = rng.choice(list(net.hosts) or [None])
            if machine is None:
                break
            harm = net.cut if rng.random() < 0.5 and net.hosts[machine].wire else net.power_off
            net.at(net.now + rng.random() * 0.05, lambda machine, harm=harm: harm(machine), machine)
        net.run(within=rng.random() * 0.1)
    assert net.run(lambda: all(map(net.settled, calls)), within=30.0)
    for call in calls:
        assert each_once(net.answers(call))
    assert not net.root.node.refused
    assert not any(host.node.refused for host in net.hosts.values())
    # Whoever is out of reach ends with its lease.
    net.run(within=2 * net.lease)
    alive = {machine for machine, host in net.hosts.items() if host.alive}
    assert alive == set(machineset.members(net.up))


def test_a_relay_that_dies_takes_its_machines_down_with_a_reason_each() -> None:
    net = Network(seed=3)
    net.build(RELAYED)
    net.power_off(0)
    assert net.run(lambda: net.down == 0b00011101, within=8.0)
    assert net.reasons[0] == ["no sign of life for 6 s"] or "no sign of life" in net.reasons[0][0]
    assert all("its relay m0 is gone" in net.reasons[machine][0] for machine in (2, 3, 4))
    assert net.up == 0b11100010


def test_a_leaf_that_is_starved_is_waited_for_and_a_relay_is_not() -> None:
    net = Network(seed=3)
    net.build(RELAYED)
    net.pause(2)  # a leaf; its machine takes all that it is sent
    net.run(within=20.0)
    assert net.up == net.everyone
    net.resume(2)
    call = net.call(frames.RUN, net.everyone, "uptime")
    assert net.run(lambda: net.settled(call), within=5.0) and net.answered(call) == net.everyone
    net.pause(0)
    assert net.run(lambda: net.down == 0b00011101, within=8.0)


def test_a_relay_that_waits_for_its_turn_is_waited_for() -> None:
    net = Network(seed=3)
    net.build(RELAYED)
    net.root.node.starved = lambda child, pid: child == 0
    net.pause(0)
    net.pause(1)
    assert net.run(lambda: net.down == 0b11100010, within=8.0)
    net.run(within=12.0)
    net.resume(0)
    call = net.call(frames.RUN, net.up, "uptime")
    assert net.run(lambda: net.settled(call), within=5.0) and net.answered(call) == 0b00011101


def test_machines_whose_relay_is_gone_before_it_hears_of_them_are_down() -> None:
    net = Network(seed=3)
    net.build([None, 0, 0])
    net.hosts[0].node.lost(2, "gone", net.now)
    net.everyone |= 1 << 3
    net.call(frames.CONNECT, 1 << 2, {"children": [{"id": 3}]})
    assert net.run(lambda: net.down == 0b1100, within=1.0)
    assert net.up == 0b11


def test_a_machine_that_dies_with_logs_on_their_way_does_not_cost_its_relay() -> None:
    """That it is down overtakes its last logs: control goes first."""
    net = Network(seed=4)
    net.build(RELAYED)
    net.record(2, frames.LOGS, (bytes(10_000) for _ in range(100)))
    net.record(2, frames.REPORTS, (b"%d" % i for i in range(10)))
    net.pause(0)
    net.run(within=1.0)
    net.cut(2)
    net.run(within=1.0)
    net.resume(0)
    net.run(within=5.0)
    assert net.down == 1 << 2
    assert not net.root.node.refused
    assert net.up == net.everyone & ~(1 << 2)


@pytest.mark.parametrize("first", [3, 4])
def test_a_machine_that_answers_and_dies_beside_another_does_not_cost_its_relay(first: int) -> None:
    net = Network(seed=4)
    net.build(RELAYED)
    relay = net.hosts[0].node
    relay.emit(9, tree.READY, "slow", net.now)
    relay.lost(first, "gone", net.now)
    relay.receive(2, frames.encode(0, frames.EVENTS, relay.children[2]._received[0] + 1, b"", codec.pack(
        [[merge.key(9, tree.DONE), codec.pack("ok"), machineset.pack(1 << 2)]])), net.now)
    relay.lost(2, "gone", net.now)
    net.hosts[0].wake()
    net.run(within=2.0)
    assert not net.root.node.refused
    assert net.answered(9) == 1 << 2
    assert net.down == 1 << 2 | 1 << first


def test_a_machine_without_its_root_expires_with_the_lease() -> None:
    net = Network(seed=6, lease=20.0)
    net.build(RELAYED)
    net.run(within=60.0)
    assert all(host.alive for host in net.hosts.values())
    net.cut(0)
    left = net.now
    net.run(within=18.0)
    assert all(net.hosts[machine].alive for machine in (0, 2, 3, 4))
    assert net.run(lambda: not any(net.hosts[machine].alive for machine in (0, 2, 3, 4)), within=10.0)
    assert net.now < left + 26.0
    assert net.hosts[5].alive


# Hostile children.


def events(*found: tuple[int, int, Any, int]) -> bytes:
    return codec.pack([[merge.key(call, phase), codec.pack(value), machineset.pack(machines)]
                       for call, phase, value, machines in found])


def hostile() -> list[tuple[str, int, int, int, bytes, str]]:
    """(name, class, kind, number counted from the next, body, part of the reason)"""
    own = 1 << 2
    return [
        ("a sibling's answer", 0, frames.EVENTS, 0, events((1, tree.DONE, "x", 1 << 3)), "not its own"),
        ("an answer for its relay", 0, frames.EVENTS, 0, events((1, tree.DONE, "x", 1)), "not its own"),
        ("an answer for many", 0, frames.EVENTS, 0, events((1, tree.DONE, "x", own | 1 << 6)), "not its own"),
        ("a sibling's death", 0, frames.EVENTS, 0, events((1, tree.DOWN, ["lost", ""], 1 << 3)), "not its own"),
        ("an answer for nobody", 0, frames.EVENTS, 0, events((1, tree.DONE, "x", 0)), "not its own"),
        ("a set beyond the limit", 0, frames.EVENTS, 0,
         codec.pack([[merge.key(1, 3), b"\xc0", b"\xff\xff\xff\xff\x01"]]), "none"),
        ("a short key", 0, frames.EVENTS, 0, codec.pack([[b"k", b"\xc0", machineset.pack(own)]]), "key"),
        ("no events", 0, frames.EVENTS, 0, events(), "none"),
        ("a body that is none", 0, frames.EVENTS, 0, b"\xc1", "decode"),
        ("a sibling's report", 1, frames.REPORTS, 0, frames.record(3, b"x"), "machine 3"),
        ("a sibling's log", 2, frames.LOGS, 0, frames.record(2, b"") + frames.record(4, b"x"), "machine 4"),
        ("a record cut short", 2, frames.LOGS, 0, frames.record(2, b"xyz")[:-1], "record"),
        ("a number again", 0, frames.EVENTS, -1, events((1, tree.DONE, "x", own)), "next"),
        ("a gap", 0, frames.EVENTS, 1, events((1, tree.DONE, "x", own)), "next"),
        ("a command", 0, frames.RUN, 0, codec.pack("rm -rf /"), "direction"),
        ("a connect", 0, frames.CONNECT, 0, codec.pack({"children": [{"id": 9}]}), "direction"),
        ("an end", 0, frames.END, 0, codec.pack({"grace": 0}), "direction"),
        ("a ping", 0, frames.PING, 0, codec.pack([1.0, 10**9, None]), "direction"),
        ("a second hello", 0, frames.HELLO, 0, codec.pack(["build", {}]), "direction"),
        ("a pong that is none", 0, frames.PONG, 0, codec.pack("pong"), "shape"),
        ("an unknown kind", 0, 99, 0, b"", "99"),
    ]


@pytest.mark.parametrize("case", hostile(), ids=lambda case: case[0])
def test_a_hostile_child_is_cut_off_with_a_reason_and_its_siblings_are_unharmed(case: Any) -> None:
    _, cls, kind, ahead, body, reason = case
    net = Network(seed=7)
    net.build(RELAYED)
    relay = net.hosts[0].node
    number = relay.children[2]._received[cls] + 1 + ahead if kind in frames.UPWARD else 0
    net.inject(2, frames.encode(cls, kind, number, b"", body))
    net.run(within=1.0)
    ((machine, said),) = relay.refused
    assert machine == 2
    assert reason in said
    assert 2 not in relay.children
    assert net.down == 1 << 2
    assert net.reasons[2] == ["refused: " + said]
    assert not net.root.node.refused
    call = net.call(frames.RUN, net.everyone, "uptime")
    assert net.run(lambda: net.settled(call), within=1.0)
    assert net.answered(call) == net.everyone & ~(1 << 2)
    assert net.lost(call) == 1 << 2
    assert all(host.alive for host in net.hosts.values())


@settings(deadline=None, max_examples=40)
@given(data=st.binary(min_size=1, max_size=80), cls=st.integers(0, 2), kind=st.sampled_from([1, 4, 5, 6, 16, 17, 18]))
def test_no_body_harms_more_than_the_machine_it_comes_from(data: bytes, cls: int, kind: int) -> None:
    net = Network(seed=8)
    net.build(RELAYED)
    number = net.hosts[0].node.children[2]._received[cls] + 1 if kind in frames.UPWARD else 0
    net.inject(2, frames.encode(cls, kind, number, b"", data))
    net.run(within=1.0)
    call = net.call(frames.RUN, net.everyone, "uptime")
    assert net.run(lambda: net.settled(call), within=10.0)
    assert net.answered(call) & ~(1 << 2) == net.everyone & ~(1 << 2)


@pytest.mark.parametrize("hello", [["other", {}], ["build"], None, 7, ["build", {}, 1]])
def test_a_child_of_another_build_does_not_join(hello: Any) -> None:
    node = Node("build", 0.0, root=True)
    node.open_child(4, 1, {"id": 4}, 0.0)
    node.receive(4, frames.encode(0, frames.HELLO, 0, b"", codec.pack(hello)), 0.0)
    ((machine, reason),) = node.refused
    assert machine == 4
    if hello == ["other", {}]:
        assert reason == "runs build other, not build"
    assert (tree.CLOSE, 4) in node.inbox
    assert not node.children
    assert [item[2] for item in node.inbox if item[0] == tree.EVENT] == [tree.DOWN]


def test_what_follows_a_goodbye_is_not_held_against_it() -> None:
    net = Network(seed=9)
    net.build(RELAYED)
    child = net.hosts[2].node
    child.record(frames.LOGS, b"last words")
    assert child.parent is not None
    child.parent.send(frames.CONTROL, frames.BYE, 0, b"", b"no room for its folder")
    net.hosts[2].wake()
    net.run(within=1.0)
    assert net.reasons[2] == ["no room for its folder"]
    assert not net.hosts[0].node.refused


@pytest.mark.parametrize("kind", [frames.PING, frames.ACK, frames.WELCOME])
def test_a_parent_that_talks_nonsense_is_a_protocol_error(kind: int) -> None:
    node = Node("build", 0.0)
    link = node.open_parent({}, 0.0)
    if kind != frames.WELCOME:
        link.state = "open"
    for body in (None, 5, [1], ["a", "b", "c"]):
        with pytest.raises(ProtocolError):
            node.receive(None, frames.encode(0, kind, 0, b"", codec.pack(body)), 0.0)


# Floods.


def numbered(machine: int, count: int, size: int) -> list[bytes]:
    return [b"%d:%d:" % (machine, i) + bytes(size) for i in range(count)]


def same(got: Iterable[bytes], sent: Iterable[bytes]) -> bool:
    return list(got) == list(sent)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1 << 30))
def test_floods_arrive_once_and_in_order_per_machine(seed: int) -> None:
    rng = Random(seed)
    net = Network(seed, chunk=rng.choice([4_000, None]))
    parents = random_tree(rng, 15)
    net.build(parents)
    sent = {}
    for machine in range(len(parents)):
        for kind in (frames.REPORTS, frames.LOGS):
            sent[kind, machine] = numbered(machine, rng.randint(0, 60), rng.choice([0, 10, 1_000, 15_000]))
            net.record(machine, kind, sent[kind, machine])
    arrived = lambda key: len(net.records.get(key, ()))  # noqa: E731
    assert net.run(lambda: all(arrived(key) == len(want) for key, want in sent.items()), within=300.0)
    net.run(within=10.0)
    assert all(same(net.records.get(key, ()), want) for key, want in sent.items())
    assert all(host.node.parent is not None and host.node.parent.delivered() for host in net.hosts.values())
    assert all(host.buffered() == 0 for host in net.hosts.values())


def test_when_the_root_stops_reading_nobody_swells_and_afterwards_all_arrives() -> None:
    net = Network(seed=11)
    net.build(RELAYED)
    sent = {machine: numbered(machine, 400, 10_000) for machine in range(8)}
    for machine in (0, 1):
        net.pause(machine)
    for machine, want in sent.items():
        net.record(machine, frames.LOGS, want)
    net.run(within=3.0)
    held = {machine: net.hosts[machine].buffered() for machine in range(8)}
    window, batch, own = 256 << 10, 32 << 10, 64 << 10
    assert all(held[leaf] <= window + batch + own + 20_000 for leaf in (2, 3, 4, 5, 6, 7))
    for relay in (0, 1):
        assert held[relay] <= (window + batch) + 3 * (window + batch) + own + 20_000
    assert max(len(host.node.parent._queues[0]) for host in net.hosts.values() if host.node.parent) < 10
    for machine in (0, 1):
        net.resume(machine)
    assert net.run(lambda: all(len(net.records.get((frames.LOGS, m), ())) == 400 for m in sent), within=120.0)
    assert all(same(net.records[frames.LOGS, machine], want) for machine, want in sent.items())


def test_a_flood_of_logs_does_not_delay_a_command_by_more_than_a_wire_full() -> None:
    net = Network(seed=12)
    net.build(RELAYED)
    for machine in range(8):
        net.record(machine, frames.LOGS, (bytes(15_000) for _ in range(2_000)))
    net.run(within=0.5)
    before = sum(map(len, net.records.values()))
    bytes_before = sum(link.bytes_in for link in net.root.node.children.values())
    call = net.call(frames.RUN, net.everyone, "uptime")
    assert net.run(lambda: net.settled(call), within=2.0)
    assert sum(map(len, net.records.values())) > before, "the flood had ended"
    passed = sum(link.bytes_in for link in net.root.node.children.values()) - bytes_before
    # A hop's wire may be full of logs when the answer comes; what only waits in a queue is overtaken.
    assert passed <= 12 * (WIRE + (32 << 10))


@pytest.mark.parametrize("children", [1, 4, 20])
def test_over_a_long_way_windows_grow_and_a_relay_holds_no_more_for_it(
    children: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root stops reading when all windows are as wide as they get."""
    monkeypatch.setattr(network, "WIRE", 8 << 20)
    net = Network(seed=3, latency=(0.025, 0.025))
    net.build([None, *[0] * children])
    for machine in range(1, children + 1):
        net.record(machine, frames.LOGS, [bytes(30_000)] * 3_000)
    net.run(within=6.0)
    windows = [net.hosts[machine].wire.link_below._senders[frames.BULK].window for machine in range(children + 1)]
    assert windows[0] > 2 * WINDOW[frames.BULK]
    assert sum(windows[1:]) <= max(WINDOW_MOST, children * WINDOW[frames.BULK])
    assert children > 4 or min(windows[1:]) > 3 * WINDOW[frames.BULK]
    net.pause(0)
    net.run(within=4.0)
    assert any(host.outbox[frames.LOGS] for host in net.hosts.values() if host.id), "the flood had ended"
    assert net.hosts[0].buffered() <= sum(windows[1:]) + children * (64 << 10)


def test_a_relay_under_load_still_sends_its_own() -> None:
    net = Network(seed=13)
    net.build([None, *[0] * 20])
    for machine in range(1, 21):
        net.record(machine, frames.REPORTS, (bytes(1_000) for _ in range(3_000)))
    net.run(within=1.0)
    net.record(0, frames.REPORTS, [b"mine"])
    net.run(within=3.0)
    assert any(host.outbox[frames.REPORTS] for host in net.hosts.values() if host.id), "the flood had ended"
    assert net.records.get((frames.REPORTS, 0)) == [b"mine"]


# New parents.


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1 << 30))
def test_a_machine_that_gets_a_new_parent_brings_what_was_not_delivered(seed: int) -> None:
    rng = Random(seed)
    net = Network(seed, chunk=rng.choice([200, None]))
    ran = set()

    def remember(host: Host, kind: int, call: int, body: Any) -> None:
        ran.add(host.id)
        answer(host, kind, call, body)

    net.behave = remember
    net.build(RELAYED)
    want = numbered(2, 50, rng.choice([5, 3_000]))
    net.record(2, frames.REPORTS, want)
    call = net.call(frames.RUN, 0b11111100, "uptime")
    net.run(within=rng.random() * 0.06)
    if rng.random() < 0.5:
        net.power_off(0)
    net.cut(2)
    adopt = net.call(frames.CONNECT, 0b10, {"children": [{"id": 2}]})
    assert adopt
    assert net.run(lambda: net.up >> 2 & 1 and net.parent_of(2) is net.hosts[1]
                   and len(set(net.records.get((frames.REPORTS, 2), ()))) == 50, within=20.0)
    net.run(within=10.0)
    came = net.records[frames.REPORTS, 2]
    assert list(dict.fromkeys(came)) == want  # what comes twice comes behind its first time, so no gap is seen
    assert came[-1] == want[-1]
    assert net.answered(call) >> 2 & 1 == (2 in ran), "its result is lost"
    assert not 0b11111000 & ~(net.answered(call) | net.lost(call))  # 2 itself has moved: a command may have missed it
    assert not net.root.node.refused
    assert not net.hosts[1].node.refused


def test_a_relay_that_gets_a_new_parent_brings_what_its_machines_said() -> None:
    net = Network(seed=15)
    net.build(RELAYED)
    net.pause(0)
    call = net.call(frames.RUN, 0b00011101, "uptime")
    for machine in (0, 2, 3, 4):
        net.record(machine, frames.REPORTS, numbered(machine, 5, 10))
    net.run(within=1.0)
    net.cut(0)
    net.run(within=1.0)
    net.call(frames.CONNECT, 0b10, {"children": [{"id": 0, "subtree": machineset.pack(0b00011101)}]})
    net.run(within=10.0)
    assert not net.hosts[1].node.refused
    assert net.answered(call) == 0b00011101
    assert all(set(net.records[frames.REPORTS, machine]) == set(numbered(machine, 5, 10)) for machine in (0, 2, 3, 4))


# What the driver may hand in.


def test_an_answer_too_large_for_a_message_does_not_break_the_link() -> None:
    def much(host: Host, kind: int, call: int, body: Any) -> None:
        if kind == frames.RUN:
            host.node.emit(call, tree.DONE, bytes(body), host.network.now)

    net = Network(seed=16)
    net.behave = much
    net.build(RELAYED)
    call = net.call(frames.RUN, 0b100, frames.MAX_SIZE[frames.CONTROL])
    net.run(within=2.0)
    assert net.up == net.everyone
    assert net.answered(call, tree.DONE) | net.answered(call, tree.REFUSED) == 0b100


def test_machines_of_every_depth_know_the_clock_as_soon_as_they_are_up() -> None:
    """`start(at=)` may be the first thing that a scenario does: it need not wait for heartbeats."""
    net = Network(1)
    net.build(RELAYED)
    net.run(within=0.5)
    assert all(host.node.clock is not None for host in net.hosts.values())


def test_a_wide_node_asks_only_those_links_that_have_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Network(seed=1)
    net.build([None] * 40)
    net.run(within=3.0)
    asked: list[Link] = []
    tick = Link.tick

    def counted(link: Link, *arguments: Any) -> str | None:
        asked.append(link)
        return tick(link, *arguments)

    monkeypatch.setattr(Link, "tick", counted)
    for _ in range(50):
        call = net.call(frames.RUN, machineset.single(0), "uptime")
        assert net.run(lambda call=call: net.settled(call))
    busy = net.root.node.children[0]
    assert asked.count(busy) >= 50
    for link in net.root.node.children.values():  # one ping, its answer, and the delay in between
        assert link is busy or asked.count(link) < 12


def test_those_who_have_something_to_be_sent_are_known_without_asking_each() -> None:
    net = Network(seed=1)
    net.build([None] * 40)
    node = net.root.node
    assert not node.sendable
    node.command(frames.RUN, 100, machineset.of([3, 7]), b"", net.now)
    assert node.sendable == {3, 7}
    assert node.children[3].pull(1) and not node.children[3].pull(1)
    assert node.sendable == {7}
    node.command(frames.RUN, 101, machineset.of([5, 9]), b"", net.now)
    node.lost(7, "the connection closed", net.now)
    node.drop_child(5)
    assert node.sendable == {9}


def test_what_a_wide_node_has_planned_stays_bounded() -> None:
    net = Network(seed=1)
    net.build([None] * 40)
    for _ in range(400):
        net.call(frames.RUN, net.everyone, "uptime")
        net.run(within=0.02)
        assert len(net.root.node._alarms) < 8 * 40


@pytest.mark.parametrize("seed", range(5))
def test_children_that_boot_come_one_by_one_and_answer_whatever_comes_of_their_first_relay(seed: int) -> None:
    """As the root has it done: each machine by a CONNECT of its own, when it is ready."""
    net = Network(seed)
    net.build([None, None, 0, 1])
    late = list(range(4, 12))
    net.random.shuffle(late)
    lost = net.random.randrange(len(late))
    for count, machine in enumerate(late):
        if count == lost:
            below = net.up & ~0b1011
            net.cut(0)
            assert net.run(until=lambda: net.down & 1, within=10)
            assert not net.up & 1 and net.up & 0b1010 == 0b1010 and not net.up & net.down
            for orphan in machineset.members(net.down & below):  # what was below it is attached elsewhere
                part = machineset.pack(machineset.single(orphan))
                net.call(frames.CONNECT, 0b10, {"children": [{"id": orphan, "subtree": part}]})
        relay = machine % 2 if count < lost else 1
        net.call(frames.CONNECT, 1 << relay, {"children": [{"id": machine}]})
        net.run(within=net.random.random() / 10)
    everyone = (1 << 12) - 2
    assert net.run(until=lambda: net.up == everyone, within=10)
    call = net.call(frames.RUN, everyone, "uptime")
    assert net.run(until=lambda: net.settled(call), within=10)
    assert net.answered(call) == everyone and net.lost(call) == 0
