"""Brokers that serve in a thread, a fleet that counts its machines, and clients that speak plain HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import httpx
import uvicorn

from fanout.broker import leases, tenants
from fanout.broker.api import create_app
from fanout.broker.offers import Offer, by_name, from_text
from fanout.broker.quotas import Quota
from fanout.broker.service import Broker
from fanout.broker.store import Store
from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Fleet, Host, Progress, Request, Say, Terms
from tests.patience import PATIENCE, eventually

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIzGLxgFvaFeHkkBJRvWTMnnFJbq0oQFqOwqCw3GQyqk"


class Counting(Fleet):
    """Machines are entries in a dictionary.  `SPEC` says what goes wrong."""

    name: ClassVar[str] = "counting"
    there: ClassVar[dict[str, int]] = {}
    """Run -> machines, of all fleets."""
    most: ClassVar[int] = 0
    """The most machines there ever were."""
    asked: ClassVar[list[Request]] = []
    reclaimed: ClassVar[list[Mapping[str, Any]]] = []
    go: ClassVar[asyncio.Event | None] = None
    broken: ClassVar[bool] = False
    """Whether releases fail."""

    def __init__(self, spec: str = "") -> None:
        if spec not in ("", "failing", "surprising", "stuck", "greedy", "dear"):
            raise UsageError(f"counting:{spec}: there is no such thing")
        self._spec = spec
        self._run = ""

    @classmethod
    def reset(cls) -> None:
        cls.there, cls.most, cls.asked, cls.reclaimed, cls.broken = {}, 0, [], [], False

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        cls = type(self)
        machines = (request.machines or 0) + request.relays
        cls.asked.append(request)
        self._run = request.run
        self.record({"counted": request.run})
        cls.there[request.run] = machines
        cls.most = max(cls.most, sum(cls.there.values()))
        progress(0, machines)
        if self._spec == "failing":
            raise FleetError("no capacity:\n  secret words of the cloud")
        if self._spec == "surprising":
            raise ZeroDivisionError("secret words of the code")
        if self._spec == "stuck":
            await asyncio.Event().wait()
        given = machines + (self._spec == "greedy")
        return [
            Host(f"m{i}", f"10.0.0.{i}", user="me", port=22, key="/root/secret", host_keys=(HOST_KEY,))
            for i in range(given)
        ]

    async def release(self) -> None:
        if self._run and type(self).broken:
            raise FleetError("the cloud is down")
        type(self).there.pop(self._run, None)

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        cls.reclaimed.append(made)
        if cls.broken:
            raise FleetError("the cloud is down")
        cls.there.pop(run, None)
        return "counted down"

    async def terms(self) -> Terms:
        return Terms(("c1.small",), ("here",), 10.0) if self._spec == "dear" else Terms()

    @property
    def relay_key(self) -> str | None:
        return f"KEY OF {self._run}" if self._run in type(self).there else None


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Served:
    """A broker that serves."""

    def __init__(self, broker: Broker, url: str) -> None:
        self.broker = broker
        self.url = url

    def token(self, name: str = "ada", machines: int = 100, ttl: float = 7200.0, **quota: Any) -> str:
        with self.broker.store.begin() as session:
            return tenants.add(session, name, Quota(machines, ttl, **quota), time.time())

    def client(self, token: str) -> Client:
        return Client(self.url, token)

    def tenant(self, name: str = "ada", **quota: Any) -> Client:
        return self.client(self.token(name, **quota))


class Client(httpx.Client):
    def __init__(self, url: str, token: str) -> None:
        super().__init__(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE, trust_env=False
        )

    def ask(self, machines: int = 1, key: str | None = None, **wish: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self.post("/v1/leases", json={"machines": machines, **wish}, headers=headers)

    def lease(self, lease_id: str) -> dict[str, Any]:
        answer = self.get(f"/v1/leases/{lease_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until(self, lease_id: str, *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while (lease := self.lease(lease_id))["state"] not in states:
            assert time.monotonic() < deadline, lease
            time.sleep(0.02)
        return lease

    def ready(self, machines: int = 1, **wish: Any) -> dict[str, Any]:
        answer = self.ask(machines, **wish)
        assert answer.status_code == 202, answer.text
        return self.until(answer.json()["id"], "ready")

    def audit(self) -> list[str]:
        return [entry["action"] for entry in self.get("/v1/audit").json()]


@contextmanager
def served(store_url: str, *offers: str | Offer, leave: bool = False, **options: Any) -> Iterator[Served]:
    """A broker on a free port of loopback, with everything that runs while it serves; `NAME=FLEET` are offers.

    At the end all leases are ended, unless the test wants to `leave` them to the next broker.
    """
    store = Store(store_url)
    store.migrate()
    made = by_name([each if isinstance(each, Offer) else from_text(each) for each in offers or ("counting=counting",)])
    broker = Broker(store, made, **options)
    config = uvicorn.Config(create_app(broker), log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive())
            assert server.started
            yield Served(broker, f"http://127.0.0.1:{listening.getsockname()[1]}")
            if not leave:
                _end_all(broker)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            store.close()
    assert not thread.is_alive()


def _end_all(broker: Broker) -> None:
    """By disabling the tenants, as an operator would."""
    with broker.store.begin() as session:
        for tenant in tenants.every(session):
            tenants.disable(session, tenant.name, broker.clock())
    broker.nudge()

    def none() -> bool:
        with broker.store.begin() as session:
            return not any(count for count, _ in leases.figures(session).values())

    eventually(none)
