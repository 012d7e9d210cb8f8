"""Random and damaged input at the frame layer and at real nodes: `python -m tests.faults.fuzz --inputs 1000000`.

A node may refuse what it gets with ProtocolError, at the root by cutting the child off; anything else is a bug.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core import node as tree
from fanout.agent.core.codec import ProtocolError
from fanout.agent.core.node import Node

KINDS = [*range(52), 255]


def value(rng: Random, depth: int = 0) -> object:
    """Plain data of any shape."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 6:
        return [None, rng.getrandbits(rng.choice([1, 8, 40])), rng.random(), "x" * rng.randrange(4),
                rng.randbytes(rng.randrange(12)), True][kind]
    if kind < 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {rng.choice(["id", "children", "subtree", "resumed", "lease"]): value(rng, depth + 1) for _ in range(3)}


def body(rng: Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(64))
    if kind == 1:
        event = [merge.key(rng.randrange(5), rng.randrange(12)), codec.pack(value(rng)),
                 machineset.pack(rng.getrandbits(4))]
        return codec.pack([event, *([value(rng)] if rng.random() < 0.3 else [])])
    if kind == 2:
        return frames.record(rng.randrange(4), codec.pack(value(rng)))
    if kind == 3:
        return codec.pack(["build", {"resumed": [rng.randrange(9), machineset.pack(rng.getrandbits(4))]}])
    return codec.pack(value(rng))


def frame(rng: Random, number: int) -> bytes:
    made = frames.encode(rng.randrange(3), rng.choice(KINDS), number if rng.random() < 0.7 else rng.randrange(9),
                         machineset.pack(rng.getrandbits(4)) if rng.random() < 0.7 else rng.randbytes(3), body(rng))
    if rng.random() < 0.1:
        at = rng.randrange(len(made))
        made = made[:at] + rng.randbytes(1) + made[at + 1 :]
    return made if rng.random() < 0.95 else made[: rng.randrange(len(made))]


def parent(root: bool) -> Node:
    node = Node("build", 0.0, root=root)
    if not root:
        node.open_parent({}, 0.0)
        node.receive(None, frames.encode(0, frames.WELCOME, 0, b"", codec.pack({"id": 1})), 0.0)
    node.open_child(0, 1, {"id": 0, "name": "m0"}, 0.0)
    node.receive(0, frames.encode(0, frames.HELLO, 0, b"", codec.pack(["build", {}])), 0.0)
    return node


def play(rng: Random, counts: Counter[str]) -> None:
    """One conversation, until it is refused."""
    below = rng.random() < 0.7
    node = parent(rng.random() < 0.5)
    peer = 0 if below or node.root else None
    for number in range(1, 30):
        counts["inputs"] += 1
        try:
            node.receive(peer, frame(rng, number), float(number) / 10)
            node.tick(float(number) / 10)
        except ProtocolError:
            assert peer is None, "a child's nonsense must not come out at its parent"
            counts["refused by a child"] += 1
            return
        while node.inbox:
            item = node.inbox.popleft()
            if item[0] == tree.CLOSE:
                counts["refused by a parent" if node.refused else "said goodbye"] += 1
                return
    counts["not refused"] += 1


def fuzz(inputs: int, seed: int = 1) -> Counter[str]:
    counts: Counter[str] = Counter()
    while counts["inputs"] < inputs:
        rng = Random(seed)
        try:
            play(rng, counts)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        seed += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    counts = fuzz(options.inputs, options.seed)
    print(f"{dict(counts)} in {time.monotonic() - began:.0f} s; nothing but refusals")
    return 0


if __name__ == "__main__":
    sys.exit(main())
