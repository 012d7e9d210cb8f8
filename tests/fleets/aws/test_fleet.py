"""The fleet aws against an account: what it makes, what it refuses to make, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from fanout.errors import FleetError
from fanout.fleets.aws import AwsFleet
from fanout.fleets.base import Request
from tests.fleets.aws.conftest import Account

PRICED = '[prices]\n"t3.small" = 0.02\n"t3.large" = 0.1\n'


@pytest.fixture
def file(tmp_path: Path, account: Account):
    def make(text: str = "", tables: str = "") -> str:
        path = tmp_path / "fleet.toml"
        path.write_text(f'image = "{account.image}"\nroot_address = "203.0.113.7"\n{text}\n{PRICED}{tables}')
        return str(path)

    return make


async def provision(fleet: AwsFleet, machines: int = 2, run: str = "r1"):
    return await fleet.provision(Request(run, machines), lambda done, total: None)


async def test_machines_are_made_as_wanted_and_gone_afterwards(account, boots, file) -> None:
    fleet, said = AwsFleet(file('[tags]\nteam = "storage"')), []
    fleet.say = said.append
    try:
        hosts = await provision(fleet, 3)
        assert [host.name for host in hosts] == ["aws-1", "aws-2", "aws-3"]
        made = {each["PrivateIpAddress"]: each for each in account.living}
        assert {host.inside for host in hosts} == made.keys()
        for each in made.values():
            found = {tag["Key"]: tag["Value"] for tag in each["Tags"]}
            assert found["fanout:run"] == "r1" and found["team"] == "storage" and found["fanout:expires"].endswith("Z")
        assert Path(hosts[0].key or "").stat().st_mode & 0o777 == 0o600
    finally:
        await fleet.release()
    assert not account.living and not account.groups and fleet.relay_key is None
    assert not Path(hosts[0].key or "").exists()
    assert any(text.startswith("launched 3, terminated 3") for text in said)
