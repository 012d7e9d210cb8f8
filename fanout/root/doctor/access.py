"""Whether this machine could log in to those of a fleet, before it tries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fanout.fleets.base import Host
from fanout.names import fold
from fanout.root.doctor import tools
from fanout.root.doctor.finding import STARTUPS, Finding, Level, how_many


def keys(hosts: Iterable[Host], ssh: Path, environment: Mapping[str, str]) -> list[Finding]:
    """Whether something can log in: the keys that are named, and for machines without one, an agent or ~/.ssh."""
    found, named = [], sorted({host.key for host in hosts if host.key})
    for key in named:
        problem = _key_problem(Path(key))
        if problem:
            found.append(Finding(Level.FAIL, "keys", f"key={key} {problem[0]}", problem[1]))
        else:
            found.append(Finding(Level.OK, "keys", f"key={key} can be used"))
    if named and all(host.key for host in hosts):
        return found
    answer = tools.ask(["ssh-add", "-l"]) if environment.get("SSH_AUTH_SOCK") else None
    if answer and answer[0] == 0:
        many = len(answer[1].splitlines())
        return [*found, Finding(Level.OK, "keys", f"an SSH agent with {many} key{'s' * (many > 1)}")]
    own = [ssh / name for name in ("id_ed25519", "id_ecdsa", "id_rsa") if (ssh / name).exists()]
    usable = [key for key in own if not _key_problem(key)]
    if usable:
        return [*found, Finding(Level.OK, "keys", f"{usable[0]} can be used")]
    text = f"no SSH agent with a key, and no usable key in {ssh}"
    if own:
        problem = _key_problem(own[0])
        text += f" ({own[0].name} {problem[0]})" if problem else ""
    remedy = "ssh-add a key, or make one with ssh-keygen, or name one with key= in the hosts file"
    return [*found, Finding(Level.WARN, "keys", text, remedy)]


def _key_problem(key: Path) -> tuple[str, str] | None:
    """(what is wrong, remedy) with a private key file that is to be used unattended."""
    if not os.access(key, os.R_OK):
        return "cannot be read", f"check that {key} is there and yours"
    if key.stat().st_mode & 0o077:
        return "may be read by others", f"chmod 600 {key}"
    answer = tools.ask(["ssh-keygen", "-y", "-P", "", "-f", str(key)])
    if answer and answer[0]:
        said = answer[1].strip().splitlines()[-1:] or [""]
        if "passphrase" in said[0]:
            return "has a passphrase", f"ssh-add {key}, and leave out key="
        return f"is no usable key ({said[0]})", "name a private key"
    return None


def known(hosts: Sequence[Host], lines: Callable[[Host], list[str]]) -> list[Finding]:
    """Whether the host key of each is known, from its fleet or a known_hosts file."""
    unknown = [host for host in hosts if not (host.host_keys or host.host_ca or lines(host))]
    if not unknown:
        return [Finding(Level.OK, "known_hosts", f"the host keys of {how_many(hosts)} are known")]
    text = f"no host key is known of {fold(host.name for host in unknown)}"
    first = unknown[0]
    port = f"-p {first.port} " if first.port else ""
    remedy = f"ssh-keyscan {port}{first.address} >> ~/.ssh/known_hosts, after comparing it with the machine's own"
    # No failure yet: ~/.ssh/config may know the key by another name (HostKeyAlias); connecting tells.
    return [Finding(Level.WARN, "known_hosts", text, remedy)]


def jumps(hosts: Sequence[Host]) -> list[Finding]:
    """All connections through one machine are so many logins under way at its sshd."""
    through: dict[str, int] = {}
    for host in hosts:
        if host.jump:
            through[host.jump] = through.get(host.jump, 0) + 1
    return [
        Finding(
            Level.WARN,
            "sshd",
            f"{count} machines are reached through {jump}; sshd may drop some of more than {STARTUPS} logins at once",
            f"raise MaxStartups in sshd_config of {jump}, or use relays behind it",
        )
        for jump, count in through.items()
        if count > STARTUPS
    ]
