"""This machine: what can be said without a connection."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from fanout.fleets.base import Host
from fanout.fleets.lab import isolated
from fanout.root import descriptors
from fanout.root.doctor import access, tools
from fanout.root.doctor.finding import Finding, Level, space
from fanout.root.known_hosts import of_user
from fanout.root.settings import Settings
from fanout.root.ssh_options import Shared

PACKAGES = {"asyncssh": (2, 18), "msgpack": (1, 1)}
OPENSSH = (7, 4)  # `ssh -G`, ControlPersist and `^` before algorithms came earlier or are optional below it


def here(state: Path, hosts: Sequence[Host] | None) -> list[Finding]:
    """What can be said without a connection; `state` is where runs are kept, `hosts` the fleet where one is named."""
    findings = [python(sys.version_info[:3]), *packages(_installed), ssh_client(tools.ask(["ssh", "-V"]))]
    findings += [files(len(hosts or ()), descriptors.possible()), folder(state), lab_privileges(isolated.why_not())]
    remote = [host for host in hosts or () if not host.local]
    if hosts is None or remote:
        findings += access.keys(remote, Path.home() / ".ssh", os.environ)
    if remote:
        shared = Shared(Settings(run="doctor"))
        findings += access.known(remote, lambda host: of_user().lines_for(*shared.address(host)[:2]))
        findings += access.jumps(remote)
    return findings


def python(version: tuple[int, ...]) -> Finding:
    text = f"Python {_dotted(version)} at the root"
    if version < (3, 11):
        return Finding(Level.FAIL, "python", text, "fanout needs 3.11 or newer here")
    return Finding(Level.OK, "python", text)


def packages(installed: Callable[[str], str | None]) -> list[Finding]:
    found = []
    for name, least in PACKAGES.items():
        version = installed(name)
        remedy = f"pip install '{name}>={_dotted(least)}'"
        if version is None:
            found.append(Finding(Level.FAIL, "packages", f"{name} is not installed", remedy))
        elif _numbers(version) < least:
            found.append(Finding(Level.FAIL, "packages", f"{name} {version} is too old", remedy))
        else:
            found.append(Finding(Level.OK, "packages", f"{name} {version}"))
    return found


def ssh_client(answer: tuple[int, str] | None) -> Finding:
    """`answer`: exit code and output of `ssh -V`; None: there is no ssh."""
    if answer is None:
        text = "there is no ssh here: labs and relays on this machine cannot work"
        return Finding(Level.WARN, "ssh", text, "install openssh-client")
    said = answer[1].strip().split(",")[0]
    version = _numbers(said.partition("OpenSSH_")[2])
    if not version:
        return Finding(Level.WARN, "ssh", f"`ssh` is {said!r}, not OpenSSH", "install openssh-client")
    if version < OPENSSH:
        return Finding(Level.WARN, "ssh", f"{said} is old", f"use OpenSSH {_dotted(OPENSSH)} or newer")
    return Finding(Level.OK, "ssh", said)


def files(machines: int, limit: int) -> Finding:
    """`limit`: to which the root may raise its own, as it does where it must."""
    needed = descriptors.needed(machines)
    if limit == resource.RLIM_INFINITY:
        return Finding(Level.OK, "files", "no limit of open files")
    if limit < needed:
        text = f"{limit} open files are allowed, and {machines} machines may need {needed}"
        return Finding(Level.WARN, "files", text, "have the hard limit raised (`ulimit -Hn`, as root), or use relays")
    return Finding(Level.OK, "files", f"{limit} open files are allowed")


def folder(state: Path) -> Finding:
    there = state
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "make it yours, set XDG_STATE_HOME, or use --run-dir"
        return Finding(Level.FAIL, "state", f"runs cannot be kept in {state}: {there} is not writable", remedy)
    return space(f"for runs in {state}", shutil.disk_usage(there).free)


def lab_privileges(why_not: str) -> Finding:
    if why_not:
        text = f"labs have no isolated hosts here: {why_not}"
        return Finding(Level.WARN, "lab", text, "run as root on Linux; as another user there, labs share one loopback")
    return Finding(Level.OK, "lab", "labs of isolated hosts can be made")


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: `9.2p1` is (9, 2)."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))
