"""`@scenario`: what a scenario asks for, beside the function that is it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, overload

from fanout.durations import parse_duration
from fanout.errors import UsageError
from fanout.scenario.build import Git
from fanout.scenario.sizes import parse_size

Function = Callable[..., Awaitable[object]]

collecting: ContextVar[list[Scenario] | None] = ContextVar("collecting", default=None)
"""Where scenarios are noted while a file is loaded: two of one name would hide each other in its globals."""


@dataclass(frozen=True)
class Scenario:
    """A scenario: still callable, so that one can use another."""

    function: Function
    name: str
    machines: int | None = None
    """None: as many as the fleet has, or makes when not told."""
    roles: Mapping[str, int] = field(default_factory=dict)
    ttl: float | None = None
    """Seconds for the whole run."""
    tags: tuple[str, ...] = ()
    quorum: float = 1.0
    """The share of machines that must connect, and must still be there at the end."""
    ships: int = 0
    """Bytes of files for all machines that the tree is made for."""
    build: Git | None = None
    """What is built before, and is on every machine when the scenario starts."""

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    async def __call__(self, *args: Any, **options: Any) -> object:
        return await self.function(*args, **options)


@overload
def scenario(function: Function, /) -> Scenario: ...


@overload
def scenario(
    *,
    machines: int | Mapping[str, int] | None = None,
    ttl: str | float | None = None,
    tags: Iterable[str] = (),
    name: str | None = None,
    quorum: float = 1.0,
    ships: str | int = 0,
    build: Git | None = None,
) -> Callable[[Function], Scenario]: ...


def scenario(
    function: Function | None = None,
    /,
    *,
    machines: int | Mapping[str, int] | None = None,
    ttl: str | float | None = None,
    tags: Iterable[str] = (),
    name: str | None = None,
    quorum: float = 1.0,
    ships: str | int = 0,
    build: Git | None = None,
) -> Scenario | Callable[[Function], Scenario]:
    """Make an `async def f(fleet, ...)` a scenario.

    `machines`: how many, or how many of each role; -n and --role override it.  Without it the scenario takes all
    that the fleet has.  `ttl`: for the whole run, such as "2h"; --timeout overrides it.  `quorum`: the share of
    machines that must connect before the scenario starts, and that must not be lost until it ends.  `ships`: how much
    it ships to all machines, such as "100MB", where that is much: --relays auto takes a tree that is fast for it.
    `build`: made by `git(...)`; `fleet.build` has the paths of its outputs on the machines.
    Further parameters of the function come from --arg, typed by their annotations and defaults.

    UsageError for anything that cannot be meant.
    """
    if function is not None:
        return _make(function, name=None)
    if isinstance(tags, str):
        raise UsageError(f"@scenario(tags={tags!r}): give a list of tags")
    if not 0 < quorum <= 1:
        raise UsageError(f"@scenario(quorum={quorum!r}): it is a share of the machines, above 0 and up to 1")
    if build is not None and not isinstance(build, Git):
        raise UsageError(f"@scenario(build={build!r}): give what git(...) returns")
    roles: dict[str, int] = {}
    number: int | None = None
    if isinstance(machines, Mapping):
        roles = {_role(role): _count(count, f"role {role!r}") for role, count in machines.items()}
        if not roles:
            raise UsageError("@scenario(machines={}): name at least one role")
    elif machines is not None:
        number = _count(machines, "machines")
    seconds = None if ttl is None else parse_duration(ttl)
    size = parse_size(ships)

    def decorate(function: Function) -> Scenario:
        return _make(
            function, name=name, machines=number, roles=roles, ttl=seconds, tags=tuple(tags), quorum=quorum,
            ships=size, build=build)

    return decorate


def _make(function: Function, *, name: str | None, **options: Any) -> Scenario:
    called = getattr(function, "__name__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise UsageError(f"@scenario on {called}: it must be an `async def`")
    if not inspect.signature(function).parameters:
        raise UsageError(f"@scenario on {called}: it needs a first parameter, the fleet")
    made = Scenario(function, name or called, **options)
    found = collecting.get()
    if found is not None:
        found.append(made)
    return made


def _role(role: object) -> str:
    if not isinstance(role, str) or not role.isidentifier():
        raise UsageError(f"@scenario: {role!r} is no name for a role: use letters, digits and _")
    return role


def _count(count: object, what: str) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UsageError(f"@scenario: {what} is {count!r}: give a number, 1 or more")
    return count
