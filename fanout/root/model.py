"""What a tree costs before it is built: seconds until it is ready and for what follows, and what the root pays.  Pure.

A tree is given by its *fans*: the children of the root, of each of those, and so on to the leaves.  Three things bound
the time to connect, and the largest holds:

- the path: each level costs one dial, then the time between two dials for each child that a node has, or whole
  rounds of dials where the bound on handshakes in flight is what holds them up;
- the root's thread: its CPU for each machine that it connects, and a little for each other;
- the root's own host, where machines are on it too (local processes, a lab): all their CPU over its cores.

The constants are measured by `fanout bench` and kept for each fleet (`root/constants.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fanout.agent.core.dialer import START
from fanout.agent.core.merge import HOLD

HANDSHAKES = 32
"""In flight at a node, unless a session says otherwise (`root/settings.py`)."""
INTRODUCED = 11
"""Bytes of a machine in the list of all machines that each is given."""


@dataclass(frozen=True)
class Costs:
    """Constants of a fleet, seconds unless said.  The defaults: machines of their own, a data centre's network."""

    dial: float = 0.2
    """From the first packet until a single machine's agent is up: login, Python, the agent."""
    root_gap: float = 0.007
    """Between two machines that the root dials: what it spends on each, in its one thread."""
    relay_gap: float = 0.010
    """Between two machines that a relay dials, by an `ssh` each."""
    root_cpu: float = 0.006
    """CPU of the root for a machine that it connects itself."""
    root_relayed: float = 0.0005
    """... and for one that a relay connects: what it is told of it, and the word that it is up."""
    here_direct: float = 0.0
    """CPU that a machine connected by the root costs the root's host besides; 0 where machines are elsewhere."""
    here_relayed: float = 0.0
    """... and one that a relay connects."""
    here_start: float = 0.0
    """... and a program started on a machine."""
    here_cores: int = 1
    """Cores of the root's host."""
    trip: float = 0.0005
    """For a message over one link, one way."""
    start: float = 0.003
    """To start a program that does nothing, and to see it end."""
    root_message: float = 0.0002
    """CPU of the root for a message, in or out."""
    relay_message: float = 0.0003
    """... and of a relay."""
    here_byte: float = 0.0
    """... and a byte of a file that comes to a machine."""
    root_bandwidth: float = 25e6
    """Bytes a second out of the root: it often is in an office or at home, where the line up is a slow one."""
    bandwidth: float = 100e6
    """... and out of a relay."""
    payload: int = 100_000
    """Bytes of the agent as it is sent to each machine."""
    memory: float = 60e3
    """Bytes of the root for each of its own connections."""


DEFAULT = Costs()


@dataclass(frozen=True)
class Prediction:
    ready: float
    """Seconds until every agent is up."""
    command: float
    """Seconds for a later command on all machines, from the call to the last answer."""
    barrier: float
    """Seconds from the last arrival at a barrier of all to the last release."""
    root_cpu: float
    """CPU seconds of the root, connecting."""
    root_command_cpu: float
    """... for a command on all."""
    root_messages: int
    """In and out at the root for a command on all."""
    root_bytes: float
    """Sent by the root while connecting."""
    root_memory: float
    """Bytes beyond those of the process itself."""
    connections: int
    """Of the root: its descriptors."""
    bound: str
    """What holds up the connecting most, in words."""
    ship: float
    """Seconds for files from the root to be on every machine, once all are ready."""


def predict(n: int, fans: Sequence[int], costs: Costs, size: int = 0) -> Prediction:
    """`n` machines in a tree of these fans, the root's first, which are shipped files of `size` bytes in all."""
    top = fans[0]
    spans = [
        _span(fan, costs.root_gap if level == 0 else costs.relay_gap, _bandwidth(level, costs), costs)
        for level, fan in enumerate(fans)]
    # A relay's word that its child is up waits for that of the others: only then does the next level begin.
    path = sum(seconds for seconds, _ in spans) + HOLD * max(0, len(fans) - 2)
    cpu = top * costs.root_cpu + (n - top) * costs.root_relayed
    shared = (top * costs.here_direct + (n - top) * costs.here_relayed + cpu) / costs.here_cores
    introduce = sum(_sending(n * INTRODUCED, fans, costs))
    here = costs.dial + shared if costs.here_direct else 0.0
    alone = costs.dial + cpu
    if here > max(path, alone):
        bound = "the CPU of this host, which has the machines too"
    elif alone > path:
        bound = "the root: its CPU for all machines, in one thread"
    else:
        level = max(range(len(fans)), key=lambda i: spans[i][0])
        bound = f"{'the root' if level == 0 else f'relays at level {level}'}: {spans[level][1]}"
    # Down and up; the third message for each child is an acknowledgement, which nobody waits for.
    way = sum(2 * costs.trip + 2 * fan * (costs.root_message if level == 0 else costs.relay_message)
              for level, fan in enumerate(fans))
    command = max(way + costs.start, 2 * costs.trip + n * costs.here_start / costs.here_cores)
    return Prediction(
        ready=max(path, alone, here) + introduce,
        command=command,
        barrier=way,
        root_cpu=cpu,
        root_command_cpu=3 * top * costs.root_message,
        root_messages=3 * top,
        root_bytes=top * costs.payload + (n - top) * 400 + top * n * INTRODUCED,
        root_memory=top * costs.memory + n * 1000,
        connections=top,
        bound=bound,
        ship=ship(size, n, fans, costs),
    )


def ship(size: float, n: int, fans: Sequence[int], costs: Costs) -> float:
    """Seconds until a file of so many bytes is on all machines.

    Relays send on what they have while more comes, so the slowest node says how long it takes, not the sum.
    """
    return max(*_sending(size, fans, costs), size * n * costs.here_byte / costs.here_cores)


def _sending(size: float, fans: Sequence[int], costs: Costs) -> list[float]:
    """Seconds that a node of each level sends, if each of its children gets so many bytes."""
    return [size * fan / _bandwidth(level, costs) for level, fan in enumerate(fans)]


def _bandwidth(level: int, costs: Costs) -> float:
    return costs.bandwidth if level else costs.root_bandwidth


def _span(fan: int, gap: float, bandwidth: float, costs: Costs) -> tuple[float, str]:
    """(seconds from the first dial of a node to its last child's agent, what bounds it)"""
    gap = max(gap, costs.payload / bandwidth)
    dialled = costs.dial + (fan - 1) * gap
    waited = rounds(fan) * costs.dial
    if waited > dialled:
        return waited, "rounds of handshakes, a login takes long"
    return dialled, "its CPU and network for each child" if (fan - 1) * gap > costs.dial else "one login's latency"


def rounds(fan: int) -> int:
    """Of handshakes, one bound of them in flight each: it begins small and doubles."""
    count, bound = 0, min(START, float(HANDSHAKES))
    while fan > 0:
        fan -= int(bound)
        bound = min(float(HANDSHAKES), 2 * bound)
        count += 1
    return count
