"""The broker's client: its token, its heartbeat, its key, and what it says when it is refused."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout import fleets
from fanout.broker import leases, tenants
from fanout.broker.offers import Offer
from fanout.errors import FleetError, UsageError
from fanout.fleets import broker as client
from fanout.fleets.base import Host, Request
from fanout.fleets.broker import BrokerFleet
from tests.broker.serving import Clock, Counting, Served, served
from tests.patience import eventually

IDLE = 0.8  # s; by a clock that stands still, so that no lease ends while this machine is busy


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A broker of counted machines, with the tenant whose token is in the environment."""
    monkeypatch.setitem(fleets.BUILT_IN, "counting", f"{Counting.__module__}:Counting")
    monkeypatch.setattr(client, "FIRST", 0.2)
    monkeypatch.setattr(client, "PATIENCE", 5.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    Counting.reset()
    with served(f"sqlite:///{tmp_path}/broker.db", clock=clock, idle=IDLE) as found:
        monkeypatch.setenv("FANOUT_BROKER_TOKEN", found.token(machines=5))
        yield found
    assert not Counting.there


async def provision(fleet: BrokerFleet, machines: int = 2, **roles: int) -> list[Host]:
    return await fleet.provision(Request("r1", machines, roles), lambda done, total: None)


async def test_its_machines_are_those_of_the_lease_with_a_private_key_until_the_end(broker: Served) -> None:
    fleet = BrokerFleet(broker.url)
    said: list[str] = []
    fleet.say = said.append
    try:
        hosts = await provision(fleet, 2, boot=1)
        [request] = Counting.asked
        assert dict(request.roles) == {"boot": 1} and fleet.relay_key == f"KEY OF {request.run}"
        assert [host.name for host in hosts] == ["m0", "m1"] and hosts[0].host_keys and hosts[0].user == "me"
        key = Path(hosts[0].key or "")
        assert key.read_text() == fleet.relay_key and key.stat().st_mode & 0o777 == 0o600
        assert key.parent.stat().st_mode & 0o777 == 0o700
        assert "2 machines of counting, for 1h05m at most" in said[0]
    finally:
        await fleet.release()
    assert not key.exists() and not key.parent.exists() and not Counting.there


async def test_its_heartbeat_keeps_the_lease_until_it_ends(broker: Served, clock: Clock) -> None:
    fleet = BrokerFleet(f"{broker.url},ttl=1h,offer=counting")
    try:
        await provision(fleet)
        beats = broker.broker.metrics.requests.labels("POST", "/v1/leases/{lease_id}/heartbeat", 200)
        for _ in range(4):  # twice the idle time
            before = beats._value.get()
            await asyncio.to_thread(eventually, lambda before=before: beats._value.get() > before)
            clock.now += IDLE / 2
            broker.broker.nudge()
        assert Counting.there
    finally:
        await fleet.release()


async def test_a_lease_that_the_broker_ends_is_told(broker: Served) -> None:
    fleet = BrokerFleet(broker.url)
    said: list[str] = []
    fleet.say = said.append
    try:
        await provision(fleet)
        with broker.broker.store.begin() as session:
            [lease] = Counting.there
            leases.end(session, lease, leases.Cause.TTL, 0.0)
        told = "takes the machines back: its time was over"
        await asyncio.to_thread(eventually, lambda: any(told in line for line in said))
    finally:
        await fleet.release()


async def test_a_quota_is_named_with_the_remedy(broker: Served) -> None:
    fleet = BrokerFleet(broker.url)
    with pytest.raises(FleetError, match=r"refuses: quota machines: 6 machines.*5 at once.*ask for fewer") as raised:
        await provision(fleet, 6)
    assert raised.value.exit_code == 3
    await fleet.release()


async def test_a_token_that_is_refused_is_told(broker: Served) -> None:
    with broker.broker.store.begin() as session:
        tenants.disable(session, "ada", 0.0)
    fleet = BrokerFleet(broker.url)
    with pytest.raises(FleetError, match=r"refuses the token.*disabled.*tenant add"):
        await provision(fleet)
    await fleet.release()


async def test_a_token_may_be_in_a_private_file(
    broker: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = broker.token("bob")
    monkeypatch.delenv("FANOUT_BROKER_TOKEN")
    with pytest.raises(FleetError, match=r"set FANOUT_BROKER_TOKEN, or write it into .*broker-token"):
        await provision(BrokerFleet(broker.url))
    usual, given = tmp_path / ".config/fanout/broker-token", tmp_path / "token"
    usual.parent.mkdir(parents=True)
    for path, spec in ((usual, broker.url), (given, f"{broker.url},token={given}")):
        path.touch(0o644)
        path.write_text(f"{token}\n")
        with pytest.raises(FleetError, match=f"can be read by others: chmod 600 {path}"):
            await provision(BrokerFleet(spec))
        path.chmod(0o600)
        fleet = BrokerFleet(spec)
        await provision(fleet)
        await fleet.release()


async def test_a_fleet_that_fails_there_is_told_here(broker: Served) -> None:
    broker.broker.offers = {"it": Offer("it", "counting:failing")}
    fleet = BrokerFleet(broker.url)
    with pytest.raises(FleetError, match="could not be made: no capacity; the broker's operator"):
        await provision(fleet)
    await fleet.release()


async def test_a_broker_that_is_not_there_is_told_soon(broker: Served) -> None:
    with pytest.raises(FleetError, match=r"127.0.0.1:1 does not answer: Connection refused"):
        await provision(BrokerFleet("http://127.0.0.1:1"))


async def test_a_server_that_is_no_broker_gets_the_token_once(broker: Served) -> None:
    asked: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"{broker.url}/v1/tenant")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(FleetError, match="answers 302 as no broker does"):
                await provision(BrokerFleet(f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/v1/leases"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "is not https"),
        ("ftp://x", "is not https"),
        ("https://", "is not https"),
        ("https://x:port", "is not a URL"),
        ("http://broker.example", "plain HTTP would show your token"),
        ("https://me:secret@x", "no place for a password"),
        ("https://x,colour=red", "not one of offer=, ttl=, ca=, token="),
        ("https://x,ttl=long", "is not a duration"),
        ("https://x,offer=a,offer=b", "twice"),
    ],
)
def test_a_spec_that_does_not_work_is_a_usage_error(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BrokerFleet(spec)
