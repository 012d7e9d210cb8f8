"""Calibration: trials that cost what some constants say give back those constants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fanout.bench.calibrate import Found, calibrate
from fanout.root.model import DEFAULT, Costs, predict


def found(n: int, fans: tuple[int, ...], costs: Costs) -> Found:
    """What trials would find if the model were right."""
    cost, top = predict(n, fans, costs), fans[0]
    values = {
        "ready": cost.ready, "connect_cpu": cost.root_cpu, "command_cpu": cost.root_command_cpu,
        "command_messages": cost.root_messages, "memory": cost.root_memory,
        "connect_here": top * costs.here_direct + (n - top) * costs.here_relayed,
        "command_here": n * costs.here_start, "trip": 2 * costs.trip + costs.start,
        "files_rate": n / predict(n, fans, costs, 10**6).ship * 1e6, "files_here": costs.here_byte}
    return n, "", fans, values.get


def rows(costs: Costs) -> list[Found]:
    return [found(1, (1,), costs), found(100, (100,), costs), found(100, (8, 12), costs), found(20, (20,), costs)]


def test_machines_elsewhere() -> None:
    costs = replace(DEFAULT, dial=0.1, root_cpu=0.004, root_gap=0.009, relay_gap=0.05, start=0.02, root_message=0.001,
                    root_relayed=0.001, root_bandwidth=11e6, bandwidth=13e6)
    got = calibrate(rows(costs), DEFAULT, cores=4)
    assert got.here_direct == 0
    for name in ("dial", "root_cpu", "root_gap", "relay_gap", "start", "root_message", "root_relayed",
                 "root_bandwidth", "bandwidth"):
        assert getattr(got, name) == pytest.approx(getattr(costs, name), rel=0.2), name


def test_machines_on_this_host() -> None:
    costs = replace(DEFAULT, here_direct=0.03, here_relayed=0.05, here_start=0.002, here_cores=2, here_byte=2e-8)
    got = calibrate(rows(costs), DEFAULT, cores=2)
    assert (got.here_direct, got.here_relayed) == (pytest.approx(0.03), pytest.approx(0.05, rel=0.1))
    assert got.here_byte == costs.here_byte and got.bandwidth == costs.bandwidth
    assert predict(400, (8, 49), got, 10**8).ship == pytest.approx(predict(400, (8, 49), costs, 10**8).ship, rel=0.1)
    assert predict(400, (8, 49), got).ready == pytest.approx(predict(400, (8, 49), costs).ready, rel=0.1)


def test_a_relays_line_that_was_never_full_is_not_taken_for_a_fast_one() -> None:
    costs = replace(DEFAULT, root_bandwidth=2e6, bandwidth=50e6)
    assert calibrate(rows(costs), DEFAULT, cores=4).bandwidth == pytest.approx(8e6)


def test_what_was_not_measured_stays_as_it_was() -> None:
    assert calibrate([], DEFAULT, cores=2) == DEFAULT
    assert calibrate(rows(DEFAULT)[:1], DEFAULT, cores=2) == DEFAULT


def test_a_slow_login_is_not_taken_for_a_slow_root() -> None:
    costs = replace(DEFAULT, dial=2.0, root_cpu=0.004, root_gap=0.004)
    got = calibrate(rows(costs), DEFAULT, cores=4)
    assert got.root_gap == pytest.approx(0.004) and got.relay_gap == DEFAULT.relay_gap
