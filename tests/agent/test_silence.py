"""What the kernel of the other end says, of a process that holds a connection to it."""

import os
import signal
import socket
import subprocess
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fanout.agent import silence
from fanout.agent.children import Children, Connection
from fanout.agent.core.bootstrap import Payload
from fanout.agent.loop import Loop
from fanout.agent.silence import acknowledges, asking, standing
from tests.patience import eventually


def test_a_connection_that_stands_is_acknowledged_though_nobody_reads() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
        server.accept()[0],
    ):
        ours.send(b"x" * 1000)
        assert acknowledges(os.getpid(), standing())


def test_nobody_knows_of_a_process_that_has_no_connection() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        assert not acknowledges(pid, standing())
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert not acknowledges(pid, standing())


def test_what_runs_is_told_from_what_sleeps_and_what_was_stopped() -> None:
    def wants_to_run(pid: int) -> bool:
        return subprocess.run(["sh", "-c", asking(pid)], timeout=10, check=False).returncode == 0

    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy, subprocess.Popen(["sleep", "60"]) as idle:
        try:
            eventually(lambda: wants_to_run(busy.pid) and not wants_to_run(idle.pid))  # both are still being loaded
            os.kill(busy.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, busy.pid, os.WSTOPPED | os.WNOWAIT)
            assert not wants_to_run(busy.pid)
        finally:
            busy.kill()
            idle.kill()
    assert not wants_to_run(busy.pid)


def test_what_a_relay_is_told_of_a_silent_child_holds_for_a_while_but_not_once_it_is_heard(
        monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def probe(agent: object, argv: list[str]) -> Any:
        asked.append(SimpleNamespace(over=False, starved=False, since=0.0))
        return asked[-1]

    clock = [100.0]
    monkeypatch.setattr(silence, "Probe", probe)
    monkeypatch.setattr("fanout.agent.children.time.monotonic", lambda: clock[0])
    agent: Any = SimpleNamespace(folder="", random=lambda: 0.0, loop=Loop(), node=SimpleNamespace(children={}))
    children = Children(agent, cast(Payload, None))
    child = children.connections[3] = Connection(children, {"id": 3, "local": True}, 1)
    assert children.starved(3, 7) and len(asked) == 1
    asked[0].over, asked[0].starved, asked[0].since = True, True, clock[0]
    clock[0] += 4.0
    assert children.starved(3, 7) and len(asked) == 1
    clock[0] += 2.0
    assert children.starved(3, 7) and children.starved(3, 7) and len(asked) == 2
    asked[1].over = True  # it was stopped
    assert not children.starved(3, 7)
    assert children.starved(3, 7) and len(asked) == 3
    asked[2].over = True
    child._fds[1], write = os.pipe()
    os.close(write)
    child._readable(0)
    os.close(child._fds[1])
    assert children.starved(3, 7) and len(asked) == 4, "what was found out is of no meaning for its next silence"
