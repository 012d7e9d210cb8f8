"""From what trials found to the constants of the model.  Pure.

Only the trial of one machine and those of one size are looked at, CALIBRATED or the nearest there is: what the model
says of all others is a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from fanout.root.model import Costs, predict, rounds, ship

CALIBRATED = 100
FASTER = 4  # times the root's bandwidth
SLOWER = 1.2  # times what the root and this host explain
HERE = 0.002  # s of CPU on this host for a machine, below which machines are taken to be elsewhere

Found = tuple[int, str, tuple[int, ...], Callable[[str], float | None]]
"""(machines, shape, fans, the median of a figure)"""


def calibrate(rows: Sequence[Found], costs: Costs, cores: int) -> Costs:
    """`costs`: for what these trials do not tell; `cores`: of this host."""
    one = next((row for row in rows if row[0] == 1), None)
    flats = [row for row in rows if len(row[2]) == 1 and row[0] > 1]
    if one is None or not flats:
        return costs
    flat = min(flats, key=lambda row: abs(row[0] - CALIBRATED))
    costs = _flat(one, flat, replace(costs, here_cores=cores))
    if costs.here_direct:
        # The least: what else this host has to do meanwhile counts in a transfer that takes long.
        seen = [found for row in rows if row[0] > 1 and (found := row[3]("files_here")) is not None]
        costs = replace(costs, here_byte=min(seen, default=0.0))
    trees = [row for row in rows if len(row[2]) == 2 and row[0] == flat[0]]
    if trees:
        costs = _tree(one, min(trees, key=lambda row: row[2][0]), costs)
    return costs


def _flat(one: Found, flat: Found, costs: Costs) -> Costs:
    n = flat[0]

    def each(key: str, default: float) -> float:
        """What each further machine adds."""
        first, all_of = one[3](key), flat[3](key)
        return default if first is None or all_of is None else max(0.0, (all_of - first) / (n - 1))

    dial = one[3]("ready") or costs.dial
    root_cpu = each("connect_cpu", costs.root_cpu)
    here = each("connect_here", 0.0)
    here = here if here > HERE else 0.0
    messages = (flat[3]("command_messages") or 0.0)
    trip = one[3]("trip")
    return replace(
        costs,
        dial=dial,
        root_cpu=root_cpu,
        # Where machines are on this host, what it has for them is in the way, not what the root does.
        root_gap=root_cpu if here else _gap(flat[3]("ready"), n, dial, root_cpu),
        here_direct=here,
        here_start=each("command_here", 0.0) if here else 0.0,
        root_bandwidth=flat[3]("files_rate") or costs.root_bandwidth,
        root_message=(flat[3]("command_cpu") or 0.0) / messages if messages else costs.root_message,
        start=max(0.0, trip - 2 * costs.trip) if trip is not None else costs.start,
        memory=each("memory", costs.memory),
    )


def _tree(one: Found, row: Found, costs: Costs) -> Costs:
    n, _, fans, found = row
    top, fan = fans
    costs = replace(costs, bandwidth=_bandwidth(n, fans, found("files_rate"), costs))
    first, all_of = one[3]("connect_cpu"), found("connect_cpu")
    if first is not None and all_of is not None:
        relayed = (all_of - first - (top - 1) * costs.root_cpu) / (n - top)
        costs = replace(costs, root_relayed=max(0.0, relayed))
    if costs.here_direct:
        here = found("connect_here")
        return costs if here is None else replace(
            costs, here_relayed=max(0.0, (here - top * costs.here_direct) / (n - top)))
    ready = found("ready")
    # All that is not the root's own part is spent by relays, each on its children one after the other.
    spent = None if ready is None else ready - predict(top, (top,), costs).ready
    return replace(costs, relay_gap=_gap(spent, fan, costs.dial, costs.relay_gap))


def _bandwidth(n: int, fans: tuple[int, ...], rate: float | None, costs: Costs) -> float:
    """Out of a relay: at least what it was seen to send, and no more where nothing else explains the time.

    Else it stays unknown, and is not taken for much faster than the root's: wide relays would gain little by it, and
    lose much if it is not so.
    """
    if not rate:
        return costs.bandwidth
    seen = fans[1] * rate / n
    others = ship(1.0, n, fans, replace(costs, bandwidth=math.inf))
    return seen if n / rate > SLOWER * others else max(seen, min(costs.bandwidth, FASTER * costs.root_bandwidth))


def _gap(seconds: float | None, fan: int, dial: float, known: float) -> float:
    """Between two dials of a node that took so long for its children; `known` where logins alone explain it."""
    if seconds is None or fan < 2 or seconds <= 1.05 * rounds(fan) * dial:
        return known
    return (seconds - dial) / (fan - 1)
