"""Trees of the protocol core on a virtual clock: everyone is reached, and the root pays for its own children only."""

from __future__ import annotations

import pytest

from fanout.agent.core.link import Link
from fanout.bench.grove import LOG, Grove
from fanout.root.model import DEFAULT
from fanout.root.planner import plan


def grove(n: int, depth: int) -> Grove:
    made = Grove(plan(n, relays=None, depth=depth, width=None).parents, DEFAULT)
    made.operation("connect", made.connect)
    assert made.up == made.everyone
    return made


@pytest.mark.parametrize(("n", "depth"), [(20, 1), (120, 2), (120, 3), (121, 4)])
def test_what_is_done_on_all_costs_the_root_three_messages_a_child(n: int, depth: int) -> None:
    made = grove(n, depth)
    children = len(made.children[None])
    for operation in (made.command, made.barrier):
        cost = made.operation("", operation)
        assert cost.messages_in + cost.messages_out == 3 * children
        assert 0 < cost.seconds < 1


def test_logs_arrive_whole_and_few_messages_carry_them() -> None:
    made = grove(120, 2)
    cost = made.operation("logs", made.logs)
    assert made.logged == 120 * len(LOG)
    assert cost.bytes_in < 1.1 * made.logged and cost.messages_in < 60


@pytest.mark.parametrize("depth", [2, 3])
def test_when_a_relay_is_lost_all_but_it_come_back(depth: int) -> None:
    made = grove(120, depth)
    everyone = made.everyone
    made.operation("loss", made.lose_relay)
    assert made.up == made.everyone and (everyone & ~made.up).bit_count() == 1
    cost = made.operation("command", made.command)
    assert cost.messages_in <= 2 * len(made.children[None])


def test_a_wide_tree_costs_no_more_for_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = 0
    pull = Link.pull

    def counted(link: Link, limit: int) -> bytes:
        nonlocal pulled
        pulled += 1
        return pull(link, limit)

    monkeypatch.setattr(Link, "pull", counted)
    each = []
    for n in (30, 300):
        pulled = 0
        made = grove(n, 1)
        made.operation("command", made.command)
        each.append(pulled / n)
    narrow, wide = each
    assert wide < 1.5 * narrow


def test_a_hundred_fit_into_three_megabytes() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        kept = grove(100, 2)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.up and size < 3_000_000


def test_what_never_comes_is_an_error() -> None:
    made = grove(3, 1)
    with pytest.raises(RuntimeError, match="virtual seconds"):
        made.run(lambda: False)
