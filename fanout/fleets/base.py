"""The one interface every fleet has: machines come from `provision`, and go with `release`.

`release` is idempotent, bounded in time, and right after any failure of `provision`, half-way ones too.
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
    """What the root reaches it by, and so do other machines unless `inside` says otherwise."""
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
    """Known host keys as `type base64`; when empty, and without `host_ca`, the user's known_hosts decides."""
    host_ca: str | None = None
    """`type base64` of the authority whose certificate its host key has, made out to `reached_inside`."""
    inside: str | None = None
    """What machines of the fleet reach it by, where that is not `address`."""
    python: str = "python3"

    @property
    def reached_inside(self) -> str:
        return self.inside or self.address


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


class Fleet:
    """Where machines come from: the base of all fleets.

    Made by `Fleet(spec)`, with `spec` the text after the colon of `--fleet name:spec` (empty without one).
    A bad spec raises UsageError there, before anything is made.
    """

    name: ClassVar[str]
    say: Say = staticmethod(unheard)
    """Who hears, line by line, what the user should know while machines are made; set before `provision`."""
    unlimited: bool = False
    """The user has agreed to whatever it costs; set before `provision`, and heard where machines cost money."""
    release_timeout: float = 60.0
    """Seconds that `release` takes at most; whoever waits for it gives it so long."""

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        raise NotImplementedError

    async def preview(self, request: Request) -> str | None:
        """What `provision` would make, found possible as far as that can be seen without making it.

        FleetError for what is in its way.  None: nothing is known but by making it.
        """
        return None

    async def release(self) -> None:
        """The machines were there before, and stay."""

    @property
    def relay_key(self) -> str | None:
        """The text of a throw-away private key that relays may use to reach their children.

        Only for fleets that fanout makes. None: a relay uses its own key or a forwarded SSH agent.
        """
        return None
