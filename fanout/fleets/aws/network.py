"""Where machines are on the network: subnets, and a security group of the run's own.

The group lets SSH in from the root, and everything from machines of the run; nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fanout.errors import FleetError, UsageError
from fanout.fleets.aws import tags
from fanout.fleets.aws.api import Api, Refused, passes

CHECKIP_TIMEOUT = 10.0  # s
REPEAT = 3.0  # s between attempts to delete a group that machines still hold, or to use one that is not shown yet
SHOWN = 15.0  # s in which EC2 shows what it has made: its answers are eventually consistent
NOT_FOUND = "InvalidGroup.NotFound"


@dataclass(frozen=True)
class Subnet:
    id: str
    zone: str
    vpc: str


async def subnets(api: Api, wanted: tuple[str, ...]) -> list[Subnet]:
    """Those named, in that order; without names the default ones, one a zone."""
    parameters: dict[str, Any] = (
        {"SubnetIds": list(wanted)} if wanted else {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    )
    try:
        told = api.each("ec2", "describe_subnets", "Subnets", **parameters)
        found = [Subnet(each["SubnetId"], each["AvailabilityZone"], each["VpcId"]) async for each in told]
    except Refused as refused:
        if not refused.code.startswith("InvalidSubnetID"):
            raise
        raise UsageError(f"subnets: {refused.message}") from None
    if not found:
        raise UsageError(f"{api.region} has no default subnets: name some, as in subnets = [\"subnet-...\"]")
    if len({each.vpc for each in found}) > 1:
        raise UsageError("subnets: they are of several VPCs; machines of a run share one")
    order = {name: place for place, name in enumerate(wanted)}
    return sorted(found, key=lambda each: (order.get(each.id, 0), each.zone))


async def root_address(given: str | None, checkip: str) -> str:
    """The network that the root's connections come from."""
    if given is not None:
        return given
    try:
        text = await asyncio.to_thread(_fetch, checkip)
        return str(ipaddress.IPv4Network(text.strip()))
    except (OSError, ValueError) as error:
        raise FleetError(
            f"our own address cannot be learned from {checkip}: {error}\ngive it, as in root_address = \"203.0.113.7\""
        ) from None


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=CHECKIP_TIMEOUT) as answer:  # noqa: S310  the spec takes http(s) alone
        return str(answer.read(64).decode("ascii"))


async def make_group(api: Api, run: str, vpc: str, source: str, marked: list[dict[str, Any]]) -> str:
    """The id of the run's group, made, or found where an earlier attempt has made it."""
    name = f"fanout-{run}"
    try:
        answer = await api.call(
            "ec2", "create_security_group", GroupName=name, Description=f"fanout run {run}", VpcId=vpc,
            TagSpecifications=marked,
        )  # fmt: skip
        group = str(answer["GroupId"])
    except Refused as refused:
        if refused.code != "InvalidGroup.Duplicate":
            raise
        group = await _shown(api, run, name)
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": source, "Description": "root"}]}
    inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group, "Description": "machines of the run"}]}
    deadline = asyncio.get_running_loop().time() + SHOWN
    while True:
        try:
            await api.call("ec2", "authorize_security_group_ingress", GroupId=group, IpPermissions=[ssh, inside])
            return group
        except Refused as refused:
            if refused.code == "InvalidPermission.Duplicate":
                return group
            if refused.code != NOT_FOUND or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(REPEAT)


async def _shown(api: Api, run: str, name: str) -> str:
    """The group that EC2 says it has, once it shows it."""
    deadline = asyncio.get_running_loop().time() + SHOWN
    while not (found := await groups_of(api, run)):
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(f"{api.region} has a security group {name} that is not of this run: delete it")
        await asyncio.sleep(REPEAT)
    return found[0]


async def groups(api: Api, filters: Mapping[str, Iterable[str]]) -> list[tuple[str, dict[str, str]]]:
    """(id, tags) of those that fit every filter of EC2."""
    wanted = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    found = api.each("ec2", "describe_security_groups", "SecurityGroups", Filters=wanted)
    return [(group["GroupId"], tags.of(group)) async for group in found]


async def groups_of(api: Api, run: str) -> list[str]:
    return [group for group, _ in await groups(api, {f"tag:{tags.RUN}": [run]})]


async def delete_group(api: Api, group: str, timeout: float) -> None:
    """Again and again while its machines are going; FleetError after `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        try:
            await api.call("ec2", "delete_security_group", GroupId=group)
            return
        except FleetError as error:
            code = error.code if isinstance(error, Refused) else ""
            if code == NOT_FOUND:
                return
            if not (passes(error) or code == "DependencyViolation") or loop.time() + REPEAT > deadline:
                raise
        await asyncio.sleep(REPEAT)
