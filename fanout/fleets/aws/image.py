"""Which image the machines start from, and that it fits their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fanout.errors import FleetError, UsageError
from fanout.fleets.aws.api import Api, Refused

# https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
UBUNTU = "/aws/service/canonical/ubuntu/server/{release}/stable/current/{architecture}/hvm/ebs-gp3/ami-id"
LTS = ("26.04", "24.04")
"""Newest first; a region takes the first that it has."""
NAMES = {"x86_64": "amd64", "arm64": "arm64"}


@dataclass(frozen=True)
class Image:
    id: str
    disk: str
    """The name of the root disk's device."""
    size: int
    """Of the root disk, in GiB."""


async def find(api: Api, wanted: str | None, types: Sequence[str]) -> Image:
    """UsageError for types or images that do not exist or do not fit each other."""
    architecture = await _architecture(api, types)
    if wanted is None:
        wanted = await _newest(api, NAMES[architecture])
    elif wanted.startswith("/"):
        wanted = await _parameter(api, wanted)
    try:
        images = (await api.call("ec2", "describe_images", ImageIds=[wanted]))["Images"]
    except Refused as refused:
        if not refused.code.startswith("InvalidAMIID"):
            raise
        images = []
    if not images:
        raise UsageError(f"there is no image {wanted} in {api.region}: images differ from region to region")
    image = images[0]
    if image.get("Architecture", architecture) != architecture:
        raise UsageError(f"image {wanted} is for {image['Architecture']}, and {', '.join(types)} are {architecture}")
    device = image.get("RootDeviceName") or "/dev/sda1"
    sizes = [each["Ebs"].get("VolumeSize") for each in image.get("BlockDeviceMappings", ())
             if each.get("DeviceName") == device and "Ebs" in each]
    return Image(wanted, device, next(filter(None, sizes), 8))


async def _architecture(api: Api, types: Sequence[str]) -> str:
    found: dict[str, list[str]] = {}
    try:
        async for kind in api.each("ec2", "describe_instance_types", "InstanceTypes", InstanceTypes=list(types)):
            found[kind["InstanceType"]] = kind["ProcessorInfo"]["SupportedArchitectures"]
    except Refused as refused:
        if refused.code != "InvalidInstanceType":
            raise
        raise UsageError(f"{api.region} has not all of the types {', '.join(types)}: {refused.message}") from None
    common = [name for name in NAMES if all(name in found.get(kind, ()) for kind in types)]
    if not common:
        raise UsageError(f"{', '.join(types)}: no processor that all of them share, of {', '.join(NAMES)}")
    return common[0]


async def _newest(api: Api, architecture: str) -> str:
    names = [UBUNTU.format(release=release, architecture=architecture) for release in LTS]
    answer = await api.call("ssm", "get_parameters", Names=names)
    found = {each["Name"]: each["Value"] for each in answer["Parameters"]}
    for name in names:
        if name in found:
            return str(found[name])
    raise FleetError(f"{api.region} names no image of Ubuntu {' or '.join(LTS)}: give one, as in image = \"ami-...\"")


async def _parameter(api: Api, name: str) -> str:
    found = (await api.call("ssm", "get_parameters", Names=[name]))["Parameters"]
    if not found:
        raise UsageError(f"image: there is no SSM parameter {name} in {api.region}")
    return str(found[0]["Value"])
