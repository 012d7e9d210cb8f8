"""Machines of the cloud on lease: the broker alone has the account, its client has what the first connection needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.process import Process, fanout
from tests.cloud.cloud import PRICES, REGION, Cloud
from tests.cloud.hosts import LabMachines
from tests.cloud.test_whole import IMPOSTOR
from tests.sshd import need_isolation, need_sshd

pytestmark = pytest.mark.lab

OFFER = f"cloud=aws:region={REGION},types=t3.small,root_address=10.213.0.0/16,ttl=30m,idle=5m,ready_timeout=2m"
SCENARIO = """
from fanout import scenario

@scenario(quorum=0.6)
async def tested(fleet):
    done = await fleet.run("echo {address} $(hostname -I) $(whoami)")
    for machine, words in ((machine, one.stdout.split()) for one in done for machine in one.machines):
        assert words == [machine.address, machine.address, "ubuntu"], words
    fleet.report(f"{len(fleet)} are here")
"""


@pytest.fixture
def account() -> Iterator[Cloud]:
    need_sshd()
    need_isolation()
    with LabMachines(3) as hosts, Cloud(hosts) as cloud:
        hosts.alter = lambda number, user_data: user_data + IMPOSTOR * (number == 3)
        yield cloud


def tenant(store: str, folder: Path, name: str, *quotas: str) -> Path:
    added = fanout("broker", "tenant", "add", name, "--machines", "3", *quotas, "--store", store)
    token = folder / name
    token.touch(0o600)
    token.write_text(added.stdout)
    return token


def test_machines_of_the_cloud_are_leased_verified_and_ended(account: Cloud, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/broker.db"
    ada = tenant(store, tmp_path, "ada", "--type", "t3.small", "--region", REGION, "--cost-per-day", "1")
    poor = tenant(store, tmp_path, "poor", "--cost-per-day", "0.01")
    elsewhere = tenant(store, tmp_path, "elsewhere", "--region", "us-east-1")
    path = tmp_path / "tested.py"
    path.write_text(SCENARIO)
    operator = {**account.environment, "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with Process(store, "--offer", OFFER, **operator) as broker:
        [offer] = broker.client(ada.read_text().strip()).get("/v1/offers").json()
        assert (offer["types"], offer["regions"]) == (["t3.small"], [REGION])
        assert PRICES["t3.small"] < offer["price"] < 2 * PRICES["t3.small"]  # with its disk and address

        def run(token: Path, name: str) -> tuple[int, str]:
            done = fanout("run", str(path), "--fleet", f"broker:{broker.url},token={token},ttl=20m", "-n", "3",
                          "--relays", "1", "--run-dir", str(tmp_path / name), XDG_STATE_HOME=str(tmp_path))
            return done.returncode, done.stdout + done.stderr

        for token, quota in (poor, "quota cost"), (elsewhere, "quota regions"):
            code, said = run(token, token.name + "-run")
            assert code == 3 and quota in said, said
        assert not account.launched
        code, said = run(ada, "run")
        assert code == 0 and "2 are here" in said and "1 relay, depth 2" in said, said
        assert "aws-3: host key mismatch" in said, said
        assert "for 20m00s at most" in said
        told = (tmp_path / "run/machines.json").read_text()
        assert "ssh-ed25519 " in told and account.environment["AWS_ACCESS_KEY_ID"] not in told + said
        operators = broker.end()
    assert "launched 3, terminated 3" in operators and "3 x t3.small" in operators and "20m00s" in operators
    assert account.left() == [] and not list(tmp_path.glob("fanout-aws-*"))
