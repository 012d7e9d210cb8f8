"""Which machines `exec`, `copy`, `fetch` and `shell` take, and that a fleet's are given back."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanout.cli.selection import Machines, chosen, tree
from fanout.errors import UsageError
from fanout.fleets.base import Host

DEFAULTS: dict[str, Any] = {
    "names": (), "fleet": None, "machines": None, "exclude": (), "roles": (), "user": None, "yes": False}
TREE: dict[str, Any] = {
    "relays": None, "width": None, "connect_timeout": 15.0, "handshakes": 32, "forward_agent": False, "kex": None,
    "cipher": None}
MAKER = """#!/bin/sh
echo "$1" >> {log}
[ "$1" = down ] && exit
{work}
printf '127.0.0.1:1 name=%s\\n' x-1 x-2
"""


async def take(**options: Any) -> list[Host]:
    async with chosen({**DEFAULTS, **options}) as machines:
        return machines.hosts


@pytest.mark.parametrize(("network", "jump", "size", "tops"), [
    ("10.0.0", None, 0, 5), ("10.0.0", None, 100 << 20, 1), ("127.0.0", None, 100 << 20, 5),
    ("127.0.0", "gate", 100 << 20, 1)])
async def test_files_go_up_the_line_once_where_there_is_one(
    network: str, jump: str | None, size: int, tops: int
) -> None:
    """Machines on this host are the exception: no line is in between."""
    hosts = [Host(f"n{i}", f"{network}.{i}", jump=jump) for i in range(1, 41)]
    assert tree(Machines(hosts), TREE, size).topology.parents.count(None) == tops


async def test_names_files_exclusions_and_groups_choose_the_machines(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("a[1-3] role=db\nroot@b1:2222\n")
    got = await take(names=(f"@{file}", "c[1-2]"), exclude=("a2,c1",), user="me")
    assert [(host.name, host.user) for host in got] == [("a1", "me"), ("a3", "me"), ("b1", "root"), ("c2", "me")]
    assert [host.name for host in await take(fleet=f"hosts:{file}", roles=("db",))] == ["a1", "a2", "a3"]
    assert [host.name for host in await take(fleet=f"hosts:{file}", machines=2)] == ["a1", "a2"]


async def test_names_are_names_whatever_else_they_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web1").write_text("other.example.org\n")
    for names, found in {
        "web1": ["web1"], "n[0-4/2]": ["n0", "n2", "n4"], "db.list": ["db.list"], "[::1]": ["::1"], "[::1]:22": ["::1"],
        "n[1-2],,": None,
    }.items():
        if found is None:
            with pytest.raises(UsageError):
                await take(names=(names,))
        else:
            assert [host.name for host in await take(names=(names,))] == found
    assert [host.name for host in await take(fleet="hosts:n[0-4/2]")] == ["n0", "n2", "n4"]


async def test_what_is_left_out_may_be_written_as_it_was_named() -> None:
    got = await take(names=("root@n[1-3]", "[::1]"), exclude=("root@n2,n3", "[::1]", ""))
    assert [host.name for host in got] == ["n1"]


@pytest.mark.parametrize(("options", "why"), [
    ({}, "which machines"),
    ({"names": ("a1",), "fleet": "lab"}, "not both"),
    ({"names": ("",)}, "names no machine"),
    ({"names": ("a1",), "exclude": ("a1",)}, "after --exclude"),
    ({"names": ("a1",), "roles": ("web",)}, "no machine has a role="),
    ({"names": ("a1",), "machines": 3}, "-n 3"),
    ({"fleet": "nope"}, "no fleet 'nope'"),
])
async def test_what_chooses_no_machine_is_an_error_with_a_remedy(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        await take(**options)


async def test_named_machines_are_taken_whatever_fleet_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT_FLEET", "hosts:z[1-2]")
    assert [host.name for host in await take(names=("a1",))] == ["a1"]
    assert [host.name for host in await take()] == ["z1", "z2"]


@contextlib.contextmanager
def running(tmp_path: Path, work: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`fanout exec` on machines that a program makes, which does `work` for it; the file of the program's calls."""
    log, program = tmp_path / "calls", tmp_path / "make"
    program.write_text(MAKER.format(log=log, work=work))
    program.chmod(0o700)
    argv = [sys.executable, "-m", "fanout.cli", "exec", "--fleet", f"exec:{program}", "--json", "--", "echo", "hush"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}) as process:
        try:
            yield process, log
        finally:
            process.kill()


def test_machines_that_a_fleet_made_are_given_back_and_the_command_is_not_written_down(tmp_path: Path) -> None:
    with running(tmp_path, "true") as (process, log):
        out, err = process.communicate(timeout=60)
    assert [one["name"] for one in json.loads(out)] == ["x-1", "x-2"], err
    assert (process.returncode, log.read_text().split()) == (255, ["up", "down"])
    [folder] = [path for path in (tmp_path / "fanout/runs").iterdir() if not path.is_symlink()]
    held = json.loads((folder / "machines.json").read_text())
    assert (held["made"], [one["host"]["name"] for one in held["machines"]]) == (None, ["x-1", "x-2"])
    assert not any(b"hush" in path.read_bytes() for path in folder.iterdir())


def test_an_interrupt_while_machines_are_made_gives_them_back(tmp_path: Path) -> None:
    with running(tmp_path, "echo making >&2; sleep 60") as (process, log):
        assert process.stderr is not None
        assert b"making" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert (process.returncode, log.read_text().split()) == (130, ["up", "down"])
