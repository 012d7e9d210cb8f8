"""How a session connects and lives: plain values, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass

KEX = "curve25519-sha256"
"""13 ms of CPU per connection less than OpenSSH's default (post-quantum) exchange: chosen where machines are many."""
CIPHER = "aes128-gcm@openssh.com"

LEASE_LEAST = 15.0
"""Seconds of a lease that outlasts a relay that hangs: what its children last heard may be 5 s old (2 s a level, and a
whole second), its silence is noticed after 5 s, and an attempt at it takes up to 4 s before they are attached
elsewhere."""


@dataclass(frozen=True)
class Settings:
    run: str
    connect_timeout: float = 60.0
    """Seconds for the whole tree to come up; machines that are not up by then are unreachable.  Those that boot while
    others are being connected have it from when they are ready."""
    lease: float = 60.0
    """Seconds that an agent lives without hearing from the root."""
    recover: float = 30.0
    """Seconds that a machine may be unreachable (a lost link, a partition) before it counts as lost."""
    handshakes: int = 32
    """SSH handshakes in flight at the root, and at each relay."""
    kex: str | None = KEX
    """Preferred key exchange; None: whatever both ends prefer."""
    cipher: str | None = CIPHER
    forward_agent: bool = False
    """Let relays use the SSH agent of the root's user."""
    keepalive: float = 0.0
    """Seconds between signs of life that SSH asks for itself; links have a heartbeat of their own."""
    oneshot: bool = False
    """The agents are relays of a one-shot: they can run a command on machines that have no agent."""
    heir: int = 0
    """Above 0: this takes over a run whose root is gone.  Agents may be there already, and what they said to the old
    root is nobody's any more; commands are numbered from here, above all that they have had."""
    folder: str | None = None
    """Where agents make their folder; None: $TMPDIR or /tmp of the machine."""
