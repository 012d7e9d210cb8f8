"""Where a broker listens, and how: tokens are on no wire in the clear."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from fanout.broker.server import Listen
from fanout.cli.main import main
from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Request
from fanout.fleets.broker import BrokerFleet
from tests.broker.process import Process, certificate, fanout


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "broker.example"])
def test_plain_http_is_for_loopback_unless_the_operator_says_otherwise(host: str) -> None:
    with pytest.raises(UsageError, match="--tls-cert"):
        Listen(host, 1)
    Listen(host, 1, insecure=True)
    Listen(host, 1, Path("cert"), Path("key"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_certificate(host: str) -> None:
    Listen(host, 1)
    with pytest.raises(UsageError, match="both"):
        Listen(host, 1, cert=Path("cert"))


async def test_tls_with_a_certificate_of_ones_own_is_verified_by_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    store = f"sqlite:///{tmp_path}/broker.db"
    token = fanout("broker", "tenant", "add", "ada", "--machines", "1", "--store", store).stdout.strip()
    monkeypatch.setenv("FANOUT_BROKER_TOKEN", token)
    maker = tmp_path / "maker.sh"
    maker.write_text("#!/bin/sh\n[ $1 = down ] || echo 10.0.0.1\n")
    maker.chmod(0o755)
    offer = ("--offer", f"it=exec:{maker}", "--tls-cert", str(cert), "--tls-key", str(key))
    with Process(store, *offer) as broker:
        assert broker.url.startswith("https://")
        with pytest.raises(httpx.HTTPError):
            await asyncio.to_thread(httpx.get, broker.url.replace("https", "http"), trust_env=False)
        stranger = BrokerFleet(broker.url)
        with pytest.raises(FleetError, match=r"not trusted.*ca=FILE"):
            await stranger.provision(Request("r1", 1), lambda done, total: None)
        await stranger.release()
        fleet = BrokerFleet(f"{broker.url},ca={cert}")
        try:
            assert [host.name for host in await fleet.provision(Request("r1", 1), lambda *_: None)] == ["10.0.0.1"]
        finally:
            await fleet.release()
        assert token not in broker.end()


def test_what_cannot_be_served_is_a_usage_error_before_anything_is_made(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/broker.db"
    serve = ("broker", "serve", "--store", store)
    for arguments, words in (
        ((), "something to offer"),
        (("--offer", "x=local"), "cannot be leased"),
        (("--offer", "x=hosts:a"), "cannot be leased"),
        (("--offer", "x=exec:/none"), "there is no file"),
        (("--offer", "X=lab"), "cannot name an offer"),
        (("--offer", "x=lab", "--offer", "x=lab"), "two offers"),
        (("--offer", "x=lab", "--listen", "0.0.0.0:1"), "--tls-cert"),
        (("--offer", "x=lab", "--keep", "1h"), "a day or more"),
    ):
        done = CliRunner().invoke(main, [*serve, *arguments])
        assert done.exit_code == 2 and words in done.stderr, (arguments, done.stderr)
