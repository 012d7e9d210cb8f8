"""One command on many machines over a real sshd, flat and through relays: the same outcomes, and nothing left."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout.fleets.base import Host
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.oneshot import Ended, Flat, Job
from fanout.root.outcomes import Outcome
from fanout.root.relayed import Relayed
from fanout.root.settings import Settings
from tests.root.trees import through, until
from tests.sshd import running

pytestmark = pytest.mark.sshd


class Heard:
    """What a one-shot told."""

    def __init__(self) -> None:
        self.out: dict[tuple[int, int], bytes] = {}
        self.how: dict[int, Ended] = {}

    def output(self, machine: int, stream: int, data: bytes) -> None:
        assert machine not in self.how, "output after the end"
        self.out[machine, stream] = self.out.get((machine, stream), b"") + data

    def ended(self, machine: int, how: Ended) -> None:
        assert machine not in self.how, "ended twice"
        self.how[machine] = how


@pytest.fixture(params=["flat", "relays"])
def start(request: pytest.FixtureRequest, sshd: LoopbackSshd, tmp_path: Path) -> Callable[..., Any]:
    """A one-shot of either kind over some hosts."""

    def make(hosts: Sequence[Host], heard: Heard, command: str, relays: int = 1, **options: Any) -> Flat | Relayed:
        job = Job(command, **{"connect_timeout": 10.0, **options})
        settings = Settings(run=f"x-{tmp_path.name[-12:]}", folder=str(tmp_path), connect_timeout=job.connect_timeout)
        if request.param == "flat":
            return Flat(hosts, job, settings, heard)
        return Relayed(hosts, relays, job, settings, heard, relay_key=sshd.key.read_text())

    return make


async def done(work: Flat | Relayed) -> None:
    async with asyncio.timeout(40):
        await work.run()


async def test_every_machine_runs_it_and_its_code_and_streams_come_back(start, sshd: LoopbackSshd) -> None:
    heard = Heard()
    script = "echo out ${SSH_CONNECTION:+x}; echo err >&2; exit 3"
    await done(start(through(sshd, 12), heard, script, relays=2))
    assert set(heard.how.values()) == {Ended(Outcome.FAILED, 3)} and len(heard.how) == 12
    assert {heard.out[i, 1] for i in range(12)} == {b"out x\n"} and {heard.out[i, 2] for i in range(12)} == {b"err\n"}


async def test_large_and_binary_output_and_input_are_exact(start, sshd: LoopbackSshd) -> None:
    heard, data = Heard(), bytes(range(256)) * 4096
    await done(start(through(sshd, 3), heard, "cat; exit 255", stdin=data))
    assert heard.how == dict.fromkeys(range(3), Ended(Outcome.FAILED, 255))
    assert heard.out == {(i, 1): data for i in range(3)}


async def test_machines_that_cannot_be_reached_say_why_each_and_hold_up_nobody(start, sshd: LoopbackSshd) -> None:
    good = through(sshd, 1)[0]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hosts = [good, replace(good, name="refuses", port=closed.getsockname()[1]),
                 replace(good, name="stranger", user="nobody-of-that-name"),
                 replace(good, name="other-key", address="127.1.0.9", host_keys=(
                     "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIzGLxgFvaFeHkkBJRvWTMnnFJbq0oQFqOwqCw3GQyqk",))]
        heard = Heard()
        await done(start(hosts, heard, "true", connect_timeout=3.0))
    assert {i: str(how.outcome) for i, how in heard.how.items()} == {
        0: "ok", 1: "unreachable", 2: "auth failed", 3: "host key mismatch"}
    assert all(heard.how[i].code is None and heard.how[i].reason for i in (1, 2, 3))


async def test_what_runs_too_long_is_killed_where_it_runs(start, sshd: LoopbackSshd) -> None:
    heard = Heard()
    await done(start(through(sshd, 3), heard, "sleep 7171 & sleep 7171", timeout=0.5))
    assert {str(how.outcome) for how in heard.how.values()} == {"timed out"} and len(heard.how) == 3
    await until(lambda: not running(sshd, "7171"))


async def test_what_a_shell_left_behind_is_killed_too(sshd: LoopbackSshd, tmp_path: Path) -> None:
    """`server &` holds the command's output open, so the command is not over when its shell is."""
    heard = Heard()
    job = Job("nohup sleep 7474 & echo there", timeout=1.0)
    await done(Flat(through(sshd, 2), job, Settings(run="z", folder=str(tmp_path)), heard))
    assert {str(how.outcome) for how in heard.how.values()} == {"timed out"}
    assert all("was killed" in how.reason for how in heard.how.values())
    await until(lambda: not running(sshd, "7474"))


async def test_what_could_not_be_killed_is_said_to_run_on(tmp_path: Path) -> None:
    forced = {"MaxSessions": "1", "ForceCommand": 'eval "$SSH_ORIGINAL_COMMAND"'}  # nor does sshd kill these itself
    with LoopbackSshd(forced) as alone:
        heard, settings = Heard(), Settings(run="z", folder=str(tmp_path))
        await done(Flat(through(alone, 1), Job("exec sleep 7575", timeout=0.5), settings, heard))
        assert "may still run" in heard.how[0].reason
        await until(lambda: running(alone, "7575"))
        heard = Heard()
        task = asyncio.create_task(Flat(through(alone, 1), Job("exec sleep 7676"), settings, heard).run())
        await until(lambda: bool(running(alone, "7676")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        assert heard.how[0].outcome == Outcome.LOST and "may still run" in heard.how[0].reason


async def test_what_a_relay_could_not_kill_is_said_to_run_on(tmp_path: Path) -> None:
    forced = "case $SSH_ORIGINAL_COMMAND in *'kill -s'*) exit 255;; *) eval \"$SSH_ORIGINAL_COMMAND\";; esac"
    with LoopbackSshd({"ForceCommand": forced}) as once:
        heard, settings = Heard(), Settings(run="z", folder=str(tmp_path))
        job = Job("exec sleep 7878", connect_timeout=10.0, timeout=0.5)
        await done(Relayed(through(once, 2), 1, job, settings, heard, relay_key=once.key.read_text()))
        assert [str(how.outcome) for how in heard.how.values()] == ["timed out"] * 2
        assert heard.how[0].reason.endswith("and was killed")
        assert "may still run" in heard.how[1].reason and running(once, "7878")


async def test_what_runs_behind_a_relay_that_is_gone_is_said_to_run_on(tmp_path: Path) -> None:
    with LoopbackSshd() as alone:
        heard, settings = Heard(), Settings(run="z", folder=str(tmp_path))
        work = Relayed(through(alone, 2), 1, Job("exec sleep 7979", connect_timeout=10.0), settings, heard,
                       relay_key=alone.key.read_text())
        task = asyncio.create_task(done(work))
        await until(lambda: len(running(alone, "7979")) == 2)
        [relay] = running(alone, "-I")
        os.kill(relay, signal.SIGKILL)
        await task
    assert all(how.outcome == Outcome.LOST and "may still run" in how.reason for how in heard.how.values())
    assert "its relay host-0 is gone" in heard.how[1].reason


async def test_an_interrupt_ends_it_on_every_machine(start, sshd: LoopbackSshd, tmp_path: Path) -> None:
    heard = Heard()
    task = asyncio.create_task(start(through(sshd, 4), heard, "sleep 7272; echo after").run())
    await until(lambda: len(running(sshd, "7272")) == 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert heard.how == {} and heard.out == {}
    await until(lambda: not running(sshd, "7272"))
    assert not list(tmp_path.glob("fanout-*"))


async def test_a_relay_that_cannot_be_reached_costs_only_itself(sshd: LoopbackSshd, tmp_path: Path) -> None:
    hosts, heard = through(sshd, 4), Heard()
    hosts[0] = replace(hosts[0], python="no-python-here")
    hosts[1] = replace(hosts[1], user="nobody-of-that-name")
    await done(Relayed(hosts, 2, Job("echo hi"), Settings(run="y", folder=str(tmp_path)), heard))
    assert [str(heard.how[i].outcome) for i in range(4)] == ["ok", "auth failed", "ok", "ok"]
