"""`fanout copy`: what is there afterwards, what is told, and which exit code."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from fanout.cli.copy import Copy, place
from fanout.cli.selection import Machines
from fanout.errors import UsageError
from fanout.fleets.base import Host
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.call import Call
from fanout.root.shipping import Source
from tests.sshd import home_of

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.mark.parametrize("dest, several, to", [
    ("/opt/x", False, "/opt/x"), ("/opt/", False, "/opt/file"), ("x", False, "~/x"), ("~/x", False, "~/x"),
    ("/opt", True, "/opt/file"), ("sub", True, "~/sub/file"), ("/", False, "/file"), ("x/{id}", False, "~/x/{id}"),
    (".", False, "~/./file"), ("..", False, "~/../file"), ("~", False, "~/file"), ("/opt/.", False, "/opt/./file"),
])
def test_where_it_goes(tmp_path: Path, dest: str, several: bool, to: str) -> None:
    (tmp_path / "file").touch()
    assert place(Source(tmp_path / "file"), dest, several) == to


@pytest.mark.parametrize(("dest", "why"), [("", "DEST is empty"), ("\udcff", "DEST is not UTF-8")])
def test_where_nothing_can_go(tmp_path: Path, dest: str, why: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=why):
        place(Source(tmp_path / "file"), dest, False)


@pytest.fixture
def environment(sshd: LoopbackSshd, tmp_path: Path) -> dict[str, str]:
    home_of(tmp_path, sshd)
    return {**os.environ, "HOME": str(tmp_path)}


@pytest.fixture
def copy(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "fanout.cli", "copy", "--no-cache", "-w", f"@{tmp_path}/hosts", *words],
            capture_output=True, env=environment, timeout=90)

    return run


@pytest.mark.sshd
def test_files_and_folders_are_there_and_what_failed_is_named(copy: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 100_000)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("f")
    there = tmp_path / "there"
    done = copy(str(tmp_path / "a"), str(tmp_path / "d"), f"{there}/{{name}}/", "--mode", "600")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"0.1 MB on 3 of 3 machines" in done.stderr
    for name in ("n1", "n2", "n3"):
        assert (there / name / "a").read_bytes() == b"a" * 100_000
        assert (there / name / "a").stat().st_mode & 0o777 == 0o600
        assert (there / name / "d" / "f").read_text() == "f"
    (there / "n2" / "b" / "in the way").mkdir(parents=True)
    done = copy("--json", "-q", str(tmp_path / "a"), f"{there}/{{name}}/b")
    machines = {machine["name"]: machine for machine in json.loads(done.stdout)["machines"]}
    assert (done.returncode, done.stderr) == (1, b"")
    assert [machines[name]["outcome"] for name in ("n1", "n2", "n3")] == ["ok", "failed", "ok"]
    assert machines["n2"]["reason"] == f"cannot put it at {there}/n2/b: Is a directory"
    assert sorted(path.name for path in (there / "n2").iterdir()) == ["a", "b", "d"]
    done = copy(str(tmp_path / "a"), f"{there}/n1/a/b")
    assert f"cannot put it at {there}/n1/a/b: {there}/n1/a is not a folder" in done.stderr.decode()


@pytest.mark.parametrize("words, why", [
    (("/nowhere", "/x"), b"cannot ship /nowhere: No such file"), (("/etc/hostname",), b"where to"),
    (("/etc/hostname", "/proc/../etc/hostname", "/x"), b"two of these"),
    (("/etc/hostname", "/x", "--mode", "9"), b"octal"),
    (("/etc/hostname", "/x", "--kex", "none-such"), b"there are mlkem"),
])
@pytest.mark.sshd
def test_what_makes_no_sense_is_said_before_anything_is_connected(copy: Run, words: tuple[str, ...], why: bytes
                                                                  ) -> None:
    done = copy(*words)
    assert done.returncode == 2
    assert why in done.stderr


@pytest.mark.sshd
def test_ctrl_c_leaves_nothing_half_done(environment: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    there = tmp_path / "there"
    with subprocess.Popen([sys.executable, "-m", "fanout.cli", "copy", "--no-cache", "-w", f"@{tmp_path}/hosts",
                           str(tmp_path / "big"), f"{there}/{{name}}"], stderr=subprocess.PIPE, env=environment
                          ) as process:
        deadline = time.monotonic() + 60
        while not there.exists() or not list(there.iterdir()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"interrupted" in err
    assert list(there.iterdir()) == []


async def test_after_ctrl_c_who_has_all_of_it_is_told_from_who_has_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answered:
        def __init__(self, *groups: tuple[int, tuple[str, str]]) -> None:
            self._groups = groups

        def groups(self, phase: int) -> list[tuple[int, tuple[str, str]]]:
            return list(self._groups)

    async def interrupted(copy: Copy) -> None:
        copy._targets = 0b1111
        copy._calls = cast("list[Call]", [
            Answered((0b0111, ("ok", ""))),
            Answered((0b0001, ("ok", "")), (0b0010, ("failed", "no space")), (0b1000, ("ok", "")))])
        raise asyncio.CancelledError

    monkeypatch.setattr(Copy, "_work", interrupted)
    hosts = [Host(f"n{i}", "127.0.0.1") for i in range(4)]
    assert await Copy(Machines(hosts), [], None, True, True, True, {"command_timeout": None}).run() == 130
    outcomes = [machine["outcome"] for machine in json.loads(capsys.readouterr().out)["machines"]]
    assert outcomes == ["ok", "interrupted", "interrupted", "interrupted"]
