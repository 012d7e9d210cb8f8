"""The user data, run by sh on a host of the lab: who may log in, and how its host key is known from then on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout.agent.core import diagnose
from fanout.fleets.aws.ready import Readiness
from fanout.fleets.aws.userdata import MOST, Prepared
from fanout.fleets.base import Host
from fanout.fleets.lab import Lab
from fanout.fleets.openssh import keypair
from fanout.root.settings import Settings
from fanout.root.transport import Unreached, open_ssh

pytestmark = pytest.mark.lab
STUB = "#!/bin/sh\necho \"$*\" >> /run/shutdown.log\n"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {name: keypair(tmp_path / name) for name in ("login", "ca", "other")}


def prepared(tmp_path: Path, keys: dict[str, str], **more: Any) -> Prepared:
    ca = (tmp_path / "ca").read_text()
    given = {"run": "r1", "user": "root", "expires": time.time() + 3030.0, "ttl": 3600.0, "idle": 600.0}
    return Prepared(**{**given, **more}, login=keys["login"], ca=ca, ca_public=keys["ca"])


def test_it_fits_and_begins_as_cloud_init_wants_it(tmp_path: Path, keys: dict[str, str]) -> None:
    text = prepared(tmp_path, keys).text()
    assert text.startswith("#cloud-boothook\n#!/bin/sh\n") and len(text.encode()) < MOST


@pytest.fixture
def machine(tmp_path: Path, keys: dict[str, str], lab: Callable[..., Lab]) -> Any:
    made = lab(1)
    host = made.hosts[0]
    script = prepared(tmp_path, keys).text()
    run = (
        f"cat > /usr/local/sbin/shutdown <<'STUB'\n{STUB}STUB\nchmod +x /usr/local/sbin/shutdown\n"
        "export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin FANOUT_SSHD_CONFIG=/run/sshd/config\n"
        f"cat > /run/script <<'SCRIPT'\n{script}SCRIPT\nsh /run/script && sh /run/script\n"  # as at every boot
    )
    done = made.run_in(host, ["sh", "-c", run], 60.0)
    assert done.returncode == 0, done.stderr
    wait_prepared(host.address)
    return made, host


def wait_prepared(address: str) -> None:
    """sshd reads its files anew in its own time, and listens to nobody meanwhile."""

    async def wait() -> None:
        prepared = asyncio.Event()
        readiness = Readiness("fanout-r1", prepared.set)
        readiness.watch("m", address)
        try:
            await asyncio.wait_for(prepared.wait(), 30.0)
        finally:
            await readiness.stop()

    asyncio.run(wait())


class Nobody:
    def __init__(self) -> None:
        self.data = b""

    def received(self, data: bytes) -> None:
        self.data += data

    def writable_again(self) -> None: ...

    def ended(self, code: int, stderr: str) -> None: ...


async def hello(host: Host) -> bytes:
    nobody = Nobody()
    connection = await open_ssh(host, "echo hello", Settings("r1"), nobody)
    await connection.close()
    return nobody.data


async def test_the_first_connection_is_verified_and_the_timer_is_armed(
    tmp_path: Path, keys: dict[str, str], machine: Any
) -> None:
    made, there = machine
    right = Host("m", there.address, user="root", port=22, key=str(tmp_path / "login"), host_ca=keys["ca"],
                 inside=there.address)  # fmt: skip
    assert await hello(right) == b"hello\n"
    for wrong in (replace(right, host_ca=keys["other"]), replace(right, inside="10.99.99.99"),
                  replace(right, host_ca=None, host_keys=(keys["other"],))):  # fmt: skip
        with pytest.raises(Unreached) as caught:
            await hello(wrong)
        assert caught.value.outcome == diagnose.HOST_KEY

    timer, *more = made.run_in(there, ["cat", "/run/shutdown.log"], 10.0).stdout.splitlines()
    assert timer.startswith("-P +51 ") and len(more) == 1
    left = made.run_in(there, ["sh", "-c", "ls /etc/ssh/fanout /dev/shm; sshd -T -f /run/sshd/config"], 10.0).stdout
    assert left.split("\n")[0:1] == ["/dev/shm:"] and "ca" not in left.split()[:10]
    assert "maxsessions 100" in left and "maxstartups 200:30:400" in left
    # As a relay does it.
    line = f"@cert-authority {there.address} {keys['ca']}"
    relay = (f"echo '{line}' > /run/known; umask 077; cat > /run/key <<'KEY'\n{(tmp_path / 'login').read_text()}KEY\n"
             f"ssh -i /run/key -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/run/known "
             f"root@{there.address} echo relayed")  # fmt: skip
    done = made.run_in(there, ["sh", "-c", relay], 30.0)
    assert done.stdout == "relayed\n", done.stderr
