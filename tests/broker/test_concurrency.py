"""Clients at once, over HTTP, at random: no quota is ever exceeded, no key makes two leases, nothing is left."""

from __future__ import annotations

import random
import threading
import time

import pytest

from fanout.broker import leases, tenants
from fanout.broker.offers import Offer
from tests.broker.serving import Counting, Served, served

CLIENTS = 6
REQUESTS = 12  # of each
QUOTA = 7
DOLLARS = 3.0  # a day; each machine costs 1 an hour, and asks for up to half of one


@pytest.mark.parametrize("seed", [1, 2])
def test_quotas_hold_against_clients_that_do_what_they_like(store_url: str, seed: int) -> None:
    offers = [Offer("free", "counting"), Offer("dear", "counting", price=1.0)]
    with served(store_url, *offers) as broker:
        broker.broker.rates._rate = 1e9  # whoever watches asks as often as this machine can
        ada = broker.token("ada", machines=QUOTA)
        bob = broker.token("bob", machines=100, cost_per_day=DOLLARS)
        outcomes: list[tuple[str, int]] = []
        stop = threading.Event()
        watch = threading.Thread(target=_watch, args=(broker, ada, stop, outcomes))
        workers = [
            threading.Thread(target=_live, args=(broker, ada if i % 2 else bob, i % 2 == 1, seed * 100 + i, outcomes))
            for i in range(CLIENTS)
        ]
        for thread in [watch, *workers]:
            thread.start()
        for thread in workers:
            thread.join(60.0)
        stop.set()
        watch.join(20.0)
        kinds = {what for what, _ in outcomes}
        assert kinds == {"granted", "refused machines", "refused cost"}, outcomes
        with broker.broker.store.begin() as session:
            granted = leases.mine(session, tenants.named(session, "bob").id, 1000)
            keys = [lease.key for lease in leases.mine(session, tenants.named(session, "ada").id, 1000)]
        assert len(keys) == len(set(keys))
        # Reserved in full when it was granted: what they cost in the end is less.
        now = time.time()
        assert sum(each.machines * ((each.ended_at or now) - each.created_at) / 3600 for each in granted) <= DOLLARS
        reserved = sum(each.machines * each.ttl / 3600 for each in granted if each.ended_at is None)
        assert reserved <= DOLLARS + 1e-6
    assert not Counting.there


def test_one_key_at_once_from_many_is_one_lease(store_url: str) -> None:
    with served(store_url) as broker:
        token, found = broker.token(machines=3), []

        def ask() -> None:
            with broker.client(token) as client:
                found.append(client.ask(3, "the-same-key").json()["id"])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
        assert len(found) == 8 and len(set(found)) == 1
        broker.client(token).until(found[0], "ready")
        assert len(Counting.asked) == 1


def _live(broker: Served, token: str, free: bool, seed: int, outcomes: list[tuple[str, int]]) -> None:
    """Asks and ends, at random; half the ends are left to whoever comes last."""
    choose = random.Random(seed)
    mine: list[str] = []
    with broker.client(token) as client:
        for _ in range(REQUESTS):
            if mine and choose.random() < 0.4:
                client.delete(f"/v1/leases/{mine.pop(choose.randrange(len(mine)))}")
                continue
            machines = choose.randint(1, 4)
            wish = {"offer": "free"} if free else {"offer": "dear", "ttl": choose.choice([600, 1800])}
            key = f"{seed}-{choose.getrandbits(64)}"
            answers = [client.ask(machines, key, **wish) for _ in range(choose.choice([1, 1, 2]))]
            for answer in answers:
                assert answer.status_code in (200, 202, 403), answer.text
            if answers[0].status_code == 403:
                outcomes.append((f"refused {answers[0].json()['quota']}", machines))
            else:
                outcomes.append(("granted", machines))
                mine.append(answers[0].json()["id"])


def _watch(broker: Served, token: str, stop: threading.Event, outcomes: list[tuple[str, int]]) -> None:
    """At every moment, what the fleet has for the tenant of the machines is within the quota, by its own count."""
    with broker.client(token) as client:
        while not stop.is_set():
            there = dict(Counting.there)  # first: a lease that ends meanwhile may be in it, and no other
            held = client.get("/v1/tenant").json()["machines_held"]
            mine = {lease["id"] for lease in client.get("/v1/leases").json()}
            have = sum(machines for run, machines in there.items() if run in mine)
            if held > QUOTA or have > QUOTA:
                outcomes.append((f"exceeded: {held} {have}", 0))
            stop.wait(0.01)
