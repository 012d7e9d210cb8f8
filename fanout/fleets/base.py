"""The one interface every fleet has: machines come from `provision`, and go with `release`.

`release` is idempotent, bounded in time, and right after any failure of `provision`, half-way ones too.  A process
that dies in between leaves work to another one: that `adopt`s what the dead one had asked for, and releases it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

Progress = Callable[[int, int], None]
"""Called with (machines ready, machines wanted) while a fleet is being provisioned."""


Say = Callable[[str], None]


def unheard(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Host:
    """One machine, as a fleet hands it over: how to reach it, and who it is."""

    name: str
    """Unique in the fleet; the name of its folder in the run's folder."""
    address: str
    """What other machines, and SSH, reach it by."""
    role: str | None = None
    """The role it is reserved for; None takes any."""
    relay: bool = False
    """Marked by the user as fit to be a relay."""
    local: bool = False
    """No SSH: the agent is started as a child process, of the root or of a relay."""
    user: str | None = None
    port: int | None = None
    key: str | None = None
    """A private key file at the root, used by the root; it is never sent."""
    jump: str | None = None
    """ProxyJump for the root's own connection, `[user@]host[:port]`."""
    host_keys: tuple[str, ...] = ()
    """Known host keys as `type base64`; when empty, the user's known_hosts decides."""
    python: str = "python3"


@dataclass(frozen=True)
class Request:
    """What a run asks of a fleet."""

    run: str
    """The run's id: lower-case letters, digits and dashes."""
    machines: int | None
    """How many machines; None takes whatever the fleet has (a hosts file) or the fleet's own default."""
    roles: Mapping[str, int] = field(default_factory=dict)
    relays: int = 0
    """How many further machines are wanted only as relays; a fleet that has no such thing ignores it."""
    ttl: float | None = None
    """Seconds after which nobody wants the machines any more; machines that have a timer are to end by then."""


@dataclass(frozen=True)
class Terms:
    """What a fleet's machines may be at most; for limits that are held before anything is made."""

    types: tuple[str, ...] = ()
    """The instance types it may make; empty when it knows no such thing."""
    regions: tuple[str, ...] = ()
    """Where it may make them."""
    price: float | None = None
    """US dollars an hour of the dearest of these machines; None when nobody knows."""


class Fleet:
    """Where machines come from: the base of all fleets.

    Made by `Fleet(spec)`, with `spec` the text after the colon of `--fleet name:spec` (empty without one).
    A bad spec raises UsageError there, before anything is made.
    """

    name: ClassVar[str]
    say: Say = staticmethod(unheard)
    """Who hears, line by line, what the user should know while machines are made; set before `provision`."""
    release_timeout: float = 60.0
    """Seconds that `release` takes at most; whoever waits for it gives it so long."""

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        raise NotImplementedError

    async def release(self) -> None:
        """The machines were there before, and stay."""

    async def adopt(self, request: Request, state: str) -> None:
        """Take over what a process that has died provisioned for `request`, or had begun to; `release` removes it.

        `state` is what that process last saw in `self.state`, or empty.  Called instead of `provision`.
        """

    @property
    def state(self) -> str:
        """What `adopt` needs beside the request, once `provision` has returned.  It has no secrets."""
        return ""

    async def terms(self) -> Terms:
        """What it may make; FleetError when that has to be asked for and cannot be."""
        return Terms()

    @property
    def relay_key(self) -> str | None:
        """The text of a throw-away private key that relays may use to reach their children.

        Only for fleets that fanout makes. None: a relay uses its own key or a forwarded SSH agent.
        """
        return None
