"""What would fail, found before it does: on this machine, and on each machine of a fleet.

Every finding has a remedy unless it is fine.  Nothing is changed anywhere; a fleet that is made for the visit is
released after it.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.agent.core.link import HEARTBEAT
from fanout.errors import FanoutError, FleetError
from fanout.fleets.base import Fleet, Host, Request
from fanout.fleets.lab import isolated
from fanout.names import fold
from fanout.root.known_hosts import of_user
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome
from fanout.root.session import Session
from fanout.root.settings import Settings
from fanout.root.ssh_options import Shared

PACKAGES = {"asyncssh": (2, 18), "msgpack": (1, 1)}
OPENSSH = (7, 4)  # `ssh -G`, ControlPersist and `^` before algorithms came earlier or are optional below it
TOOL = 10.0  # s for a program on this machine
COMMAND = 20.0  # s for the one command on the machines
SPARE_FILES = 128  # descriptors that the root needs beside its connections
FILES_EACH = 4  # ... and for each machine: a local agent takes three pipes
LITTLE, TOO_LITTLE = 1 << 30, 100 << 20  # bytes of free space: run logs fill a gigabyte soon; an agent needs some MB
SKEW = 0.5  # s; times in reports and logs of machines that differ more are not to be compared
STARTUPS, SESSIONS = 10, 2  # sshd's default, and what one connection needs


class Level(enum.StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    level: Level
    topic: str
    text: str
    remedy: str = ""


# This machine.


def here(state: Path, hosts: Sequence[Host] | None) -> list[Finding]:
    """What can be said without a connection; `state` is where runs are kept, `hosts` the fleet where one is named."""
    findings = [python(sys.version_info[:3]), *packages(_installed), ssh_client(_run(["ssh", "-V"]))]
    findings += [descriptors(len(hosts or ()), resource.getrlimit(resource.RLIMIT_NOFILE)[0])]
    findings += [folder(state), lab_privileges(isolated.why_not())]
    remote = [host for host in hosts or () if not host.local]
    if hosts is None or remote:
        findings += keys(remote, Path.home() / ".ssh", os.environ)
    if remote:
        shared = Shared(Settings(run="doctor"))
        findings += known(remote, lambda host: of_user().lines_for(*shared.address(host)[:2]))
        findings += jumps(remote)
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


def descriptors(machines: int, limit: int) -> Finding:
    """As if the root reached all of them itself: that is the most that it may come to when relays are lost."""
    needed = SPARE_FILES + FILES_EACH * machines
    if limit == resource.RLIM_INFINITY:
        return Finding(Level.OK, "files", "no limit of open files")
    if limit < needed:
        text = f"{limit} open files are allowed, and {machines} machines may need {needed}"
        return Finding(Level.WARN, "files", text, f"ulimit -n {needed}, or use relays")
    return Finding(Level.OK, "files", f"{limit} open files are allowed")


def folder(state: Path) -> Finding:
    there = state
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "make it yours, set XDG_STATE_HOME, or use --run-dir"
        return Finding(Level.FAIL, "state", f"runs cannot be kept in {state}: {there} is not writable", remedy)
    return space(f"for runs in {state}", shutil.disk_usage(there).free)


def space(what: str, free: int) -> Finding:
    text = f"{free / 1e9:.1f} GB free {what}"
    if free < TOO_LITTLE:
        return Finding(Level.FAIL, "space", text, "make room there")
    if free < LITTLE:
        return Finding(Level.WARN, "space", text, "make room there: logs and files of a run take it")
    return Finding(Level.OK, "space", text)


def lab_privileges(why_not: str) -> Finding:
    if why_not:
        text = f"labs have no isolated hosts here: {why_not}"
        return Finding(Level.WARN, "lab", text, "run as root on Linux; until then labs share one loopback")
    return Finding(Level.OK, "lab", "labs of isolated hosts can be made")


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
    answer = _run(["ssh-add", "-l"]) if environment.get("SSH_AUTH_SOCK") else None
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
    answer = _run(["ssh-keygen", "-y", "-P", "", "-f", str(key)])
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
        return [Finding(Level.OK, "known_hosts", f"the host keys of {_many(hosts)} are known")]
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


# The machines of a fleet.

PROBE = b"""
import json, os, platform, subprocess, tempfile, time
base = tempfile.gettempdir()
stat = os.statvfs(base)
try:
    sshd = subprocess.run(["sshd", "-T"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=5, env={"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}).stdout.decode()
except (OSError, subprocess.SubprocessError):
    sshd = ""
limits = dict(line.split(None, 1) for line in sshd.splitlines() if line.startswith(("maxstartups ", "maxsessions ")))
print(json.dumps({"python": platform.python_version(), "base": base, "free": stat.f_bavail * stat.f_frsize,
                  "wall": time.time() - time.monotonic(), "sshd": limits}))
"""


async def visit(fleet: Fleet, machines: int | None, state: Path, timeout: float) -> list[Finding]:
    """`here`, and what one small command on each machine says; each is reached by the root itself.

    `timeout`: seconds for connecting.
    """
    try:
        findings = await _look(fleet, machines, state, timeout)
    except BaseException:
        await _release(fleet)
        raise
    return findings + await _release(fleet)


async def _look(fleet: Fleet, machines: int | None, state: Path, timeout: float) -> list[Finding]:
    run = f"doctor-{secrets.token_hex(4)}"
    request = Request(run, machines)
    try:
        preview = await fleet.preview(request)
        if preview is not None:  # machines that cost money are not made for a visit
            findings = await asyncio.to_thread(here, state, None)
            return [*findings, Finding(Level.OK, "fleet", f"these could be made: {preview}")]
        hosts = await fleet.provision(request, lambda done, total: None)
        if not hosts:
            raise FleetError("it has no machines")
    except FleetError as error:
        findings = await asyncio.to_thread(here, state, None)
        why = f"there are no machines: {error}"
        return [*findings, Finding(Level.FAIL, "fleet", why, "mend that, and try again")]
    findings = await asyncio.to_thread(here, state, hosts)
    members = [Machine(i, host, "") for i, host in enumerate(hosts)]
    session = Session(members, [None] * len(hosts), Settings(run, connect_timeout=timeout))
    try:
        await session.connect()
        return findings + await _ask(session)
    finally:
        await session.end(grace=0.5)


async def _ask(session: Session) -> list[Finding]:
    names = [machine.name for machine in session.machines]
    reached = session.up
    findings = []
    if reached:
        ids = machineset.members(reached)
        findings.append(Finding(Level.OK, "reach", f"{_many(ids)} reached: {fold(names[i] for i in ids)}"))
    causes: dict[tuple[Outcome, str], list[str]] = {}
    for machine, (outcome, reason) in sorted(session.down.items()):
        causes.setdefault((outcome, reason), []).append(names[machine])
    for (outcome, reason), those in causes.items():
        findings.append(Finding(Level.FAIL, "reach", f"{fold(those)}: {outcome}", reason))
    return findings + survey({names[i]: answer for i, answer in (await _answers(session)).items()})


async def _answers(session: Session) -> dict[int, dict[str, Any] | str]:
    """What the probe said on each machine, with `skew` (s, None: unknown) in place of `wall`; or why it did not."""
    pythons: dict[str, int] = {}
    for machine in machineset.members(session.up):
        python = session.machines[machine].host.python
        pythons[python] = pythons.get(python, 0) | machineset.single(machine)
    ours = time.time() - time.monotonic()
    found: dict[int, dict[str, Any] | str] = {}
    calls = [
        session.call(frames.RUN, those, {"argv": [python, "-"], "stdin": PROBE, "timeout": COMMAND})
        for python, those in pythons.items()
    ]
    await _clocks(session, HEARTBEAT + 2.0)
    for call in calls:
        await call.wait(tree.DONE, timeout=COMMAND)
        found.update(dict.fromkeys(machineset.members(call.targets), "it did not answer"))
        for machines, (_, _, out, err, _) in call.groups(tree.DONE):
            for machine in machineset.members(machines):
                try:
                    said = json.loads(out)
                except ValueError:
                    found[machine] = err.decode("utf-8", "replace").strip()[-200:] or "it printed nothing"
                    continue
                link = session.node.children.get(machine)
                ahead = link.offset if link is not None else None
                wall = said.pop("wall")
                said["skew"] = None if ahead is None else wall - ours + ahead
                found[machine] = said
    return found


async def _clocks(session: Session, timeout: float) -> None:
    """Until the first exchange of times with every machine, which comes with its first heartbeat."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and any(  # noqa: ASYNC110  links tell nobody when it came
        link.offset is None for machine, link in session.node.children.items() if session.up >> machine & 1
    ):
        await asyncio.sleep(0.05)


def survey(answers: Mapping[str, dict[str, Any] | str]) -> list[Finding]:
    """Name -> what the probe said there, folded over the machines."""
    findings, said = [], {}
    silent: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if isinstance(answer, str):
            silent.setdefault(answer, []).append(name)
        else:
            said[name] = answer
    for why, those in silent.items():
        findings.append(Finding(Level.FAIL, "command", f"{fold(those)}: {why}", "log in there, and try python3"))
    for version, those in _folded(said, lambda one: one["python"]):
        findings.append(Finding(Level.OK, "python", f"Python {version}: {fold(those)}"))
    findings += _spaces(said)
    findings += _skews({name: one["skew"] for name, one in said.items()})
    for limits, those in _folded(said, lambda one: json.dumps(one["sshd"], sort_keys=True)):
        findings.append(_sshd(json.loads(limits), those))
    return findings


def _spaces(said: Mapping[str, dict[str, Any]]) -> list[Finding]:
    found = []
    for base, those in _folded(said, lambda one: one["base"]):
        worst: dict[Level, list[str]] = {}
        for name in those:
            worst.setdefault(space("", said[name]["free"]).level, []).append(name)
        for names in worst.values():
            least = min(said[name]["free"] for name in names)
            found.append(space(f"or more in {base}: {fold(names)}", least))
    return found


def _skews(skews: Mapping[str, float | None]) -> list[Finding]:
    measured = {name: skew for name, skew in skews.items() if skew is not None}
    found = []
    off = [name for name, skew in measured.items() if abs(skew) > SKEW]
    if off:
        worst = max((measured[name] for name in off), key=abs)
        text = f"clocks differ from the root's by up to {abs(worst):.1f} s: {fold(off)}"
        found.append(Finding(Level.WARN, "clock", text, "run NTP there: until then times in logs mislead"))
    right = [name for name in measured if name not in set(off)]
    if right:
        most = max(abs(measured[name]) for name in right)
        found.append(
            Finding(Level.OK, "clock", f"within {max(1, round(most * 1000))} ms of the root's: {fold(right)}")
        )
    unknown = [name for name in skews if name not in measured]
    if unknown:
        found.append(Finding(Level.WARN, "clock", f"could not be compared: {fold(unknown)}", "try again"))
    return found


def _sshd(limits: Mapping[str, str], those: Sequence[str]) -> Finding:
    where = fold(those)
    if not limits:
        return Finding(Level.OK, "sshd", f"its limits cannot be read without root: {where}")
    startups, sessions = limits.get("maxstartups", "?").strip(), limits.get("maxsessions", "?").strip()
    text = f"MaxStartups {startups}, MaxSessions {sessions} (by `sshd -T`): {where}"
    first = startups.partition(":")[0]
    if (first.isdigit() and int(first) < STARTUPS) or (sessions.isdigit() and int(sessions) < SESSIONS):
        remedy = f"MaxStartups {STARTUPS}:30:100 and MaxSessions 10 in sshd_config, then reload sshd"
        return Finding(Level.WARN, "sshd", text, remedy)
    return Finding(Level.OK, "sshd", text)


async def _release(fleet: Fleet) -> list[Finding]:
    try:
        async with asyncio.timeout(fleet.release_timeout):
            await fleet.release()
    except TimeoutError:
        return [Finding(Level.FAIL, "fleet", f"not released within {fleet.release_timeout:g} s", "remove it by hand")]
    except (FanoutError, OSError) as error:
        return [Finding(Level.FAIL, "fleet", f"not released: {error}", "remove it by hand")]
    return []


# Helpers.


def _folded(said: Mapping[str, dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> list[tuple[str, list[str]]]:
    """(key, names), the largest group first."""
    groups: dict[str, list[str]] = {}
    for name, one in said.items():
        groups.setdefault(key(one), []).append(name)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _run(argv: list[str]) -> tuple[int, str] | None:
    """Exit code, and all that it said; None: it is not there, or does not end."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout.decode("utf-8", "replace")


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


def _many(things: Sequence[object]) -> str:
    return f"{len(things)} machine{'s' * (len(things) != 1)}"
