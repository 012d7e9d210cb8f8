"""What asyncssh is told for a connection, made once for all hosts that are alike.

Reading ~/.ssh/config, known_hosts and a key, and choosing algorithms, costs a third of a connection when each of
a thousand does it.  Hosts are alike when they were given alike and the same `Host` sections of the user's
configuration apply to them.  A configuration whose outcome may depend on more than that is read for each host.
"""

from __future__ import annotations

import contextlib
import copy
import re
import shlex
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanout.fleets.base import Host
from fanout.root.known_hosts import DEFAULT_KNOWN_HOSTS, any_of
from fanout.root.settings import Settings

if TYPE_CHECKING:
    from fanout.root.ssh_library import asyncssh

_PER_HOST = re.compile(
    r"^\s*(match|include|canonical\w*|proxyjump|proxycommand|hostkeyalias)\b|[%$]", re.IGNORECASE | re.MULTILINE)


class UnreadableHostKey(ValueError):
    """What a host was pinned to is no key that is known here."""


class Shared:
    """Options by what hosts have in common; as good as new for each connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[Any, asyncssh.SSHClientConnectionOptions] = {}

    def options(self, host: Host) -> asyncssh.SSHClientConnectionOptions | None:
        """None: this host needs options of its own (`arguments`), or is reached by way of another.

        OSError, ValueError, asyncssh.Error: the configuration or a key cannot be used.
        """
        model = self._model(host)
        if model is None:
            return None
        options = copy.copy(model)
        if model.host == model.orig_host:
            options.host = host.address
        options.orig_host = host.address
        if host.host_ca:
            options.host_key_alias = host.reached_inside
        # A key remembers which signature its server takes.
        options.client_keys = [copy.copy(key) for key in model.client_keys or ()]
        return options

    def _model(self, host: Host) -> asyncssh.SSHClientConnectionOptions | None:
        """The options that it shares with all that are like it."""
        from fanout.root.ssh_library import asyncssh

        pinned = bool(host.host_keys or host.host_ca)
        if host.jump or (not pinned and self._sections is None):
            return None
        sections = () if pinned else tuple(bool(one.fullmatch(host.address)) and not no.fullmatch(host.address)
                                           for one, no in self._sections or ())
        like = (sections, host.user, host.port, host.key, host.host_keys, host.host_ca)
        model = self._made.get(like)
        if model is None:
            model = asyncssh.SSHClientConnectionOptions(host=host.address, **arguments(host, self._settings))
            if isinstance(model.known_hosts, list):  # of paths, by the configuration
                paths = [Path(str(path)).expanduser() for path in model.known_hosts or DEFAULT_KNOWN_HOSTS]
                model.known_hosts = read_known_hosts(path for path in paths if path.is_file())
            self._made[like] = model
        return model

    def address(self, host: Host) -> tuple[str, int, str | None]:
        """(host, port, user) that SSH would use, with the user's ~/.ssh/config read: what a relay is told."""
        from fanout.root.ssh_library import asyncssh

        options = self._model(host) or asyncssh.SSHClientConnectionOptions(
            host=host.address, **{**arguments(host, self._settings), "tunnel": ()})
        named = host.address if options.host == options.orig_host else options.host
        return named or host.address, options.port or 22, options.username or None

    @cached_property
    def _sections(self) -> list[tuple[re.Pattern[str], re.Pattern[str]]] | None:
        """(what each `Host` line names, what it takes out); None for a configuration that is not that simple."""
        try:
            text = Path("~/.ssh/config").expanduser().read_text(errors="replace")
        except OSError:
            return []
        if _PER_HOST.search(text):
            return None
        found = []
        for line in text.splitlines():
            match = re.match(r"\s*host\s*[\s=]\s*(.*)", line, re.IGNORECASE)
            if match:
                try:
                    names = shlex.split(match[1])
                except ValueError:
                    return None
                found.append((any_of([name for name in names if not name.startswith("!")]),
                              any_of([name[1:] for name in names if name.startswith("!")])))
        return found


def read_known_hosts(paths: Iterable[Path]) -> asyncssh.SSHKnownHosts:
    """As OpenSSH: a line that cannot be read holds for nobody; asyncssh would refuse all."""
    from fanout.root.ssh_library import asyncssh

    known = asyncssh.import_known_hosts("")
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                known.load(line)
    return known


def arguments(host: Host, settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `asyncssh.connect`, the address excepted."""
    from fanout.root.ssh_library import asyncssh

    options: dict[str, Any] = {
        "config": (),  # the user's
        "compression_algs": None,
        "keepalive_interval": settings.keepalive,
        "x11_forwarding": False,
        "gss_host": None,
        "gss_kex": False,
        "gss_auth": False,
        "password_auth": False,
        "kbdint_auth": False,
        "host_based_auth": False,
        "login_timeout": 30,
    }
    if settings.kex:
        options["kex_algs"] = "^" + settings.kex
    if settings.cipher:
        options["encryption_algs"] = "^" + settings.cipher
    if host.user:
        options["username"] = host.user
    if host.port:
        options["port"] = host.port
    if host.key:
        options["client_keys"] = [host.key]
    if host.jump:
        options["tunnel"] = host.jump
    if host.host_keys or host.host_ca:
        try:
            keys = [asyncssh.import_public_key(key) for key in host.host_keys]
            authorities = [asyncssh.import_public_key(host.host_ca)] if host.host_ca else []
        except asyncssh.KeyImportError as error:
            raise UnreadableHostKey(str(error)) from None
        options["known_hosts"] = (keys, authorities, [])
        options["config"] = None
    if host.host_ca:
        options["host_key_alias"] = host.reached_inside
        # Certificates first, and plain keys after them: a machine that has none is told from one that is not reached.
        options["server_host_key_algs"] = "default"
    if settings.forward_agent:
        options["agent_forwarding"] = True
    return options
