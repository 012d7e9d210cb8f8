"""The fleet aws against an account: what it makes, what it refuses to make, and that nothing of it stays."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fanout.cli.main import main
from fanout.errors import FleetError, UsageError
from fanout.fleets.aws import AwsFleet, boot, instances, network, tags
from fanout.fleets.base import Host, Request
from tests.fleets.aws.conftest import IMAGE, REGION, Account

PRICED = '[prices]\n"t3.small" = 0.02\n"t3.large" = 0.1\n'
Opened = Callable[..., Any]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "POLL", 0.05)
    monkeypatch.setattr(instances, "POLL", 0.05)
    monkeypatch.setattr(network, "REPEAT", 0.05)


@pytest.fixture
def opened(account: Account, boots: dict[str, str], tmp_path: Path) -> Opened:
    """`async with opened(text, machines, tables=...) as (aws, hosts, said)`; the account is empty afterwards."""

    @asynccontextmanager
    async def make(
        text: str = "", machines: int = 2, tables: str = "", unlimited: bool = False, **more: Any
    ) -> AsyncIterator[tuple[AwsFleet, list[Host], list[str]]]:
        given = f'image = "{IMAGE}"\nroot_address = "203.0.113.7"\n{text}\n'
        (tmp_path / "fleet.toml").write_text(given + PRICED + tables)
        aws = AwsFleet(f"{tmp_path}/fleet.toml")
        said: list[str] = []
        aws.say = said.append
        aws.spec = replace(aws.spec, **more)
        aws.unlimited = unlimited
        try:
            yield aws, await aws.provision(Request("r1", machines), lambda done, total: None), said
        finally:
            await aws.release()
            assert not account.living and not account.groups and aws.relay_key is None

    return make


async def test_machines_are_made_as_wanted_and_gone_afterwards(account: Account, opened: Opened) -> None:
    async with opened('types = "t3.small"\nttl = "30m"', 3, '[tags]\nteam = "storage"') as (aws, hosts, said):
        assert [host.name for host in hosts] == ["aws-1", "aws-2", "aws-3"]
        made = {each["PrivateIpAddress"]: each for each in account.living}
        assert {host.inside for host in hosts} == made.keys()
        assert {host.address for host in hosts} == {each["PublicIpAddress"] for each in made.values()}
        (group,) = account.groups
        for each in made.values():
            given = tags.of(each)
            assert given["fanout:run"] == "r1" and given["team"] == "storage" and given["fanout:owner"]
            assert 1700 < (tags.when(given["fanout:expires"]) or 0) - time.time() < 1900
            assert [one["GroupId"] for one in each["NetworkInterfaces"][0]["Groups"]] == [group["GroupId"]]
            assert each["MetadataOptions"]["HttpTokens"] == "required"
            ended = account.ec2.describe_instance_attribute(
                InstanceId=each["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
            )
            assert ended["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
        data = account.ec2.describe_instance_attribute(InstanceId=each["InstanceId"], Attribute="userData")
        script = base64.b64decode(data["UserData"]["Value"]).decode()
        assert script.startswith("#cloud-boothook\n") and "RUN=r1\n" in script and "TTL=1800\n" in script
        key = Path(hosts[0].key)
        assert not (key.parent / "ca").exists() and hosts[0].host_ca == (key.parent / "ca.pub").read_text().strip()
        assert key.stat().st_mode & 0o777 == 0o600 and aws.relay_key == key.read_text()
    assert not key.exists()
    assert said[0].startswith("3 x t3.small x $0.0") and " for at most 30m00s is at most $0.0" in said[0]
    assert said[-1].startswith("launched 3, terminated 3; it cost $0.00")


async def test_only_the_root_and_the_run_itself_are_let_in(account: Account, opened: Opened) -> None:
    async with opened():
        (group,) = account.groups
        ssh, inside = sorted(group["IpPermissions"], key=lambda each: each["IpProtocol"], reverse=True)
        assert [each["CidrIp"] for each in ssh["IpRanges"]] == ["203.0.113.7/32"] and not ssh["UserIdGroupPairs"]
        assert (ssh["FromPort"], ssh["ToPort"], ssh["IpProtocol"]) == (22, 22, "tcp")
        assert inside["IpProtocol"] == "-1" and not inside["IpRanges"]
        assert [each["GroupId"] for each in inside["UserIdGroupPairs"]] == [group["GroupId"]]


async def test_relays_may_be_of_another_type(account: Account, opened: Opened) -> None:
    async with opened("", 3, '[relays]\ncount = 1\ntypes = ["t3.large"]') as (_, hosts, said):
        assert [host.relay for host in hosts] == [True, False, False]
        assert sorted(each["InstanceType"] for each in account.living) == ["t3.large", "t3.small", "t3.small"]
        assert "2 x t3.small x $0.0" in said[0] and " + 1 x t3.large x $0.1" in said[0]


async def test_what_may_cost_too_much_is_not_made(account: Account, opened: Opened) -> None:
    with pytest.raises(FleetError, match=r"is at most \$0\.\d+, more than max_cost, \$0\.01: nothing was made"):
        async with opened("max_cost = 0.01"):
            pass
    assert not account.instances
    async with opened("max_cost = 0.01", unlimited=True) as (_, hosts, said):
        assert len(hosts) == 2 and "max_cost is lifted" in said[0]


async def test_no_credentials_are_said_with_the_remedy_and_exit_3(
    account: Account, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(FleetError, match=r"there are no AWS credentials(?s:.*)set AWS_PROFILE") as caught:
        async with opened():
            pass
    assert caught.value.exit_code == 3


async def test_a_profile_that_is_not_there_and_no_region_are_told(
    account: Account, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FleetError, match="profile"):
        async with opened('profile = "nobody"'):
            pass
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UsageError, match="which region"):
        async with opened():
            pass


async def test_without_boto3_the_remedy_is_told(
    account: Account, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"pip install 'fanout\[aws\]'"):
        async with opened():
            pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('types = ["t9.huge"]', r"has not all of the types|no processor"),
        ('subnets = ["subnet-00000000"]', r"subnets: .*subnet-00000000"),
        ('types = ["t3.small", "t4g.small"]', "no processor that all of them share"),
    ],
)
async def test_what_does_not_exist_is_told_before_anything_is_made(
    account: Account, opened: Opened, text: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        async with opened(text):
            pass
    assert not account.instances


async def test_enough_ready_machines_are_a_fleet_and_too_few_are_not(
    account: Account, opened: Opened, boots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "STRAGGLING", 0.2)
    boots["*"] = "it sleeps"
    with pytest.raises(FleetError, match=r"(?s)0 of 2 machines were ready within 500ms.*i-\w+: it sleeps"):
        async with opened(ready_timeout=0.5):
            pass

    async def one(self: Any, address: str, port: int) -> str:
        first.append(address)
        return "" if address == first[0] else "it sleeps"

    first: list[str] = []
    monkeypatch.setattr(boot.Readiness, "_probe", one)
    async with opened("quorum = 0.5") as (_, hosts, said):
        assert len(hosts) == 2 and any("going on with 1 of 2 machines ready" in text for text in said)


async def test_kept_machines_stay_for_a_while_and_another_process_can_end_them(
    account: Account, opened: Opened
) -> None:
    made = {"region": REGION, "profile": None, "expires": tags.iso(time.time() + 600)}
    async with opened() as (aws, hosts, said):
        until = await aws.keep(60.0)
        assert until is not None and 0 < until - time.time() <= aws.spec.idle
        await aws.release()
        assert len(account.living) == 2 and not Path(hosts[0].key).exists() and await aws.keep(60.0) is None
        assert await AwsFleet.holds("r1", made, probe=True) == "2 machines and 1 security groups"
        assert REGION in await AwsFleet.holds("r1", made, probe=False)
        assert await AwsFleet.reclaim("r1", made, said.append) == f"2 machines in {REGION} terminated"
        assert not account.living and await AwsFleet.holds("r1", made, probe=True) == ""
        assert await AwsFleet.reclaim("r1", made, said.append)


class TestReap:
    @pytest.fixture
    def left(self, account: Account) -> str:
        """A run whose root was killed an hour ago, one whose time is not over, and things that are not ours."""
        subnet = account.ec2.describe_subnets()["Subnets"][0]
        for run, hours in ("old", -1), ("new", 1):
            given = tags.tags(run, "user/me", time.time() + hours * 3600, {})
            group = account.ec2.create_security_group(
                GroupName=f"fanout-{run}", Description="x", VpcId=subnet["VpcId"],
                TagSpecifications=tags.specification(["security-group"], given),
            )["GroupId"]  # fmt: skip
            account.ec2.run_instances(
                ImageId=IMAGE, MinCount=2, MaxCount=2, SecurityGroupIds=[group],
                TagSpecifications=tags.specification(["instance"], given),
            )  # fmt: skip
        account.ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)
        return "old"

    def test_only_what_has_expired_is_shown_and_only_with_yes_removed(self, account: Account, left: str) -> None:
        shown = self.reap("--json")
        (one,) = json.loads(shown.stdout)
        assert one["run"] == left and len(one["machines"]) == 2 and len(one["groups"]) == 1
        assert len(account.living) == 5 and len(account.groups) == 2
        assert "nothing was removed" in shown.stderr
        assert "run old of user/me, over for 1h00m: 2 machines, 1 security group" in self.reap().stdout
        assert "run old: removed" in self.reap("--yes").stderr
        assert len(account.living) == 3 and [group["GroupName"] for group in account.groups] == ["fanout-new"]
        assert "nothing of fanout's is left" in self.reap("--yes").stdout

    def test_a_run_may_be_named_before_its_time_is_over(self, account: Account, left: str) -> None:
        assert re.search(r"has (1h00m|59m\d\ds) to go", self.reap("--run", "new").stdout)
        self.reap("--run", "new", "--yes")
        assert [group["GroupName"] for group in account.groups] == ["fanout-old"]

    def test_other_fleets_leave_nothing_that_could_be_found(self) -> None:
        result = CliRunner().invoke(main, ["reap", "--fleet", "local"])
        assert result.exit_code == 2 and "only aws" in result.stderr

    def reap(self, *options: str) -> Any:
        result = CliRunner().invoke(main, ["reap", *options])
        assert result.exit_code == 0, result.output
        return result
