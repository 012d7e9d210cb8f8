"""What the kernel of the other end says, of a process that holds a connection to it."""

import os
import socket

import pytest

from fanout.agent import silence
from fanout.agent.silence import acknowledges


def test_a_connection_that_stands_is_acknowledged_though_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "FRESH", 0.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
        server.accept()[0],
    ):
        ours.send(b"x" * 1000)
        assert acknowledges(os.getpid())


def test_nobody_knows_of_a_process_that_has_no_connection() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        assert not acknowledges(pid)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert not acknowledges(pid)
