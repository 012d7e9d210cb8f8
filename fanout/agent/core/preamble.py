"""Knowing that a command began on a machine, and how to kill it there: one line before its output.  Pure.

`ssh` ends with 255 for its own failures and for a command's 255 alike, and sshd kills nothing when a connection
ends.  So the command is preceded by one that prints a random token and, where another connection is to kill it, the
shell's process group.  It is written to mean the same in any shell that people log in with; where it cannot run (a
forced command), output passes as it is, and nothing is killed: that would start the forced one again.
"""

from __future__ import annotations

OUT, ERR = 1, 2
LOST = "the connection was lost while it ran, and it may still run: %s"
LINE_MOST = 64  # bytes of the line


def wrapped(command: str, token: str) -> str:
    """It tells the process group, for `killing`."""
    return "sh -c 'echo %s $PPID'; %s" % (token, command)


def announced(command: str, token: str) -> str:
    """It only tells that it began, which starts no process: for `KILLING_BESIDE`."""
    return "echo %s -; %s" % (token, command)


def killing(group: int) -> str:
    """A command that ends a process group of a machine: TERM, a moment, KILL."""
    return "sh -c 'kill -s TERM -- -%d && sleep 0.3; kill -s KILL -- -%d' 2>/dev/null" % (group, group)


KILLING_BESIDE = (
    "sh -c 'look() { read -r line < $1 || line=; set -- ${line##*) }; over=$2; group=$3; sid=$4; began=${20}; }; "
    "look /proc/$PPID/stat; sshd=$over; look /proc/$sshd/stat; since=$began; "
    "for stat in /proc/[0-9]*/stat; do look $stat; pid=${stat#/proc/}; pid=${pid%/stat}; "
    'if [ $pid = $PPID ] || [ -z "$group" ]; then :; '
    'elif [ "$over" = "$sshd" ]; then groups="$groups -$pid"; '
    "elif [ $began -lt $since ]; then :; "
    'elif mine=$group; look /proc/$sid/stat; [ -n "$over" ]; then '
    '[ "$over" != "$sshd" ] || [ $sid = $PPID ] || groups="$groups -$mine"; '
    "elif [ -p /proc/$pid/fd/1 ] || [ -S /proc/$pid/fd/1 ] || [ -p /proc/$pid/fd/2 ] || [ -S /proc/$pid/fd/2 ] && "
    'grep -qsF "SSH_CONNECTION=$SSH_CONNECTION" /proc/$pid/environ; then groups="$groups -$mine"; fi; done; '
    "[ -z \"$groups\" ] || { kill -s TERM -- $groups && sleep 0.3; kill -s KILL -- $groups; }' 2>/dev/null; true"
)
"""The same for what else was started over the same connection: sshd's other children, each the leader of its session,
other groups of that (csh's `server &`), and what a leader that has ended left and that holds the output open (`server
&` elsewhere), known by its environment and when it began.

With a command behind it no login shell gives its place to this `sh`, whose parent's parent is sshd so.
"""


class Preamble:
    """Takes the line out of standard output; other bytes are kept exactly, and come at once.

    It is looked for however much a login prints before it.  What only quotes the command (a forced one that says what
    it refuses) is no such line.
    """

    def __init__(self, token: str) -> None:
        self.began = False
        self.group: int | None = None
        """The process group of the command; None: the line has not come, or did not tell."""
        self._token = token.encode() + b" "
        self._held = b""
        """What the line may begin with."""
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """What is output of the command so far."""
        if self._over:
            return data
        data, self._held = self._held + data, b""
        at = data.find(self._token)
        if at < 0:
            at = next((i for i in range(max(0, len(data) - len(self._token)), len(data))
                       if self._token.startswith(data[i:])), len(data))
        end = data.find(b"\n", at, at + LINE_MOST)
        if end < 0:
            self._over = len(data) - at >= LINE_MOST
            at = len(data) if self._over else at
            self._held = data[at:]
            return data[:at]
        self._over = True
        word = data[at + len(self._token) : end].strip()
        if word != b"-" and not word.isdigit():
            return data
        self.began = True
        if word.isdigit() and int(word) > 1:
            self.group = int(word)
        return data[:at] + data[end + 1 :]

    def finish(self) -> bytes:
        """What was held back."""
        self._over = True
        held, self._held = self._held, b""
        return held
