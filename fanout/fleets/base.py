"""The one interface every fleet has: machines come from `provision`, and go with `release`.

`release` is idempotent, bounded in time, and right after any failure of `provision`, half-way ones too.  A process
that dies in between leaves work to another one, which takes back what had been recorded: `reclaim`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Progress = Callable[[int, int], None]
"""Called with (machines ready, machines wanted) while a fleet is being provisioned."""


Say = Callable[[str], None]
Record = Callable[[Mapping[str, Any]], None]


def unheard(text: str) -> None:
    """Nobody listens."""


def unwritten(made: Mapping[str, Any]) -> None:
    """Nobody writes it down."""


def is_loopback(address: str) -> bool:
    """Whether it is this host that answers there."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


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

    @property
    def here(self) -> bool:
        """On the root's own host: what is sent to it takes CPU, and no line."""
        return self.local or (self.jump is None and is_loopback(self.address))


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
    heads: int | None = None
    """`provision` may return when all machines are known and so many are ready, those marked as relays among them;
    `arrivals` tells of the others.  None: whoever asks needs all of them at once."""


@dataclass(frozen=True)
class Arrivals:
    """News of machines that were not ready when `provision` returned, by their place in its list."""

    ready: Sequence[int] = ()
    """They can be logged in to from now on."""
    gone: Mapping[int, str] = field(default_factory=dict)
    """They never will, and why."""


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
    record: Record = staticmethod(unwritten)
    """Told, in plain JSON values without secrets, what `reclaim` needs: before the first thing is made, and again
    whenever that changes.  A fleet that makes nothing never calls it.  Set before `provision`."""
    here: ClassVar[bool] = False
    """Whether its machines are a part of the computer that the root runs on."""
    erases: ClassVar[bool] = True
    """Whether all that ran on a machine is gone once `reclaim` has taken it back."""
    unlimited: bool = False
    """The user has agreed to whatever it costs; set before `provision`, and heard where machines cost money."""
    booting: frozenset[int] = frozenset()
    """The places in `provision`'s list of machines that were not ready when it returned: never without `heads`."""
    release_timeout: float = 60.0
    """Seconds that `release` takes at most; whoever waits for it gives it so long."""

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        raise NotImplementedError

    async def arrivals(self) -> AsyncIterator[Arrivals]:
        """What becomes of `booting`, each told of once, within the time that the fleet gives machines to boot.

        FleetError as soon as it is certain that fewer come than the fleet is to have.
        """
        none: tuple[Arrivals, ...] = ()
        for news in none:
            yield news

    async def preview(self, request: Request) -> str | None:
        """What `provision` would make, found possible as far as that can be seen without making it.

        FleetError for what is in its way.  None: nothing is known but by making it.
        """
        return None

    async def terms(self) -> Terms:
        """What it may make; FleetError when that has to be asked for and cannot be."""
        return Terms()

    async def release(self) -> None:
        """The machines were there before, and stay."""

    async def keep(self, seconds: float) -> float | None:
        """Instead of `release`: leave the machines for a person to look at, for `seconds` or as long as they may live.

        Until when, in seconds since the epoch; None when there is nothing of its own to keep.
        """
        return None

    # For a run whose root is gone, or has kept its machines.  `made` is what was told to `record` last.

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        """Take back everything that was made for this run and nothing else; in words, what that was.

        Right at any point of `provision` or `release`, also long after, and again.  FanoutError when something
        may be left.  Bounded in time.
        """
        raise NotImplementedError

    @classmethod
    async def holds(cls, run: str, made: Mapping[str, Any], probe: bool) -> str:
        """What of it is still there, in a few words; empty: nothing.  The network is used only if `probe`."""
        raise NotImplementedError

    @property
    def relay_key(self) -> str | None:
        """The text of a throw-away private key that relays may use to reach their children.

        Only for fleets that fanout makes. None: a relay uses its own key or a forwarded SSH agent.
        """
        return None
