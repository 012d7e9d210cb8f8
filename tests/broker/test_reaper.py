"""Leases end when their time is over, when nobody is heard, when their tenant is gone; by a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.broker import leases, tenants
from fanout.broker.offers import Offer
from tests.broker.serving import Clock, Counting, Served, served
from tests.patience import eventually

IDLE = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock, tmp_path: Path) -> Iterator[Served]:
    with served(f"sqlite:///{tmp_path}/broker.db", clock=clock, idle=IDLE) as found:
        yield found


def test_a_lease_ends_with_its_ttl_whatever_its_client_says(broker: Served, clock: Clock) -> None:
    ada = broker.tenant()
    lease = ada.ready(ttl=100)["id"]
    for _ in range(3):
        clock.now += 30
        beaten = ada.post(f"/v1/leases/{lease}/heartbeat").json()
        assert beaten["idle_at"] <= beaten["expires_at"] and beaten["state"] == "ready"
    clock.now += 9.9
    assert ada.lease(lease)["state"] == "ready"
    clock.now += 0.2
    broker.broker.nudge()
    assert ada.until(lease, "ended")["cause"] == "ttl"
    late = ada.post(f"/v1/leases/{lease}/heartbeat")
    assert late.status_code == 200 and late.json()["state"] == "ended"


def test_a_lease_ends_when_its_client_is_silent(broker: Served, clock: Clock) -> None:
    ada = broker.tenant()
    silent, heard = ada.ready()["id"], ada.ready()["id"]
    clock.now += IDLE - 1
    assert ada.post(f"/v1/leases/{heard}/heartbeat").status_code == 200
    clock.now += 2
    broker.broker.nudge()
    assert ada.until(silent, "ended")["cause"] == "idle"
    assert ada.lease(heard)["state"] == "ready" and list(Counting.there) == [heard]


def test_a_lease_that_is_still_being_made_ends_too(broker: Served, clock: Clock) -> None:
    broker.broker.offers = {"stuck": Offer("stuck", "counting:stuck")}
    ada = broker.tenant()
    one, other = ada.ask().json()["id"], ada.ask().json()["id"]
    eventually(lambda: len(Counting.there) == 2)
    assert ada.delete(f"/v1/leases/{one}").status_code == 202
    assert ada.until(one, "ended")["cause"] == "released"
    clock.now += IDLE
    broker.broker.nudge()
    assert ada.until(other, "ended")["cause"] == "idle" and not Counting.there


def test_a_disabled_tenant_has_nothing_any_more(broker: Served) -> None:
    ada, bob = broker.tenant("ada"), broker.tenant("bob")
    hers, his = ada.ready()["id"], bob.ready()["id"]
    with broker.broker.store.begin() as session:
        tenants.disable(session, "ada", 0.0)
    assert ada.get("/v1/leases").status_code == 401
    eventually(lambda: list(Counting.there) == [his])
    with broker.broker.store.begin() as session:
        assert leases.of(session, tenants.named(session, "ada").id, hers).cause == "disabled"


def test_a_release_that_fails_is_tried_again_and_its_machines_count_until_then(broker: Served, clock: Clock) -> None:
    ada = broker.tenant(machines=2)
    lease = ada.ready(2)["id"]
    Counting.broken = True
    ada.delete(f"/v1/leases/{lease}")
    eventually(lambda: "lease.not-released" in ada.audit())
    assert ada.lease(lease)["state"] == "ending"
    assert ada.ask(1).json()["quota"] == "machines"
    assert "the cloud is down" not in ada.get("/v1/audit").text
    Counting.broken = False
    clock.now += 2 * leases.RETRY
    broker.broker.nudge()
    ada.until(lease, "ended")
    assert Counting.reclaimed == [{"counted": lease}], "another instance goes by what the store remembers"
    ada.ready(2)


def test_what_ended_long_ago_is_forgotten(broker: Served, clock: Clock) -> None:
    ada = broker.tenant()
    lease = ada.ready()["id"]
    ada.delete(f"/v1/leases/{lease}")
    ada.until(lease, "ended")
    clock.now += 89 * 86400
    broker.broker.nudge()
    assert ada.lease(lease)
    clock.now += 2 * 86400
    broker.broker.nudge()
    eventually(lambda: ada.get(f"/v1/leases/{lease}").status_code == 404)
    assert ada.audit() == []
