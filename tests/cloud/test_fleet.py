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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout.errors import FanoutError, FleetError
from fanout.fleets import open_fleet
from fanout.fleets.aws import boot, launch, prices
from fanout.fleets.aws import ready as ready_module
from fanout.fleets.base import Arrivals, Fleet, Host, Request
from tests.cloud.cloud import PRICES, REGION, Cloud
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


async def test_spot_machines_are_bounded_by_the_price_on_demand_and_expected_at_their_own(
    cloud: Cloud, made: Made
) -> None:
    own = {"types": "c7i.large", "spot": "true", "disk": "10", "ttl": "1h", "address": "private"}
    beside = 10 * prices.DISK
    async with made(100, **own, max_cost="11") as (_, said):
        bound, expected = 100 * (PRICES["c7i.large"] + beside), 100 * (PRICES["c7i.large"] * 0.5 + beside)
        assert f"is at most ${bound:.2f} (max_cost $11.00); about ${expected:.2f} at the spot prices of now" in said[0]
    assert "it cost about $" in said[-1]
    with pytest.raises(FleetError, match="more than max_cost"):
        async with made(100, **own, max_cost="9"):
            pass
    cloud.forbidden.add("DescribeSpotPriceHistory")
    async with made(2, **own) as (hosts, said):
        assert len(hosts) == 2 and "about" not in said[1]
        assert "those on demand are counted" in said[0] and "ec2:DescribeSpotPriceHistory" in said[0]


async def test_machines_that_save_up_idle_time_compute_no_further_than_that(cloud: Cloud, made: Made) -> None:
    """Beyond it each vCPU costs more than the machine, and no price counts that."""
    for types in "t3.small", "t3a.small", "c7i.large":
        async with made(1, types=types):
            pass
    asked = {call.parameters["InstanceType"]: call.parameters.get("CreditSpecification.CpuCredits")
             for call in cloud.asked("RunInstances")}
    assert asked == {"t3.small": "standard", "t3a.small": "standard", "c7i.large": None}


async def test_a_fleet_that_is_not_seen_at_once_is_waited_for(cloud: Cloud, made: Made) -> None:
    cloud.seen_in = 1.0
    cloud.faults.append(Fault("CreateSecurityGroup", DROPPED, after=1, effect=True))
    async with made(2) as (hosts, _):
        assert len(hosts) == 2


async def test_a_machine_that_ends_while_it_boots_is_named(cloud: Cloud, made: Made) -> None:
    """As when a spot instance is taken back."""
    def end_one(number: int, call: Call) -> None:
        if call.action == "DescribeInstances" and len(living := cloud.instances("pending")) == 3:
            cloud.power_off(living[0])
            cloud.boots_in = 0.0

    cloud.before = end_one
    cloud.boots_in = 1e6
    with pytest.raises(FleetError, match=r"(?s)2 of 3 machines.*i-\w+: it has ended"):
        async with made(3):
            pass
    cloud.boots_in = 1e6
    async with made(3, quorum=0.6) as (hosts, _):
        assert len(hosts) == 2


Early = Callable[..., AbstractAsyncContextManager[tuple[Fleet, list[Host], set[int]]]]


@pytest.fixture
def early(cloud: Cloud, made: Made, monkeypatch: pytest.MonkeyPatch) -> Early:
    """`async with early(4, ready={1}, ...) as (fleet, hosts, ready)`: of 4 machines these are ready, by their number in
    the order of launch, and later those that are added; the account is empty then."""

    @asynccontextmanager
    async def make(
        machines: int, ready: set[int], seconds: float = 60.0, **options: Any
    ) -> AsyncIterator[tuple[Fleet, list[Host], set[int]]]:
        async def probe(self: object, address: str, port: int) -> str:
            numbers = [number for number, one in enumerate(cloud.launched.values(), 1) if number in ready
                       and address in (one.instance.public_ip, one.address)]
            return "" if numbers else "its sshd is not prepared yet"

        monkeypatch.setattr(ready_module.Readiness, "_probe", probe)
        monkeypatch.setattr(ready_module, "WAIT", 0.02)
        given = {"region": REGION, "root_address": "10.0.0.0/8", "address": "private", **options}
        fleet: Any = open_fleet("aws:" + ",".join(f"{name}={value}" for name, value in given.items()))
        fleet.spec = replace(fleet.spec, ready_timeout=seconds)
        try:
            yield fleet, await fleet.provision(Request("r1", machines, heads=1), lambda done, total: None), ready
        finally:
            await release(fleet)
            assert cloud.left() == []

    return make


async def test_machines_are_handed_over_while_others_boot_and_each_of_those_is_told_of(
    cloud: Cloud, early: Early
) -> None:
    async with early(4, {2}) as (fleet, hosts, ready):
        assert len(hosts) == 4 and fleet.booting == {0, 2, 3}
        news = aiter(fleet.arrivals())
        ready.add(4)
        assert await anext(news) == Arrivals([3], {})
        ready |= {1, 3}
        told = [place async for more in news for place in more.ready]
        assert sorted(told) == [0, 2]


async def test_a_machine_that_ends_while_others_are_connected_is_given_up(cloud: Cloud, early: Early) -> None:
    async with early(3, {1}, quorum=0.6) as (fleet, _, _):
        news = aiter(fleet.arrivals())
        cloud.power_off(list(cloud.launched.values())[1].instance)
        told = await anext(news)
        assert list(told.gone) == [1] and "it has ended" in told.gone[1] and not told.ready
        cloud.power_off(list(cloud.launched.values())[2].instance)
        with pytest.raises(FleetError, match=r"(?s)1 of 3 machines were to be had; 2 are needed.*i-\w+: it has ended"):
            await anext(news)


async def test_the_last_machines_are_given_up_when_the_quorum_has_waited_for_them(
    early: Early, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "STRAGGLING", 0.3)
    async with early(3, {1, 3}, quorum=0.6) as (fleet, _, _):
        assert fleet.booting <= {1, 2} and 1 in fleet.booting
        gone = {place: why async for more in fleet.arrivals() for place, why in more.gone.items()}
        assert gone == {1: "its sshd is not prepared yet"}


async def test_too_few_ready_machines_in_time_are_no_fleet_also_when_some_are_connected(early: Early) -> None:
    async with early(3, {1}, seconds=1.0) as (fleet, _, _):
        with pytest.raises(FleetError, match=r"1 of 3 machines were ready within 1\.0s"):
            assert not [news async for news in fleet.arrivals()]


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
