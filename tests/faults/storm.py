"""The campaign against the pure core: a simulated tree, a root that recovers as the session does, and many faults.

`python -m tests.faults.storm --seed 1 --runs 200`: each run is a tree of up to four levels under about thirty faults
(links cut, agents that stop and go on, machines without power).  Every surviving machine answers each command once,
and each of its records arrives once and in order.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core import node as tree
from fanout.root.topology import Topology
from tests.agent.core.network import Host, Network

ATTEMPT, PAUSE = 3.0, 0.5  # s, as the session's
CAUGHT_UP = 120.0  # s of virtual time


class Storm(Network):
    """A network whose root attaches again what it has lost."""

    def __init__(self, seed: int, parents: Sequence[int | None]) -> None:
        super().__init__(seed, chunk=None, lease=1e6)
        self.topology = Topology(parents)
        self.detached = 0
        self.dead = 0
        """Machines that were given up."""
        self.outstanding: dict[int, tuple[int, int, bytes]] = {}
        self.refusals: list[str] = []
        self.trying: set[int] = set()
        self.ran: Counter[tuple[int, int]] = Counter()
        self.behave = self._run
        self.stopped: dict[int, list[Any]] = {}

    def _run(self, host: Host, kind: int, call: int, body: Any) -> None:
        if kind == frames.RUN:
            assert host.id is not None
            self.ran[call, host.id] += 1
            host.node.emit(call, tree.DONE, [host.id % 3], self.now)

    def grow(self) -> None:
        self.build(self.topology.parents)

    def call(self, kind: int, targets: int, body: Any) -> int:
        if kind == frames.CONNECT:
            for spec in body["children"]:
                self.topology.calls[spec["id"]] = self._calls + 1
        elif kind == frames.RUN:
            self.outstanding[self._calls + 1] = (kind, targets, codec.pack(body))
        return super().call(kind, targets, body)

    def connect(self, parent: Host, machine: int, call: int, subtree: int = 0) -> None:
        """What is below it, and was, has been told by `await_child` or the CONNECT."""
        super().connect(parent, machine, call)
        if parent is self.root:
            self.topology.calls[machine] = self._under[machine]

    def event(self, call: int, phase: int, extra: bytes, value: bytes, machines: int) -> None:
        if phase == tree.UP:
            tops = [m for m in machineset.members(machines) if self.topology.calls.get(m) == call]
            hang = 0
            for top in tops:
                hang |= self.topology.subtree(top)
            machines &= hang & ~self.dead
            self.detached &= ~machines
            if not machines:
                return
            facts = codec.unpack(value)
            if "resumed" not in facts:
                super().event(call, phase, extra, value, machines)
                return
            self.up |= machines
            for number, (kind, targets, body) in sorted(self.outstanding.items()):
                if targets & machines:
                    self.root.node.command(kind, number, targets & machines, body, self.now)
            for machine in machineset.members(hang & self.detached):
                self._retry(machine)
        elif phase == tree.DOWN:
            machines = self.topology.reached_by(call, machines) & ~self.dead
            if "refused" in codec.unpack(value)[1]:
                self.refusals.append(codec.unpack(value)[1])
            self.up &= ~machines
            self.detached |= machines
            for machine in machineset.members(machines):
                self._retry(machine)
        else:
            if phase == tree.DONE and call in self.outstanding:
                kind, targets, body = self.outstanding[call]
                self.outstanding[call] = (kind, targets & ~machines, body)
            super().event(call, phase, extra, value, machines)

    def _retry(self, machine: int) -> None:
        if machine not in self.trying:
            self.trying.add(machine)
            self.at(self.now + PAUSE, self._attach, machine)

    def _attach(self, machine: int) -> None:
        self.trying.discard(machine)
        if not self.detached >> machine & 1:
            return
        if machine in self.hosts and not self.hosts[machine].alive:
            self.detached &= ~machineset.single(machine)
            self.dead |= machineset.single(machine)
            return
        relays = self.topology.relays & self.up & ~self.topology.subtree(machine)
        parent = self.random.choice([None, *machineset.members(relays)])
        self.topology.move(machine, parent)
        subtree, past = self.topology.subtree(machine) & (self.up | self.detached), self.topology.behind[machine]
        if parent is None:
            self.root.node.await_child(machine, subtree, past)
            self.connect(self.root, machine, 0)
        else:
            spec = {"id": machine, "subtree": machineset.pack(subtree), "past": machineset.pack(past)}
            self.call(frames.CONNECT, machineset.single(parent), {"children": [spec]})
        self.trying.add(machine)
        self.at(self.now + ATTEMPT, self._attach, machine)

    # Faults.

    def stop(self, machine: int, seconds: float) -> None:
        """Its agent reads nothing for a while; what arrives waits."""
        host = self.hosts[machine]
        if not host.alive or machine in self.stopped:
            return
        held = self.stopped[machine] = []
        pipes = [wire.up for wire in host.below.values()] + ([host.wire.down] if host.wire is not None else [])
        for pipe in pipes:
            pipe.paused = True
        held += pipes
        self.at(self.now + seconds, self._go_on, machine)

    def _go_on(self, machine: int) -> None:
        for pipe in self.stopped.pop(machine):
            pipe.resume()


def random_parents(rng: Random) -> list[int | None]:
    count = rng.randint(8, 30)
    tops = rng.randint(1, 4)
    relays = tops + rng.randint(0, 6)
    return [None if i < tops else rng.randrange(min(i, relays)) for i in range(count)]


def storm(seed: int, faults: int = 30) -> Counter[str]:
    """One run; AssertionError when anything is lost, doubled or out of order.  Returns the faults by kind."""
    rng = Random(seed)
    net = Storm(seed, random_parents(rng))
    net.grow()
    assert net.up == net.everyone
    struck: Counter[str] = Counter()
    fated: set[int] = set()
    calls = []
    said = dict.fromkeys(range(len(net.topology.parents)), 0)
    for number in range(faults):
        for machine in said:
            if rng.random() < 0.5 and machine not in fated:
                many = rng.randint(1, 8)
                kind = frames.REPORTS
                net.record(machine, kind, [b"%d" % (said[machine] + i) for i in range(many)])
                said[machine] += many
        if number % 3 == 0:
            calls.append(net.call(frames.RUN, net.everyone & ~net.dead, "x"))
        machine = rng.randrange(len(net.topology.parents))
        kind_of = rng.choice(["cut", "cut", "stop", "power"])
        if machine in fated or (kind_of == "power" and len(fated) > len(net.topology.parents) // 5):
            continue
        struck[kind_of] += 1
        if kind_of == "cut":
            net.cut(machine)
        elif kind_of == "stop":
            net.stop(machine, rng.uniform(0.5, 9.0))
        else:
            fated.add(machine)
            net.power_off(machine)
        net.run(within=rng.choice([0.0, 0.05, 1.0, 8.0]))
    alive = net.everyone & ~machineset.of(fated)

    def caught_up() -> bool:
        return (net.up & alive == alive and all(not alive & ~net.answered(call) for call in calls)
                and all(len(set(net.records.get((frames.REPORTS, m), []))) == said[m]
                        for m in machineset.members(alive)))

    until = net.now + CAUGHT_UP
    while not caught_up() and net.now < until:
        net.run(within=1.0)
    where = f"seed {seed}"
    assert not net.refusals and not net.root.node.refused, (where, net.refusals, net.root.node.refused)
    assert net.up & alive == alive, (where, "not attached", machineset.members(alive & ~net.up))
    for call in calls:
        assert not alive & ~net.answered(call), (where, call, machineset.members(alive & ~net.answered(call)))
    assert all(count == 1 for count in net.ran.values()), (where, "a command ran twice")
    for machine in machineset.members(alive):
        came = net.records.get((frames.REPORTS, machine), [])
        once, last = [], -1
        for payload in came:  # as the session does: what came before is passed over
            if int(payload) > last:
                once.append(int(payload))
                last = int(payload)
        assert once == list(range(said[machine])), (where, machine, once[:10], said[machine])
    assert caught_up(), where
    return struck


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    began, total = time.monotonic(), Counter[str]()
    for seed in range(options.seed, options.seed + options.runs):
        total += storm(seed)
    seconds = time.monotonic() - began
    print(f"{options.runs} runs in {seconds:.1f} s, {sum(total.values())} faults: {dict(total)}; lost 0, doubled 0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
