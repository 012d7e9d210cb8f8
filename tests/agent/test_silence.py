"""What the kernel of the other end says, of a process that holds a connection to it."""

import os
import signal
import socket
import subprocess

from fanout.agent.silence import acknowledges, asking, standing


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
            assert wants_to_run(busy.pid) and not wants_to_run(idle.pid)
            os.kill(busy.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, busy.pid, os.WSTOPPED | os.WNOWAIT)
            assert not wants_to_run(busy.pid)
        finally:
            busy.kill()
            idle.kill()
    assert not wants_to_run(busy.pid)
