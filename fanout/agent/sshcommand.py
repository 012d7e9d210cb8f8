"""The `ssh` of this host as a relay calls it: its options, and the files that it needs in the agent's folder."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEYLESS = (
    "; a relay logs in with keys of its own: give it one, lend it yours with --forward-agent,"
    " or do without relays: --relays 0"
)


class SSHCommand:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._told: dict[str, Any] = {}
        self._known_hosts: set[str] = set()

    def learn(self, told: dict[str, Any]) -> None:
        """What the root says: known host keys add up, the run's own key is written.  OSError when it cannot be kept."""
        self._told = told
        self._known_hosts.update((told.get("known_hosts") or "").splitlines(True))
        for name, text in (("known_hosts", "".join(self._known_hosts)), ("key", told.get("key"))):
            if text:
                path = os.path.join(self._folder, name)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(fd, "w") as file:
                    file.write(text)

    @property
    def has_key(self) -> bool:
        """Relays were given what they log in with: a key of the fleet's, or the user's SSH agent."""
        return bool(self._told.get("key") or self._told.get("forward_agent"))

    def argv(self, spec: dict[str, Any], command: str, alive: int = 0) -> list[str]:
        """`alive`: seconds between the signs of life that it asks for."""
        options = {
            "BatchMode": "yes", "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": os.path.join(self._folder, "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null", "CheckHostIP": "no", "UpdateHostKeys": "no",
            "VerifyHostKeyDNS": "no", "ControlMaster": "no", "ControlPath": "none",
            "ForwardX11": "no", "ClearAllForwardings": "yes", "PermitLocalCommand": "no",
            "ConnectTimeout": "15", "ServerAliveInterval": str(alive), "Compression": "no",
            "GSSAPIAuthentication": "no", "LogLevel": "ERROR", "RequestTTY": "no", "Tunnel": "no",
            "CanonicalizeHostname": "no", "ProxyJump": "none",
        }
        if self._told.get("kex"):
            options["KexAlgorithms"] = self._told["kex"]
        if self._told.get("cipher"):
            options["Ciphers"] = self._told["cipher"]
        if self._told.get("key"):
            options.update(IdentityFile=os.path.join(self._folder, "key"), IdentitiesOnly="yes")
        argv = ["ssh"]
        for name in options:
            argv += ["-o", "%s=%s" % (name, options[name])]
        if self._told.get("forward_agent"):
            argv += ["-A"]
        if spec.get("port"):
            argv += ["-p", str(spec["port"])]
        if spec.get("user"):
            argv += ["-l", spec["user"]]
        return argv + ["--", spec["host"], command]
