"""The fleet aws against a cloud where things go wrong: each has its outcome, and nothing is left after any.

The machines are only in the books; real ones are in test_whole.py.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fanout.errors import FanoutError, FleetError
from fanout.fleets import open_fleet
from fanout.fleets.aws import launch
from fanout.fleets.base import Fleet, Host, Request
from tests.cloud.cloud import REGION, Cloud
from tests.cloud.root import in_short
from tests.cloud.wire import DROPPED, Call, Fault

Made = Callable[..., AbstractAsyncContextManager[tuple[list[Host], list[str]]]]
ZONES = [f"{REGION}{letter}" for letter in "abc"]


@pytest.fixture
def made(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Made:
    """`async with made(3, types="t3.small") as (hosts, said)`; however that ends, the account is empty then."""
    for place, name, value in in_short():
        monkeypatch.setattr(place, name, value)

    runs = itertools.count(1)

    @asynccontextmanager
    async def make(machines: int, **options: Any) -> AsyncIterator[tuple[list[Host], list[str]]]:
        given = {"region": REGION, "root_address": "10.0.0.0/8", **options}
        fleet = open_fleet("aws:" + ",".join(f"{name}={value}" for name, value in given.items()))
        said: list[str] = []
        fleet.say = said.append
        try:
            yield await fleet.provision(Request(f"r{next(runs)}", machines), lambda done, total: None), said
        finally:
            await release(fleet)
            assert cloud.left() == []

    return make


async def release(fleet: Fleet) -> None:
    await asyncio.wait_for(fleet.release(), fleet.release_timeout)


def launched(cloud: Cloud) -> list[tuple[str, str]]:
    return sorted((one.instance_type, one.placement.zone or "") for one in cloud.instances())


async def test_what_one_zone_lacks_the_next_one_has_and_then_the_next_type(cloud: Cloud, made: Made) -> None:
    cloud.capacity.update({("t3.small", ZONES[0]): 2, ("t3.small", ZONES[1]): 0, ("t3.small", ZONES[2]): 1})
    async with made(5, types="t3.small+t3.medium") as (hosts, said):
        assert len(hosts) == 5 and any("InsufficientInstanceCapacity" in text for text in said)
        assert launched(cloud) == [("t3.medium", ZONES[0])] * 2 + [
            ("t3.small", ZONES[0]), ("t3.small", ZONES[0]), ("t3.small", ZONES[2])]


async def test_fewer_than_needed_are_no_fleet_and_enough_are_one(cloud: Cloud, made: Made) -> None:
    for zone in ZONES:
        cloud.capacity["t3.small", zone] = 1
    with pytest.raises(FleetError, match=r"(?s)3 of 4 machines.*InsufficientInstanceCapacity"):
        async with made(4):
            pass
    for zone in ZONES:
        cloud.capacity["t3.small", zone] = 1
    async with made(4, quorum=0.75) as (hosts, _):
        assert len(hosts) == 3


async def test_a_limit_of_vcpus_is_said_with_its_remedy(cloud: Cloud, made: Made, monkeypatch: Any) -> None:
    monkeypatch.setattr(launch, "BATCH", 2)
    cloud.faults.append(Fault("RunInstances", "VcpuLimitExceeded", after=2, times=99, words=("4",)))
    with pytest.raises(FleetError, match=r"(?s)VcpuLimitExceeded.*higher limit"):
        async with made(4):
            pass
    assert len(cloud.launched) == 2


@pytest.mark.parametrize("fault", [
    # More often than botocore repeats a call by itself.
    Fault("RunInstances", "RequestLimitExceeded", times=6),
    Fault("RunInstances", DROPPED, times=6, effect=True),
    Fault("RunInstances", DROPPED),
    Fault("RunInstances", "InternalError", effect=True),
    Fault("CreateSecurityGroup", DROPPED, effect=True),
    Fault("AuthorizeSecurityGroupIngress", DROPPED, effect=True),
    Fault("TerminateInstances", DROPPED, effect=True),
    Fault("TerminateInstances", "RequestLimitExceeded", times=2),
    Fault("DeleteSecurityGroup", DROPPED, effect=True),
    Fault("DescribeInstances", "InternalError"),
], ids=lambda fault: f"{fault.action} {fault.code}{' in effect' * fault.effect}")
async def test_what_passes_is_repeated_and_nothing_is_made_twice(fault: Fault, cloud: Cloud, made: Made) -> None:
    # The dry runs before pass.
    dry = fault.action in ("RunInstances", "CreateSecurityGroup", "TerminateInstances", "DeleteSecurityGroup")
    cloud.faults.append(Fault(fault.action, fault.code, times=fault.times, after=int(dry), effect=fault.effect))
    async with made(3) as (hosts, _):
        assert len(hosts) == 3 and len(cloud.launched) == 3 and len(cloud.groups()) == 1
    assert cloud.faults[0].times <= 0


@pytest.mark.parametrize("fault", [
    Fault("GetCallerIdentity", "ExpiredToken"),
    Fault("GetCallerIdentity", "InvalidClientTokenId"),
    Fault("DescribeSubnets", "RequestExpired"),
], ids=lambda fault: fault.code)
async def test_credentials_that_are_no_good_are_said_before_anything_is_made(
    fault: Fault, cloud: Cloud, made: Made
) -> None:
    cloud.faults.append(Fault(fault.action, fault.code, times=99))
    with pytest.raises(FleetError, match=rf"(?s){fault.code}.*(log in|AWS_PROFILE)") as caught:
        async with made(1):
            pass
    assert caught.value.exit_code == 3 and not cloud.launched and not cloud.asked("AuthorizeSecurityGroupIngress")


@pytest.mark.parametrize(
    "action", ["RunInstances", "CreateSecurityGroup", "TerminateInstances", "DeleteSecurityGroup", "DescribeSubnets"])
async def test_a_right_that_is_lacking_is_named_before_anything_is_made(
    action: str, cloud: Cloud, made: Made
) -> None:
    cloud.forbidden.add(action)
    with pytest.raises(FleetError, match=rf"(?s)UnauthorizedOperation.*{action}.*polic"):
        async with made(1):
            pass
    assert not cloud.launched and not cloud.asked("AuthorizeSecurityGroupIngress")


async def test_a_fleet_that_is_not_seen_at_once_is_waited_for(cloud: Cloud, made: Made) -> None:
    cloud.seen_in = 1.0
    cloud.faults.append(Fault("CreateSecurityGroup", DROPPED, after=1, effect=True))
    async with made(2) as (hosts, _):
        assert len(hosts) == 2


async def test_a_machine_that_ends_while_it_boots_is_named(cloud: Cloud, made: Made) -> None:
    """As when a spot instance is taken back."""
    cloud.boots_in = 1.0

    def end_one(number: int, call: Call) -> None:
        if call.action == "DescribeInstances" and len(living := cloud.instances("pending")) == 3:
            cloud.power_off(living[0])

    cloud.before = end_one
    with pytest.raises(FleetError, match=r"(?s)2 of 3 machines.*i-\w+ has ended"):
        async with made(3):
            pass
    async with made(3, quorum=0.6) as (hosts, _):
        assert len(hosts) == 2


@pytest.mark.parametrize("after", [0, 2])
async def test_a_provision_that_fails_half_way_is_undone(
    after: int, cloud: Cloud, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account cannot see yet what it has launched, and machines take time to end."""
    monkeypatch.setattr(launch, "BATCH", 1)
    cloud.seen_in, cloud.ends_in = 0.5, 0.5
    cloud.faults.append(Fault("RunInstances", "OptInRequired", after=1 + after, times=99))
    with pytest.raises(FanoutError, match="OptInRequired"):
        async with made(3):
            pass
    assert len(cloud.launched) == after


async def test_a_provision_that_is_interrupted_at_any_call_is_undone(cloud: Cloud, made: Made) -> None:
    async def life() -> None:
        async with made(2):
            cloud.before = lambda number, call: None

    await life()
    for number in range(10, len(cloud.calls), 3):
        cloud.clear()
        cloud.boots_in = cloud.ends_in = 0.0
        task = asyncio.ensure_future(life())
        cloud.before = Interrupt(number, task)
        await asyncio.wait({task})
        assert (task.cancelled() or task.exception() is None) and cloud.left() == [], number


class Interrupt:
    """Cancels a task at a call."""

    def __init__(self, number: int, task: asyncio.Task[None]) -> None:
        self._number = number
        self._cancel = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)

    def __call__(self, number: int, call: Call) -> None:
        if number == self._number:
            self._cancel()


async def test_the_policy_in_the_docs_has_every_right_that_is_used_and_no_other(cloud: Cloud, made: Made) -> None:
    text = (Path(__file__).parents[2] / "docs/aws.md").read_text()
    policy = json.loads(text.partition("```json\n")[2].partition("```")[0])
    for spot in "true", "false":
        async with made(1, spot=spot):
            pass
    used = {f"{call.service}:{call.action}" for call in cloud.calls} - {"sts:GetCallerIdentity"}
    # Tags are set as things are made: a right of its own, and no call.
    assert used | {"ec2:CreateTags"} == {right for one in policy["Statement"] for right in one["Action"]}
