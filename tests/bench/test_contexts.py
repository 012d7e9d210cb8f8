"""Mitogen's contexts are made as its users make them, and what they cost is all counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fanout.bench import contexts
from fanout.bench.bed import bed
from fanout.bench.peers import Place
from tests.sshd import need_sshd


class Router:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.gateways: dict[str, str | None] = {}

    def ssh(self, hostname: str, via: str | None = None, **options: Any) -> str:
        assert options["ssh_args"] == ["-F", "config"]
        self.gateways[hostname] = via
        return hostname


def test_the_first_hosts_are_the_gateways_of_the_others_in_turn() -> None:
    hosts, router = list("abcdefg"), Router()
    assert contexts.contexts(router, Path("config"), hosts, 2, 4) == hosts
    assert router.gateways == {"a": None, "b": None, "c": "a", "d": "b", "e": "a", "f": "b", "g": "a"}
    assert contexts.contexts(router, Path("config"), hosts, 0, 4) == hosts
    assert set(router.gateways.values()) == {None}


def test_the_cpu_of_children_that_still_run_counts() -> None:
    before = contexts.cpu()
    program = "while sum(__import__('os').times()[:2]) < 0.2: pass\nprint(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        assert contexts.cpu() - before >= 0.15
        child.communicate(b"\n")


def test_contexts_on_three_hosts_over_ssh() -> None:
    pytest.importorskip("mitogen")
    need_sshd()
    with bed() as hosts, Place(hosts.hosts(3)) as place:
        done = subprocess.run(
            [sys.executable, "-m", "fanout.bench.contexts", str(place.config), str(place.names(3)), "--via", "1"],
            stdout=subprocess.PIPE, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert set(found) == {"ready", "connect_cpu", "first_command", "command", "command_cpu"}
    assert all(value > 0 for value in found.values())
