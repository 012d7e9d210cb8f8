"""Who hangs below whom, and who ever did: the tree as it is while links are lost and made anew.  Pure.

What always holds: nobody hangs below itself, and whatever hung below a machine hung below all that are above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fanout.agent.core import machineset

ROOM = 64
"""Children that a relay may have when it takes in those of others, unless the planned tree is wider."""


class Topology:
    def __init__(self, parents: Sequence[int | None], *, forgotten: bool = False) -> None:
        """`parents[i]` is the machine that machine i hangs below; None: the root itself.

        `forgotten`: machines may have been moved before, and nobody knows where from.
        """
        self.parents = list(parents)
        self._children: dict[int | None, int] = {}
        for machine, parent in enumerate(parents):
            self._children[parent] = self.children(parent) | machineset.single(machine)
        self.relays = machineset.of(parent for parent in self._children if parent is not None)
        """The machines that were made to be relays: whoever is moved goes below one of them, or to the root."""
        self.width = max([ROOM, *(machineset.count(self.children(relay)) for relay in machineset.members(self.relays))])
        """Children that a relay may get when others are lost."""
        everyone = machineset.of(range(len(parents)))
        self.behind = [everyone if forgotten else machineset.single(machine) for machine in range(len(parents))]
        """The machines that ever hung at or below each one: it may still carry what they said."""
        if not forgotten:
            for machine in range(len(parents)):
                self._note_way(machine)
        self.calls: dict[int, int] = {}
        """Machine -> the call under which it was last connected; what comes under another is out of date."""

    def children(self, node: int | None) -> int:
        """The machines directly below one; None asks for those of the root."""
        return self._children.get(node, 0)

    def subtree(self, machine: int) -> int:
        """The machines at and below this one."""
        found, todo = machineset.single(machine), [machine]
        while todo:
            below = self.children(todo.pop())
            found |= below
            todo += machineset.members(below & self.relays)
        return found

    def way(self, machine: int) -> Iterator[int]:
        """The machine, its parent, and so on up to a child of the root."""
        at: int | None = machine
        while at is not None:
            yield at
            at = self.parents[at]

    def move(self, machine: int, parent: int | None) -> None:
        """From now on the machine hangs below this relay or the root, with all that is below it."""
        if parent is not None and not (self.relays & ~self.subtree(machine)) >> parent & 1:
            raise ValueError(f"machine {machine} cannot hang below {parent}, which is no relay, or below it")
        self._children[self.parents[machine]] &= ~machineset.single(machine)
        self._children[parent] = self.children(parent) | machineset.single(machine)
        self.parents[machine] = parent
        self._note_way(machine)

    def _note_way(self, machine: int) -> None:
        for above in self.way(machine):
            self.behind[above] |= self.behind[machine]

    def reached_by(self, call: int, machines: int) -> int:
        """Those to whom the way leads over a link that was made under this call; its news of others is old."""
        return machineset.of(
            machine for machine in machineset.members(machines)
            if any(self.calls.get(above) == call for above in self.way(machine)))
