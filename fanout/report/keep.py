"""How a person logs in to the machines of a run that failed, while they are kept.

In the run's folder: `key`, the fleet's throw-away key (0600), and `known_hosts`, with the host keys that the machines
have.  Both are there from the end of the run until `fanout down`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from fanout.root.holdings import Holdings
from fanout.root.machine import Machine

KEY, KNOWN_HOSTS = "key", "known_hosts"


def write_login(folder: Path, holdings: Holdings, key: str | None) -> None:
    """OSError when it cannot be."""
    if key is not None:
        _write(folder / KEY, key if key.endswith("\n") else key + "\n")
    lines = [f"{_where(machine)} {host_key}\n" for machine in holdings.machines for host_key in machine.host.host_keys]
    if lines:
        _write(folder / KNOWN_HOSTS, "".join(lines))


def remove_login(folder: Path) -> None:
    for name in (KEY, KNOWN_HOSTS):
        (folder / name).unlink(missing_ok=True)


def login(folder: Path, machine: Machine) -> str:
    """The `ssh` that logs in to a machine, as a shell takes it."""
    host = machine.host
    words = ["ssh"]
    if (folder / KEY).exists():
        words += ["-i", str(folder / KEY)]
    elif host.key:
        words += ["-i", host.key]
    if host.host_keys:
        known = str(folder / KNOWN_HOSTS)
        words += ["-o", f'UserKnownHostsFile="{known}"' if " " in known else f"UserKnownHostsFile={known}"]
    if host.port not in (None, 22):
        words += ["-p", str(host.port)]
    if host.jump:
        words += ["-J", host.jump]
    return shlex.join([*words, f"{host.user}@{host.address}" if host.user else host.address])


def _where(machine: Machine) -> str:
    host = machine.host
    return host.address if host.port in (None, 22) else f"[{host.address}]:{host.port}"


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
