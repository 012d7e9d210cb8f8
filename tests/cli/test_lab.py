"""`fanout lab`: what is typed reaches the lab, and what is there is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from fanout.cli import lab as cli_lab
from fanout.cli.main import main
from fanout.errors import FleetError, UsageError


class FakeLab:
    """The part of `Lab` that the command line uses, kept in a dictionary."""

    there: ClassVar[dict[str, FakeLab]] = {}
    asked: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, name: str, count: int, limits: str = "") -> None:
        self.name, self.limits, self.key = name, limits, Path("/labs/id")
        self.hosts = [
            SimpleNamespace(
                name=f"lab-{i:03}", address=f"10.0.0.{i}", port=22 + i // 3, user="root", pid=i,
                host_keys=(f"ssh-ed25519 K{i}",),
            )
            for i in range(1, count + 1)
        ]
        FakeLab.there[name] = self

    @classmethod
    def up(cls, n: int, **options: Any) -> FakeLab:
        cls.asked.append(options)
        if options["rate"] == "bad":
            raise FleetError("no")
        return cls(options["name"], n, limits="no power cuts")

    @classmethod
    def open(cls, name: str) -> FakeLab:
        if name not in cls.there:
            raise UsageError(f"there is no lab named {name}")
        return cls.there[name]

    @classmethod
    def names(cls) -> list[str]:
        return sorted(cls.there)

    def down(self) -> None:
        del FakeLab.there[self.name]


@pytest.fixture(autouse=True)
def labs(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeLab]:
    monkeypatch.setattr(cli_lab, "Lab", FakeLab)
    monkeypatch.setattr(FakeLab, "there", {})
    monkeypatch.setattr(FakeLab, "asked", [])
    return FakeLab.there


def fanout_lab(*args: str) -> Result:
    return CliRunner().invoke(main, ["lab", *args])


def test_up_makes_a_lab_and_says_how_to_use_it() -> None:
    done = fanout_lab("up", "-n", "60", "--name", "big", "--rate", "100mbit", "--cpu", "0.5")
    assert FakeLab.asked == [{"name": "big", "rate": "100mbit", "cpu": 0.5}]
    assert done.stdout.startswith("lab big: 60 hosts in ")
    assert "note: no power cuts" in done.stderr
    assert "--fleet lab:name=big -n 60" in done.stderr
    assert "ssh -i /labs/id -p 22 root@10.0.0.1" in done.stderr


def test_exit_codes_are_those_of_the_errors() -> None:
    assert fanout_lab("up", "--rate", "bad").exit_code == 3
    assert fanout_lab("up", "-n", "0").exit_code == 2
    assert fanout_lab("down", "nosuch").exit_code == 2


def test_ls_tells_of_whole_and_half_made_labs() -> None:
    FakeLab("big", 60)
    FakeLab("x", 0)
    assert fanout_lab("ls").stdout.splitlines() == [
        "big  60 hosts, isolated: lab-[001-060] at 10.0.0.1 and on",
        "x    not finished: being made, or left by a crash",
    ]
    record = json.loads(fanout_lab("ls", "--json").stdout)
    assert [lab["name"] for lab in record] == ["big", "x"]
    assert record[0]["hosts"][2] == {
        "name": "lab-003", "address": "10.0.0.3", "port": 23, "user": "root", "pid": 3,
        "host_keys": ["ssh-ed25519 K3"],
    }  # fmt: skip


def test_ls_gives_what_a_hosts_fleet_needs_to_run_on_a_lab() -> None:
    FakeLab("big", 3)
    text = fanout_lab("ls", "--hosts").stdout
    assert text.splitlines()[2] == 'root@10.0.0.3:23 name=lab-003 key=/labs/id host_key="ssh-ed25519 K3"'
    assert fanout_lab("ls", "--known-hosts").stdout.splitlines() == [
        "10.0.0.1 ssh-ed25519 K1", "10.0.0.2 ssh-ed25519 K2", "[10.0.0.3]:23 ssh-ed25519 K3",
    ]  # fmt: skip


def test_ls_without_labs_is_empty_on_stdout() -> None:
    assert fanout_lab("ls").stdout == ""
    assert json.loads(fanout_lab("ls", "--json").stdout) == []


def test_down_takes_the_only_lab_or_the_named_or_all(labs: dict[str, FakeLab]) -> None:
    FakeLab("one", 2)
    assert fanout_lab("down").stdout == "lab one: 2 hosts removed\n"
    assert fanout_lab("down").exit_code == 0
    FakeLab("one", 2), FakeLab("two", 1), FakeLab("three", 0)
    assert "one, three, two" in fanout_lab("down").stderr
    assert fanout_lab("down", "two").stdout == "lab two: 1 host removed\n"
    assert fanout_lab("down", "one", "--all").exit_code == 2
    assert fanout_lab("down", "--all").exit_code == 0
    assert labs == {}
