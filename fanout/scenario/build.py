"""`build=git(...)`: what a scenario wants built before it starts.  Pure: nothing is run, and nothing is looked up.

What always holds: no text of it can become an option of git, a transport that runs commands, or a part of a shell's
line; a login is never in it, because a process's arguments can be read by anyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from fanout.durations import parse_duration
from fanout.errors import UsageError

Where = Literal["root", "machine"]

PROTOCOLS = ("https", "ssh", "file")
"""What git may speak, in submodules too: nothing that anyone on the way could change, or that runs a command."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_URL = re.compile(r"[^\s\x00-\x1f\x7f-][^\x00-\x1f\x7f]*")
_REF = re.compile(r"[\w{][\w./+@=,{}-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_WILD = re.compile(r"[*?[]")
_PARAMETER = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Git:
    """Made by `git`."""

    url: str
    ref: str
    command: str
    outputs: tuple[str, ...]
    timeout: float
    where: Where = "root"

    @property
    def names(self) -> tuple[str, ...]:
        """What the outputs are called by: the last part of each path."""
        return tuple(PurePosixPath(path).name for path in self.outputs)

    def parameters(self) -> set[str]:
        """The scenario's parameters that the ref is made of."""
        return set(_PARAMETER.findall(self.ref))

    def filled(self, args: Mapping[str, Any]) -> str:
        """The branch, tag or commit; UsageError when what came from --arg cannot be one."""
        return _ref(_PARAMETER.sub(lambda match: str(args[match[1]]), self.ref))

    def __str__(self) -> str:
        return f"{self.ref} of {self.url}"


def git(
    url: str, ref: str, command: str, outputs: str | Iterable[str], *, timeout: str | float = "30m",
    where: Where = "root",
) -> Git:
    """A build from a git repository, made once and shipped to every machine.

    `url`: https, ssh (`user@host:path` too), or the path of a repository at the root.  `ref`: a branch, a tag, or a
    whole commit; `{name}` in it is the scenario's parameter of that name.  `command`: for `sh -c`, in the working tree.
    `outputs`: the files or folders that it makes, in the tree; `fleet.build` has each by the last part of its path.
    `timeout`: for all of it.  `where`: the command runs at the "root", before there are machines, or on one "machine"
    of the fleet, which is sent the working tree: it needs neither git, nor a login, nor a way to the repository.

    UsageError for anything that cannot be meant.
    """
    paths = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    made = Git(_url(url), _ref(ref), command, tuple(map(_output, paths)), parse_duration(timeout), where)
    if not isinstance(command, str) or not command.strip() or "\0" in command:
        raise UsageError(f"git(command={command!r}): give the text of a shell command")
    if not paths:
        raise UsageError("git(outputs=[]): name at least one file or folder that the build makes")
    twice = {name for name in made.names if made.names.count(name) > 1}
    if twice:
        raise UsageError(f"git(outputs=...): {min(twice)!r} is the name of two of them: build into different names")
    if not made.timeout:
        raise UsageError("git(timeout=0): give it a duration, such as 30m")
    if where not in get_args(Where):
        raise UsageError(f"git(where={where!r}): write 'root' or 'machine'")
    pattern = next((path for path in made.outputs if _WILD.search(path)), None)
    if where == "machine" and pattern:
        raise UsageError(f"git(outputs=[{pattern!r}], where='machine'): name each by itself, without *, ? or [")
    return made


def is_commit(ref: str) -> bool:
    return _COMMIT.fullmatch(ref) is not None


def check(build: Git, parameters: Iterable[str]) -> list[str]:
    """What is wrong with it, beside a scenario that has these parameters."""
    unknown = build.parameters() - set(parameters)
    return [f"git(ref={build.ref!r}): the scenario has no parameter {name!r}" for name in sorted(unknown)]


def _url(url: str) -> str:
    if not isinstance(url, str) or not _URL.fullmatch(url):
        raise UsageError(f"git(url={url!r}): give the address or path of a repository")
    scheme = _SCHEME.match(url)
    if scheme and (scheme[2] == "::" or scheme[1] not in PROTOCOLS):
        raise UsageError(f"git(url={url!r}): use one of {', '.join(PROTOCOLS)}, or a path; not {scheme[1]}{scheme[2]}")
    host = url.partition("://")[2].partition("/")[0] if scheme else url.partition(":")[0]
    login, at, host = host.rpartition("@")
    if host.startswith("-") or login.startswith("-"):
        raise UsageError(f"git(url={url!r}): {host!r} is no host")
    if at and ((scheme and scheme[1] == "https") or ":" in login):
        raise UsageError("git(url=...): it has a login in it, which everyone on this machine could read while git "
                         "runs: leave it out, and let a credential helper of git have it")
    return url


def _ref(ref: str) -> str:
    if not isinstance(ref, str) or not _REF.fullmatch(ref) or ".." in ref or "@{" in ref or ref.endswith("/"):
        raise UsageError(f"git(ref={ref!r}): it is no branch, tag or commit")
    return ref


def _output(path: str) -> str:
    pure = PurePosixPath(path) if isinstance(path, str) and "\0" not in path else PurePosixPath("/")
    if pure.is_absolute() or ".." in pure.parts or not pure.name or "{" in path:
        raise UsageError(f"git(outputs=[{path!r}]): give paths inside the working tree, such as target/node")
    return str(pure)


