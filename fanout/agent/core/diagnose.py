"""Why an `ssh` did not lead to an agent: from its exit code and what it said.  Pure.

Returns (outcome, reason, whether it may pass by itself).
"""

from __future__ import annotations

UNREACHABLE, AUTH_FAILED, HOST_KEY, NO_PYTHON, FAILED = (
    "unreachable", "auth failed", "host key mismatch", "no python", "failed")
RELAY_CANNOT = "its relay cannot "
"""So a reason begins that is the relay's own: another parent may reach the machine."""

# (what OpenSSH says, outcome, remedy, may it pass by itself)
_SAYINGS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", HOST_KEY,
     "its host key has changed: if that is right, remove the old key with ssh-keygen -R", False),
    ("host key is known for", HOST_KEY,
     "its host key is not in known_hosts: connect once with ssh, or use ssh-keyscan", False),
    ("Host key verification failed", HOST_KEY, "its host key is not the expected one", False),
    ("Permission denied", AUTH_FAILED, "the login was refused: check user, key and authorized_keys", False),
    ("Too many authentication failures", AUTH_FAILED, "the login was refused: give the right key with key=", False),
    ("Temporary failure in name resolution", UNREACHABLE, "its name cannot be resolved now", True),
    ("Could not resolve hostname", UNREACHABLE, "its name does not resolve", False),
    ("Connection refused", UNREACHABLE, "nothing listens on its SSH port: is sshd running?", True),
    ("No route to host", UNREACHABLE, "there is no route to it", True),
    ("Network is unreachable", UNREACHABLE, "there is no route to it", True),
    ("timed out", UNREACHABLE, "it does not answer", True),
    ("Connection reset", UNREACHABLE, "sshd dropped the connection (MaxStartups?)", True),
    ("Connection closed", UNREACHABLE, "sshd dropped the connection (MaxStartups?)", True),
    ("kex_exchange_identification", UNREACHABLE, "sshd dropped the connection (MaxStartups?)", True),
    ("Broken pipe", UNREACHABLE, "the connection broke", True),
    ("no matching", UNREACHABLE, "no algorithm in common: set --kex or --cipher", False),
)


def ssh(code: int, stderr: str, python: str) -> tuple[str, str, bool]:
    said = stderr.strip().splitlines()
    last = said[-1][:200] if said else ""
    if code == 255:
        for words, outcome, remedy, passes in _SAYINGS:
            if words in stderr:
                # Without what comes before it, which names the host: equal reasons of many machines are told once.
                return outcome, "%s (ssh: %s)" % (remedy, last.rpartition(": ")[2]), passes
        return UNREACHABLE, "ssh failed: %s" % (last or "it said nothing"), True
    if code < 126 and (not last or "currently not available" in stderr):  # the words of nologin
        return FAILED, "its login shell ran nothing (exit %d%s): give it one by chsh, or log in as another user" % (
            code, ": " + last if last else ""), False
    return remote(code, stderr, python)


def remote(code: int, stderr: str, python: str) -> tuple[str, str, bool]:
    """The command was started on the machine, and ended without an agent."""
    said = stderr.strip().splitlines()
    last = said[-1][:200] if said else ""
    if code in (126, 127):
        reason = "%s cannot be run there (%s): install Python 3.8 or newer, or set python="
        return NO_PYTHON, reason % (python, last), False
    if "MemoryError" in stderr or "Cannot allocate" in stderr or "Resource temporarily" in stderr:
        return FAILED, "it has no memory or processes left (%s)" % last, False
    return FAILED, "the agent did not start: exit %d (%s)" % (code, last), False
