"""The test cloud acts as the documentation of the real one says, where moto alone does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.cloud.cloud import IMAGE, REGION, Cloud
from tests.cloud.wire import DROPPED, Fault

ZONE = f"{REGION}a"


@pytest.fixture
def ec2(cloud: Cloud) -> Any:
    """A client that repeats nothing by itself, on a cloud whose time stands still."""
    cloud.clock = lambda: 0.0
    cloud.boots_in = cloud.ends_in = 1e6
    return boto3.client("ec2", config=Config(retries={"total_max_attempts": 1}))


def launch(ec2: Any, least: int = 1, most: int = 1, **more: Any) -> list[str]:
    asked = {"ImageId": IMAGE, "InstanceType": "t3.small", "MinCount": least, "MaxCount": most, **more}
    return [one["InstanceId"] for one in ec2.run_instances(**asked)["Instances"]]


def states(ec2: Any, *ids: str) -> list[str]:
    found = ec2.describe_instances(InstanceIds=list(ids))["Reservations"]
    return [one["State"]["Name"] for reservation in found for one in reservation["Instances"]]


@contextmanager
def refused(code: str, status: int = 400) -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    answer = caught.value.response
    assert answer["Error"]["Code"] == code and answer["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_token_that_was_used_launches_nothing_more(ec2: Any, cloud: Cloud) -> None:
    first = launch(ec2, 2, 2, ClientToken="a")
    assert launch(ec2, 2, 2, ClientToken="a") == first and len(cloud.instances()) == 2
    with refused("IdempotentParameterMismatch"):
        launch(ec2, 2, 3, ClientToken="a")
    assert launch(ec2, ClientToken="b") != first
    ec2.terminate_instances(InstanceIds=first)
    assert launch(ec2, 2, 2, ClientToken="a") == first
    cloud.ends_in = 0.0
    with refused("IdempotentInstanceTerminated"):
        launch(ec2, 2, 2, ClientToken="a")


def test_as_many_as_there_is_capacity_for_and_never_fewer_than_asked(ec2: Any, cloud: Cloud) -> None:
    cloud.capacity["t3.small", ZONE] = 3
    assert len(launch(ec2, 1, 2)) == 2 and len(launch(ec2, 1, 5)) == 1
    with refused("InsufficientInstanceCapacity", 500):
        launch(ec2)
    assert len(launch(ec2, 2, 4, InstanceType="t3.medium")) == 4
    assert len(launch(ec2, 2, 4, Placement={"AvailabilityZone": f"{REGION}b"})) == 4


def test_a_dry_run_says_whether_it_would_be_allowed(ec2: Any, cloud: Cloud) -> None:
    with refused("DryRunOperation", 412):
        launch(ec2, DryRun=True)
    cloud.forbidden.add("RunInstances")
    for dry in True, False:
        with refused("UnauthorizedOperation", 403):
            launch(ec2, DryRun=dry)
    assert not cloud.instances()


def test_instances_take_time_to_come_and_to_go(ec2: Any, cloud: Cloud) -> None:
    [one] = launch(ec2)
    assert states(ec2, one) == ["pending"]
    cloud.boots_in = 0.0
    assert states(ec2, one) == ["running"]
    for before in "running", "shutting-down":
        [told] = ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"]
        assert told["PreviousState"]["Name"] == before and told["CurrentState"]["Name"] == "shutting-down"
    cloud.ends_in = 0.0
    assert states(ec2, one) == ["terminated"]
    [told] = ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"]
    assert told["CurrentState"]["Name"] == "terminated" and cloud.left() == []


def test_what_switches_itself_off_is_terminated_if_that_was_asked_for(ec2: Any, cloud: Cloud) -> None:
    cloud.boots_in = cloud.ends_in = 0.0
    [stays], [goes] = launch(ec2), launch(ec2, InstanceInitiatedShutdownBehavior="terminate")
    for instance in cloud.instances():
        cloud.power_off(instance)
    assert states(ec2, stays, goes) == ["stopped", "terminated"]


def test_a_new_instance_is_not_known_everywhere_at_once(ec2: Any, cloud: Cloud) -> None:
    cloud.seen_in = 1e6
    [one] = launch(ec2, ClientToken="a")
    for ask in ec2.describe_instances, ec2.terminate_instances:
        with refused("InvalidInstanceID.NotFound"):
            ask(InstanceIds=[one])
    assert ec2.describe_instances()["Reservations"] == [] and launch(ec2, ClientToken="a") == [one]
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    with refused("InvalidGroup.NotFound"):
        ec2.describe_security_groups(GroupIds=[group])
    with refused("InvalidGroup.NotFound"):
        launch(ec2, SecurityGroupIds=[group])
    with refused("InvalidGroup.Duplicate"):
        ec2.create_security_group(GroupName="g", Description="d")
    cloud.seen_in = 0.0
    assert states(ec2, one) == ["pending"]


def test_a_security_group_stays_as_long_as_an_instance_has_it(ec2: Any, cloud: Cloud) -> None:
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    own = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[own])
    [one] = launch(ec2, SecurityGroupIds=[group])
    ec2.terminate_instances(InstanceIds=[one])
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    other = ec2.create_security_group(GroupName="other", Description="d")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=[own])
    cloud.ends_in = 0.0
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    ec2.delete_security_group(GroupId=other)
    assert len(cloud.left()) == 1
    ec2.delete_security_group(GroupId=group)
    assert cloud.left() == []


def test_user_data_has_a_limit(ec2: Any) -> None:
    launch(ec2, UserData="x" * 16384)
    with refused("InvalidParameterValue"):
        launch(ec2, UserData="x" * 16385)


def test_faults_strike_the_calls_they_are_for(ec2: Any, cloud: Cloud) -> None:
    cloud.faults += [
        Fault("RunInstances", "RequestLimitExceeded", times=2, after=2),
        Fault("RunInstances", "VcpuLimitExceeded", where={"InstanceType": "m7i.large"}, words=("32",)),
        Fault("DescribeInstances", DROPPED),
        Fault("TerminateInstances", DROPPED, effect=True),
        Fault("GetCallerIdentity", "ExpiredToken"),
    ]
    with refused("VcpuLimitExceeded"):
        launch(ec2, InstanceType="m7i.large")
    ids = []
    for outcome in [True, False, False, True]:
        if outcome:
            ids += launch(ec2)
        else:
            with refused("RequestLimitExceeded", 503):
                launch(ec2)
    with pytest.raises(ConnectionClosedError):
        states(ec2, *ids)
    with pytest.raises(ConnectionClosedError):
        ec2.terminate_instances(InstanceIds=ids)
    assert states(ec2, *ids) == ["shutting-down"] * 2
    with refused("ExpiredToken", 403):
        boto3.client("sts").get_caller_identity()


def test_images_and_prices_are_there_to_be_asked_for(cloud: Cloud) -> None:
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    image = boto3.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    [found] = boto3.client("ec2").describe_images(ImageIds=[image])["Images"]
    assert found["Architecture"] == "x86_64" and found["RootDeviceName"] == "/dev/sda1"
    wanted = [{"Type": "TERM_MATCH", "Field": "instanceType", "Value": "t3.small"}]
    prices = boto3.client("pricing", region_name="us-east-1").get_products(ServiceCode="AmazonEC2", Filters=wanted)
    assert "0.0228" in prices["PriceList"][0]
