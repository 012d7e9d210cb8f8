"""What --fleet aws may be told, and that everything else is an error before anything is asked of AWS."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.errors import UsageError
from fanout.fleets.aws.spec import Spec, parse

FULL = """
region = "eu-west-1"
profile = "dev"
types = ["t3.small", "t3a.small"]
image = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
subnets = ["subnet-0123abcd"]
address = "private"
root_address = "10.0.0.0/16"
spot = true
disk = 20
user = "root"
ttl = "2h"
idle = "5m"
ready_timeout = 120
quorum = 0.9
max_cost = 3
[tags]
team = "storage"
[prices]
"t3.small" = 0.02
[relays]
count = 2
types = ["c7i.large"]
"""


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FULL)
    assert parse(f"{tmp_path}/fleet.toml") == Spec(
        region="eu-west-1", profile="dev", types=("t3.small", "t3a.small"),
        image="/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
        subnets=("subnet-0123abcd",), address="private", root_address="10.0.0.0/16", spot=True, disk=20, user="root",
        ttl=7200.0, idle=300.0, ready_timeout=120.0, quorum=0.9, max_cost=3.0, tags={"team": "storage"},
        prices={"t3.small": 0.02}, relays=2, relay_types=("c7i.large",),
    )  # fmt: skip


def test_options_say_the_same_and_nothing_is_the_defaults() -> None:
    assert parse("") == Spec()
    assert parse("types=t3.small+t3.large,spot=true,ttl=30m,disk=9,max_cost=0.5") == Spec(
        types=("t3.small", "t3.large"), spot=True, ttl=1800.0, disk=9, max_cost=0.5
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed = 3", "unknown key 'speed'; known are region"),
        ("region = 5", "region: 5 is not a region"),
        ("types = []", "types: .* not a list of at least one"),
        ('types = ["big"]', "types: 'big' is not an instance type"),
        ('image = "ubuntu"', "image: 'ubuntu' is not an AMI"),
        ('ttl = "1m"', "ttl: 1m00s is not from 10m00s"),
        ('ttl = "30 days"', "ttl: .* is not a duration"),
        ('idle = "10m"', "idle: 10m00s is too short: .* the ready_timeout, 10m00s"),
        ("quorum = 0", "quorum: 0 is not a number from 0.01 to 1"),
        ("disk = 1.5", "disk: 1.5 is not a whole number"),
        ("spot = 1", "spot: 1 is not true or false"),
        ('root_address = "home"', "root_address: 'home' is not an IPv4 address"),
        ('address = "private"', "say from where, as in root_address"),
        ('user = "a b"', "user: 'a b' is not the name of a user"),
        ('tags = {Name = "x"}', "tags: 'Name'"),
        ('tags = {"fanout:run" = "x"}', "are not yours to give"),
        ('prices = {"t3.small" = -1}', "prices: -1 is not a number"),
        ("relays = {count = 2}", "relays: this is a table with count and types"),
        ("region = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(UsageError, match=rf"fleet\.toml.*{words}"):
        parse(f"{tmp_path}/fleet.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none.toml", "cannot be read: No such file"),
        ("ttl=1h,ttl=2h", "ttl= is given twice"),
        ("speed=3", "'speed=3' is not one of region="),
        ("tags=a", "'tags=a' is not one of"),
        ("quorum=most", "quorum: 'most' is not a number"),
        ("spot=yes", "spot: 'yes' is not true or false"),
    ],
)
def test_so_is_it_of_options(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(text)
