"""The tree while it changes: what the walks over all machines say, the index says; what was ever below is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.agent.core import machineset
from fanout.root.topology import ROOM, Topology

from .trees import chain

Parents = list[int | None]


def below(parents: Parents, top: int) -> set[int]:
    """By walking up from each machine."""
    found = set()
    for machine in range(len(parents)):
        at: int | None = machine
        while at is not None and at != top:
            at = parents[at]
        if at == top:
            found.add(machine)
    return found


@st.composite
def forests(draw: st.DrawFn) -> Parents:
    n = draw(st.integers(1, 20))
    return [draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(n)]


@given(forests(), st.data())
def test_through_all_moves_it_says_what_the_walks_say(parents: Parents, data: st.DataObject) -> None:
    topology, ever = Topology(parents), [below(parents, machine) for machine in range(len(parents))]
    relays = {parent for parent in parents if parent is not None}
    for _ in range(data.draw(st.integers(0, 8))):
        machine = data.draw(st.integers(0, len(parents) - 1))
        parent = data.draw(st.sampled_from([None, *sorted(relays - below(parents, machine))]))
        parents[machine] = parent
        topology.move(machine, parent)
        carried = set().union(*(ever[one] for one in below(parents, machine)))
        for above in topology.way(machine):
            ever[above] |= carried
    assert topology.parents == parents
    for machine in range(len(parents)):
        assert set(machineset.members(topology.subtree(machine))) == below(parents, machine)
        assert set(machineset.members(topology.behind[machine])) == ever[machine]
    for node in (None, *range(len(parents))):
        own = {child for child, parent in enumerate(parents) if parent == node}
        assert set(machineset.members(topology.children(node))) == own


def test_nobody_hangs_below_itself_nor_below_what_is_no_relay() -> None:
    topology = Topology(chain(2, 2, 1))
    for parent in (0, 2, 10):
        with pytest.raises(ValueError, match="machine 0 cannot hang below"):
            topology.move(0, parent)
    assert topology.parents == chain(2, 2, 1)


def test_a_relay_takes_in_others_up_to_the_widest_that_was_planned() -> None:
    assert Topology([None]).width == Topology(chain(2, 3)).width == ROOM
    assert Topology(chain(2, ROOM + 1)).width == ROOM + 1


def test_where_moves_are_forgotten_each_may_carry_what_any_other_said() -> None:
    assert Topology(chain(2, 2), forgotten=True).behind == [(1 << 6) - 1] * 6


def test_news_is_current_only_if_it_comes_by_a_link_on_the_way_there_is_now() -> None:
    topology, everyone = Topology(chain(2, 2)), 0b111111  # 0 and 1 are relays; 2, 3 and 4, 5 below them
    topology.calls = {0: 7, 1: 8, 2: 9}
    assert topology.reached_by(7, everyone) == 0b1101 and topology.reached_by(8, everyone) == 0b110010
    assert topology.reached_by(9, everyone) == 0b100, "a link below a machine says nothing of it"
    topology.move(2, 1)
    assert topology.reached_by(8, 0b100) == 0b100 and not topology.reached_by(7, 0b100)
