"""Why an ssh failed, from what the real one says."""

from __future__ import annotations

import pytest

from fanout.agent.core import diagnose


@pytest.mark.parametrize(
    ("said", "outcome", "passes"),
    [
        ("ssh: connect to host h port 22: Connection refused\r\n", "unreachable", True),
        ("ssh: connect to host h port 22: Connection timed out", "unreachable", True),
        ("ssh: connect to host h port 22: No route to host", "unreachable", True),
        ("ssh: connect to host h port 22: Network is unreachable", "unreachable", True),
        ("kex_exchange_identification: read: Connection reset by peer\r\nConnection reset by 10.0.0.1 port 22",
         "unreachable", True),
        ("kex_exchange_identification: Connection closed by remote host", "unreachable", True),
        ("Connection timed out during banner exchange", "unreachable", True),
        ("client_loop: send disconnect: Broken pipe", "unreachable", True),
        ("ssh: Could not resolve hostname nosuch: Name or service not known", "unreachable", False),
        ("ssh: Could not resolve hostname h: Temporary failure in name resolution", "unreachable", True),
        ("Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found. Their offer: x",
         "unreachable", False),
        ("root@10.0.0.1: Permission denied (publickey).", "auth failed", False),
        ("Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\nDisconnected from 10.0.0.1",
         "auth failed", False),
        ("@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n...\nHost key verification failed.",
         "host key mismatch", False),
        ("No ED25519 host key is known for h and you have requested strict checking.\n"
         "Host key verification failed.", "host key mismatch", False),
        ("", "unreachable", True),
    ],
)
def test_what_ssh_says_is_understood(said: str, outcome: str, passes: bool) -> None:
    found, reason, again = diagnose.ssh(255, said, "python3")
    assert (found, again) == (outcome, passes)
    last = said.strip().splitlines()[-1] if said else "it said nothing"
    assert last.rpartition(": ")[2] in reason


def test_equal_troubles_of_different_hosts_read_the_same() -> None:
    for said in ("root@%s: Permission denied (publickey).", "ssh: connect to host %s port 22: Connection refused"):
        assert diagnose.ssh(255, said % "10.0.0.1", "python3") == diagnose.ssh(255, said % "10.0.0.2", "python3")


@pytest.mark.parametrize(
    ("code", "said", "outcome", "word"),
    [
        (127, "sh: 1: exec: python3: not found", "no python", "install Python"),
        (126, "sh: 1: python3: Permission denied", "no python", "install Python"),
        (1, "Traceback ...\nMemoryError", "failed", "memory"),
        (1, "sh: 1: Cannot fork: Resource temporarily unavailable", "failed", "memory"),
        (3, "boom", "failed", "exit 3 (boom)"),
        (1, "", "failed", "exit 1"),
    ],
)
def test_a_command_that_ran_without_an_agent(code: int, said: str, outcome: str, word: str) -> None:
    for how in (diagnose.ssh, diagnose.remote):
        found, reason, again = how(code, said, "python3")
        assert (found, again) == (outcome, False)
        assert word in reason


@pytest.mark.parametrize(("code", "said"), [
    (1, "This account is currently not available."), (1, ""), (0, "")], ids=["nologin", "false", "true"])
def test_a_login_shell_that_runs_nothing_has_its_remedy(code: int, said: str) -> None:
    outcome, reason, again = diagnose.ssh(code, said, "python3")
    assert (outcome, again) == ("failed", False)
    assert reason.startswith(f"its login shell ran nothing (exit {code}") and said in reason and "chsh" in reason


def test_a_reason_is_bounded() -> None:
    assert len(diagnose.ssh(255, "x" * 100_000, "python3")[1]) < 400
