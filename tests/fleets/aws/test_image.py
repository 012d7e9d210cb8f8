"""Which image is taken: of the newest Ubuntu LTS that the region has, for the processor that all types share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from fanout.errors import FleetError, UsageError
from fanout.fleets.aws.api import Api, Refused
from fanout.fleets.aws.image import UBUNTU, Image, find

PROCESSORS = {"t3.small": ["i386", "x86_64"], "t3.large": ["x86_64"], "t4g.small": ["arm64"]}


class Region:
    """An Api that knows types, parameters and images."""

    region = "eu-west-1"

    def __init__(self, parameters: dict[str, str], images: dict[str, str]) -> None:
        self.parameters = parameters
        self.images = images

    async def each(self, service: str, operation: str, key: str, **given: Any) -> AsyncIterator[dict[str, Any]]:
        for kind in given["InstanceTypes"]:
            if kind not in PROCESSORS:
                raise Refused("ec2:DescribeInstanceTypes", "InvalidInstanceType", f"not {kind}")
            yield {"InstanceType": kind, "ProcessorInfo": {"SupportedArchitectures": PROCESSORS[kind]}}

    async def call(self, service: str, operation: str, **given: Any) -> dict[str, Any]:
        if operation == "get_parameters":
            found = [name for name in given["Names"] if name in self.parameters]
            return {"Parameters": [{"Name": name, "Value": self.parameters[name]} for name in reversed(found)]}
        (wanted,) = given["ImageIds"]
        if wanted not in self.images:
            raise Refused("ec2:DescribeImages", "InvalidAMIID.NotFound", "no such image")
        disks = [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
                 {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 9}}]  # fmt: skip
        told = {"Architecture": self.images[wanted], "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": disks}
        return {"Images": [told]}


def ubuntu(release: str, architecture: str) -> str:
    return UBUNTU.format(release=release, architecture=architecture)


REGION = Region(
    {ubuntu("26.04", "amd64"): "ami-26", ubuntu("24.04", "amd64"): "ami-24", ubuntu("24.04", "arm64"): "ami-arm",
     "/my/own": "ami-24"},
    {"ami-26": "x86_64", "ami-24": "x86_64", "ami-arm": "arm64"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "types", "image"),
    [
        (None, ["t3.small", "t3.large"], "ami-26"),
        (None, ["t4g.small"], "ami-arm"),
        ("/my/own", ["t3.small"], "ami-24"),
        ("ami-24", ["t3.small"], "ami-24"),
    ],
)
async def test_the_image_is_found(wanted: str | None, types: list[str], image: str) -> None:
    assert await find(cast(Api, REGION), wanted, types) == Image(image, "/dev/sda1", 9)


@pytest.mark.parametrize(
    ("wanted", "types", "words"),
    [
        ("ami-0", ["t3.small"], "there is no image ami-0 in eu-west-1"),
        ("ami-arm", ["t3.small"], "image ami-arm is for arm64, and t3.small are x86_64"),
        ("/not/there", ["t3.small"], "there is no SSM parameter /not/there"),
        (None, ["t3.small", "t4g.small"], "no processor that all of them share"),
        (None, ["t3.small", "t9.huge"], "eu-west-1 has not all of the types t3.small, t9.huge: not t9.huge"),
    ],
)
async def test_what_does_not_fit_is_told(wanted: str | None, types: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await find(cast(Api, REGION), wanted, types)


async def test_a_region_without_ubuntu_needs_an_image() -> None:
    with pytest.raises(FleetError, match=r"names no image of Ubuntu 26\.04 or 24\.04: give one"):
        await find(cast(Api, Region({}, {})), None, ["t3.small"])
