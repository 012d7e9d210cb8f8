"""What a tenant can do over HTTP, what it cannot, and what it is told then."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from fanout.broker import leases, tenants
from fanout.broker.limits import BODY
from fanout.broker.offers import Offer
from tests.broker.serving import Counting, Served, served


def test_a_lease_is_granted_made_used_and_ended(broker: Served) -> None:
    ada = broker.tenant()
    answer = ada.ask(3, roles={"boot": 1, "peer": 2}, ttl=600)
    assert answer.status_code == 202 and answer.headers["cache-control"] == "no-store"
    lease = answer.json()
    assert lease["state"] == "making" and lease["machines"] == 3 and lease["ttl"] == 600
    assert answer.headers["location"] == f"/v1/leases/{lease['id']}"
    ready = ada.until(lease["id"], "ready")
    [request] = Counting.asked
    assert (request.run, request.machines, dict(request.roles)) == (lease["id"], 3, {"boot": 1, "peer": 2})
    assert request.ttl == 600
    assert [host["name"] for host in ready["hosts"]] == ["m0", "m1", "m2"]
    assert ready["hosts"][0]["host_keys"] and ready["login_key"] == f"KEY OF {lease['id']}"
    assert "/root/secret" not in str(ready) and "key" not in ready["hosts"][0]
    assert ada.delete(f"/v1/leases/{lease['id']}").status_code == 202
    ended = ada.until(lease["id"], "ended")
    assert ended["cause"] == "released" and ended["hosts"] is None and ended["login_key"] is None
    assert ada.delete(f"/v1/leases/{lease['id']}").status_code == 200, "it may be said again"
    assert ada.audit() == ["tenant.added", "lease.granted", "lease.ready", "lease.ending", "lease.ended"]
    assert [each["id"] for each in ada.get("/v1/leases").json()] == [lease["id"]]


def test_the_same_key_is_the_same_lease(broker: Served) -> None:
    ada, key = broker.tenant(machines=3), uuid.uuid4().hex
    first, again = ada.ask(2, key), ada.ask(2, key)
    assert first.json()["id"] == again.json()["id"]
    ada.until(first.json()["id"], "ready")
    assert ada.ask(2, key).status_code == 200 and len(Counting.asked) == 1
    other = ada.ask(3, key)
    assert other.status_code == 422 and other.json()["code"] == "idempotency-mismatch"
    assert broker.tenant("bob").ask(3, key).status_code == 202, "another tenant's keys are its own"


def test_what_is_anothers_does_not_exist(broker: Served) -> None:
    ada, bob = broker.tenant("ada"), broker.tenant("bob")
    lease = ada.ready()["id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/heartbeat")):
        theirs = bob.request(method, f"/v1/leases/{lease}{path}")
        nobodys = bob.request(method, f"/v1/leases/lease-0000{path}")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.json() == nobodys.json()
    assert bob.get("/v1/leases").json() == [] and bob.audit() == ["tenant.added"]
    assert bob.get("/v1/audit", params={"lease": lease}).json() == []
    assert ada.lease(lease)["state"] == "ready"


@pytest.mark.parametrize("token", ["wrong", "fanout_" + "A" * 43, "\xe9"])
def test_without_a_good_token_there_is_nothing(broker: Served, token: str) -> None:
    broker.tenant()
    for path in ("/v1/leases", "/v1/offers", "/v1/tenant", "/v1/audit"):
        answer = httpx.get(
            broker.url + path, headers={"Authorization": f"Bearer {token}".encode("latin-1")}, trust_env=False
        )
        problem(answer, 401, "unauthorized")
    assert httpx.get(f"{broker.url}/v1/leases", trust_env=False).headers["www-authenticate"] == "Bearer"


def test_a_token_is_stored_as_its_hash_and_can_be_replaced(broker: Served) -> None:
    token = broker.token()
    assert len(token) > 43 and broker.client(token).get("/v1/tenant").json()["name"] == "ada"
    with broker.broker.store.begin() as session:
        assert token not in str(vars(tenants.named(session, "ada")))
        new = tenants.replace_token(session, "ada", 0.0)
    assert broker.client(token).get("/v1/tenant").status_code == 401
    assert broker.client(new).get("/v1/tenant").status_code == 200


def test_each_quota_refuses_by_name_and_says_what_to_do(broker: Served) -> None:
    ada = broker.tenant(machines=3, ttl=600.0, types=("c1.small",), cost_per_day=1.0)
    refused = {
        "ttl": ada.ask(1, ttl=601),
        "types": ada.ask(1),
    }
    for quota, answer in refused.items():
        assert problem(answer, 403, "quota-exceeded")["quota"] == quota
    assert ada.audit() == ["tenant.added", "lease.refused", "lease.refused"] and not Counting.asked
    bob = broker.tenant("bob", machines=3)
    bob.ready(2)
    told = problem(bob.ask(2), 403, "quota-exceeded")
    assert told["quota"] == "machines" and "1 you may still have" in told["detail"]
    bob.ready(1)


async def test_prices_types_and_regions_come_from_the_offer_or_its_fleet(tmp_path: Path) -> None:
    cheap = Offer("cheap", "counting", ("t1",), ("there",), 0.5)
    dear = Offer("dear", "counting:dear")
    with served(f"sqlite:///{tmp_path}/b.db", cheap, await dear.completed()) as broker:
        ada = broker.tenant(regions=("there",))
        assert ada.get("/v1/offers").json()[1] == {
            "name": "dear", "types": ["c1.small"], "regions": ["here"], "price": 10.0,
        }  # fmt: skip
        assert problem(ada.ask(1), 422, "no-such-offer")["remedy"] == "name one of: cheap, dear"
        assert problem(ada.ask(1, offer="dear"), 403, "quota-exceeded")["quota"] == "regions"
        bob = broker.tenant("bob", cost_per_day=1.0)
        assert problem(bob.ask(1, offer="dear", ttl=3600), 403, "quota-exceeded")["quota"] == "cost"
        bob.ready(2, offer="cheap", ttl=3600)
        assert problem(bob.ask(1, offer="cheap", ttl=60), 403, "quota-exceeded")["quota"] == "cost"
        assert bob.get("/v1/tenant").json()["cost_of_last_day"] == 1.0


def test_ttl_is_what_was_asked_or_the_default_within_the_quota(broker: Served) -> None:
    ada, bob = broker.tenant("ada", ttl=60.0), broker.tenant("bob")
    assert ada.ready()["ttl"] == 60 and bob.ready()["ttl"] == leases.DEFAULT_TTL


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"machines": 0}, "machines"),
        ({"machines": "many"}, "machines"),
        ({"machines": 2, "roles": {"a": 3}}, "cannot fill the roles"),
        ({"machines": 1, "roles": {"a b": 1}}, "roles"),
        ({"machines": 1, "price": 0}, "price"),
        ({"machines": 1, "ttl": -1}, "ttl"),
        ({"machines": 1, "offer": "other"}, "there is no offer 'other'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(broker: Served, wish: dict[str, object], words: str) -> None:
    answer = broker.tenant().post("/v1/leases", json=wish, headers={"Idempotency-Key": "12345678"})
    assert words in problem(answer, 422)["detail"] and not Counting.asked


def test_a_lease_without_a_key_is_refused(broker: Served) -> None:
    answer = broker.tenant().post("/v1/leases", json={"machines": 1})
    assert "idempotency-key" in problem(answer, 422, "invalid")["detail"].lower()


def test_a_path_that_is_not_there_and_a_body_that_is_no_json_are_problems_too(broker: Served) -> None:
    ada = broker.tenant()
    problem(ada.get("/v2/leases"), 404, "not-found")
    problem(ada.put("/v1/leases"), 405, "method-not-allowed")
    problem(ada.post("/v1/leases", content=b"{", headers={"Idempotency-Key": "12345678"}), 422, "invalid")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_request_is_refused_before_it_is_read(broker: Served, chunked: bool) -> None:
    half = b" " * (BODY // 2 + 1)
    content = iter([half, half]) if chunked else half * 2
    answer = broker.tenant().post("/v1/leases", content=content, headers={"Idempotency-Key": "12345678"})  # type: ignore[arg-type]
    problem(answer, 413, "too-large")


def test_who_asks_too_often_is_told_when_to_come_back(broker: Served) -> None:
    ada, bob = broker.tenant("ada"), broker.tenant("bob")
    broker.broker.rates._rate, broker.broker.rates._burst = 0.001, 3.0
    answers = [ada.get("/v1/tenant") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    problem(answers[-1], 429, "too-many-requests")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert bob.get("/v1/tenant").status_code == 200, "the others do not notice"


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ("failing", "no capacity"),
        ("surprising", "the fleet failed"),
        ("greedy", "gave 3 machines, and 2 were asked for"),
    ],
)
def test_a_fleet_that_fails_is_told_without_what_is_the_operators(
    broker: Served, offer: str, reason: str, counting: type[Counting]
) -> None:
    broker.broker.offers = {"it": Offer("it", f"counting:{offer}")}
    ada = broker.tenant()
    lease = ada.until(ada.ask(2).json()["id"], "ending", "ended")
    assert lease["cause"] == "failed" and reason in lease["reason"] and "operator" in lease["reason"]
    ada.until(lease["id"], "ended")
    assert "secret words" not in ada.get(f"/v1/leases/{lease['id']}").text + ada.get("/v1/audit").text
    assert not counting.there


def test_health_metrics_and_the_description_of_the_interface(broker: Served) -> None:
    ada = broker.tenant(machines=3)
    ada.ready(2)
    ada.ask(2)
    assert httpx.get(f"{broker.url}/healthz", trust_env=False).json() == {"status": "ok"}
    shown = httpx.get(f"{broker.url}/metrics", trust_env=False).text
    for line in (
        'fanout_broker_leases{state="ready"} 1.0',
        'fanout_broker_machines{state="ready"} 2.0',
        'fanout_broker_leases_granted_total{offer="counting"} 1.0',
        'fanout_broker_quota_refusals_total{quota="machines"} 1.0',
        'fanout_broker_requests_total{method="POST",route="/v1/leases",status="403"} 1.0',
    ):
        assert line in shown
    assert "ada" not in shown
    paths = httpx.get(f"{broker.url}/openapi.json", trust_env=False).json()["paths"]
    assert {"/v1/leases", "/v1/leases/{lease_id}", "/v1/leases/{lease_id}/heartbeat"} <= paths.keys()


def test_a_store_that_is_gone_is_said_and_not_shown(broker: Served) -> None:
    ada = broker.tenant()
    with broker.broker.store.begin() as session:
        session.execute(text("alter table tenants rename to elsewhere"))
    try:
        told = problem(ada.get("/v1/leases"), 503, "store")
        assert "tenants" not in str(told)
    finally:
        with broker.broker.store.begin() as session:
            session.execute(text("alter table elsewhere rename to tenants"))


def problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, str]:
    """What was answered, which is a problem with all that belongs to one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, str] = answer.json()
    assert body["detail"] and body["remedy"] and body["title"] and body["type"].endswith(body["code"])
    assert code in (None, body["code"])
    return body


def test_quotas_that_are_changed_count_from_the_next_lease_on(broker: Served) -> None:
    with broker.tenant(machines=1) as client:
        client.ready(1)
        assert client.ask(1).json()["quota"] == "machines"

        def change(**quotas: Any) -> None:
            with broker.broker.store.begin() as session:
                tenants.change(session, "ada", time.time(), **quotas)

        change(machines=2)
        client.ready(1)
        change(machines=1)
        assert client.ask(1).json()["quota"] == "machines"
        assert [lease["state"] for lease in client.get("/v1/leases").json()] == ["ready", "ready"]
