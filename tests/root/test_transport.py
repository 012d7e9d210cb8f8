"""Connections of the root: bytes both ways, back-pressure, one word at the end, and an end that is bounded."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fanout.fleets.openssh import LoopbackSshd, keypair
from fanout.root.settings import Settings
from fanout.root.ssh_options import Shared
from fanout.root.transport import Connection, Unreached, open_local, open_ssh
from tests.agent.parent import gone
from tests.root.trees import through


class Ear:
    """A Receiver that remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[tuple[int, str]] = []
        self.changed = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    def writable_again(self) -> None:
        self.changed.set()

    def ended(self, code: int, stderr: str) -> None:
        self.ends.append((code, stderr))
        self.changed.set()

    async def until(self, done: object) -> None:
        assert callable(done)
        async with asyncio.timeout(20.0):
            while not done():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture(params=["local", "ssh"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def opened(kind: str, script: str, ear: Ear, sshd: LoopbackSshd) -> Connection:
    if kind == "local":
        return open_local(["/bin/sh", "-c", script], ear)
    return await open_ssh(through(sshd, 1)[0], script, Settings(run="r"), ear)


@pytest.mark.sshd
async def test_bytes_go_both_ways_and_writing_stops_when_nobody_reads(kind: str, sshd: LoopbackSshd) -> None:
    ear = Ear()
    connection = await opened(kind, "read x; exec cat", ear, sshd)
    sent, piece = b"", bytes(range(256)) * 64
    while connection.writable:
        assert len(sent) < 50_000_000, "it takes anything"
        connection.write(piece.replace(b"\n", b"."))
        sent += piece.replace(b"\n", b".")
        await asyncio.sleep(0)
    connection.write(b"\n" + b"after")
    await ear.until(lambda: ear.data.endswith(b"after"))
    await ear.until(lambda: connection.writable)
    await connection.close()
    await ear.until(lambda: ear.ends)
    assert ear.data == b"after" and ear.ends == [(0, "")]
    await connection.close()


@pytest.mark.sshd
async def test_the_end_tells_the_code_and_the_last_words_once(kind: str, sshd: LoopbackSshd) -> None:
    ear = Ear()
    connection = await opened(kind, "echo out; echo why >&2; exit 7", ear, sshd)
    await ear.until(lambda: ear.ends)
    await connection.close()
    assert (ear.data, ear.ends) == (b"out\n", [(7, "why\n")])


@pytest.mark.sshd
async def test_closing_does_not_wait_for_what_never_ends(kind: str, sshd: LoopbackSshd) -> None:
    ear = Ear()
    connection = await opened(kind, "echo $$; exec sleep 600", ear, sshd)
    await ear.until(lambda: ear.data)
    async with asyncio.timeout(10.0):
        await connection.close(0.1)
    assert len(ear.ends) == 1
    if kind == "local":
        assert gone(int(ear.data), 0)
    else:
        import signal

        os.kill(int(ear.data), signal.SIGKILL)  # over SSH the lease is what ends it


def test_importing_the_ssh_library_starts_no_compiler_and_finds_what_it_finds_without(tmp_path: Path) -> None:
    for name in ("gcc", "cc", "ld"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    look = ("import ctypes.util; find = ctypes.util.find_library; {}import asyncssh;"
            "print(asyncssh.kex.get_kex_algs(), asyncssh.mac.get_mac_algs(), ctypes.util.find_library is find)")
    ours, plain = (
        subprocess.run([sys.executable, "-c", look.format(module)], capture_output=True, text=True, check=True,
                       env={**os.environ, "PATH": path}).stdout
        for module, path in (("from fanout.root.ssh_library ", f"{tmp_path}:{os.environ['PATH']}"),
                             ("", os.environ["PATH"])))
    assert ours == plain and ours.endswith(" True\n") and not (tmp_path / "started").exists()


async def test_what_cannot_be_started_is_no_python(tmp_path: Path) -> None:
    with pytest.raises(Unreached, match="cannot be started") as caught:
        open_local([str(tmp_path / "python3")], Ear())
    assert (caught.value.outcome, caught.value.again) == ("no python", False)


async def test_a_python_that_no_descriptor_is_left_for_is_not_said_to_be_missing(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(subprocess, "Popen", scarce)
    with pytest.raises(Unreached, match="the root cannot start python3: Too many open files") as caught:
        open_local(["python3"], Ear())
    assert caught.value.outcome == "failed"


@pytest.mark.sshd
async def test_a_host_whose_key_its_authority_has_not_signed_is_refused(sshd: LoopbackSshd, tmp_path: Path) -> None:
    host = through(sshd, 1, host_keys=(), host_ca=keypair(tmp_path / "ca"))[0]
    shared = Shared(Settings(run="r"))
    with pytest.raises(Unreached, match="vouches for") as caught:
        await open_ssh(host, "true", Settings(run="r"), Ear(), shared)
    assert (caught.value.outcome, caught.value.again) == ("host key mismatch", False)


@pytest.mark.sshd
async def test_a_pinned_host_is_reached_as_given_whatever_the_user_s_configuration(
        sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host *\n  User somebody\n  Port 1\n  HostName 127.9.9.9\n")
    host = through(sshd, 1)[0]
    assert Shared(Settings(run="r")).address(host) == ("127.1.0.1", sshd.port, sshd.user)
