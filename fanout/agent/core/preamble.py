"""Knowing that a command began on a machine, and how to kill it there: one line before its output.  Pure.

`ssh` ends with 255 for its own failures and for a command's 255 alike, and sshd kills nothing when a connection
ends.  So the command is preceded by one that prints a random token and the shell's process group.  It is written to
mean the same in any shell that people log in with; where it cannot run (a forced command), output passes as it is.
"""

from __future__ import annotations

OUT, ERR = 1, 2
HELD_MOST = 4 << 10  # bytes of what a shell prints at login that are searched for the token


def wrapped(command: str, token: str) -> str:
    return "sh -c 'echo %s $PPID'; %s" % (token, command)


def killing(group: int) -> str:
    """A command that ends a process group of a machine: TERM, a moment, KILL."""
    return "sh -c 'kill -s TERM -- -%d && sleep 0.3; kill -s KILL -- -%d' 2>/dev/null" % (group, group)


class Preamble:
    """Takes the line out of standard output; other bytes are kept exactly."""

    def __init__(self, token: str) -> None:
        self.group: int | None = None
        """The process group of the command; None: the line has not come."""
        self._token = token.encode() + b" "
        self._held = b""
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """What is output of the command so far."""
        if self._over:
            return data
        self._held += data
        at = self._held.find(self._token)
        end = self._held.find(b"\n", at) if at >= 0 else -1
        if end >= 0:
            number = self._held[at + len(self._token) : end].strip()
            if number.isdigit() and int(number) > 1:
                self.group = int(number)
            self._held = self._held[:at] + self._held[end + 1 :]
            return self.finish()
        return self.finish() if len(self._held) > HELD_MOST else b""

    def finish(self) -> bytes:
        """What was held back."""
        self._over = True
        held, self._held = self._held, b""
        return held
