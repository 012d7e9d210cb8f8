"""AWS as moto has it, spoken to over HTTP by the real boto3; nothing else of the network is reached.

moto starts no machines, so that whether one is ready is told by `boots`; machines that boot for real are in
tests/cloud.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from fanout.fleets.aws.ready import Readiness

REGION = "eu-west-1"


IMAGE = "ami-03cf127a"
"""One that moto has, for x86_64."""


SERVED = """
import sys

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
"""Serves until its input ends."""


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """A process of its own: the cloud of tests/cloud is moto with other settings, and both would share their books."""
    with subprocess.Popen([sys.executable, "-c", SERVED], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        url = server.stdout.readline().strip()
        assert url, "moto does not start"
        yield url
        server.stdin.close()


@pytest.fixture(scope="session", autouse=True)
def models() -> Iterator[None]:
    """What boto3 knows of EC2 is read once, not for each test: that takes it a second."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *given: loader)
        yield


@pytest.fixture
def account(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Account:
    """An account with nothing in it, and the environment that leads there."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": f"{tmp_path}/config", "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/credentials",
        "AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": f"{tmp_path}/cache", "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    account = Account(moto)
    account.reset()
    account.ec2.describe_images(ImageIds=[IMAGE])  # makes the region: two that do so at once get in each other's way
    return account


class Account:
    """Looks at the account by a client of its own."""

    def __init__(self, url: str) -> None:
        self.ec2: Any = boto3.client(
            "ec2", region_name=REGION, endpoint_url=url, aws_access_key_id="look", aws_secret_access_key="look"
        )
        self._url = url

    def reset(self) -> None:
        request = urllib.request.Request(f"{self._url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    @property
    def instances(self) -> list[dict[str, Any]]:
        found = self.ec2.describe_instances()["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    @property
    def living(self) -> list[dict[str, Any]]:
        return [each for each in self.instances if each["State"]["Name"] not in ("terminated", "shutting-down")]

    @property
    def groups(self) -> list[dict[str, Any]]:
        found = self.ec2.describe_security_groups()["SecurityGroups"]
        return [group for group in found if group["GroupName"] != "default"]


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a probe of an address says; an address that is not in here is ready."""
    problems: dict[str, str] = {}

    async def probe(self: Readiness, address: str, port: int) -> str:
        return problems.get(address, problems.get("*", ""))

    monkeypatch.setattr(Readiness, "_probe", probe)
    return problems
