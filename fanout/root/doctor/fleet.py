"""Each machine of a fleet, by one small command there: reached by the root itself, and left as it was."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Any

from fanout.agent.core import frames, machineset
from fanout.agent.core import node as tree
from fanout.agent.core.link import HEARTBEAT
from fanout.errors import FanoutError, FleetError
from fanout.fleets.base import Fleet, Request
from fanout.names import fold
from fanout.root.doctor.finding import Finding, Level, how_many
from fanout.root.doctor.local import here
from fanout.root.doctor.survey import survey
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome
from fanout.root.session import Session
from fanout.root.settings import Settings

COMMAND = 20.0  # s for the one command on the machines

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
        findings.append(Finding(Level.OK, "reach", f"{how_many(ids)} reached: {fold(names[i] for i in ids)}"))
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


async def _release(fleet: Fleet) -> list[Finding]:
    try:
        async with asyncio.timeout(fleet.release_timeout):
            await fleet.release()
    except TimeoutError:
        return [Finding(Level.FAIL, "fleet", f"not released within {fleet.release_timeout:g} s", "remove it by hand")]
    except (FanoutError, OSError) as error:
        return [Finding(Level.FAIL, "fleet", f"not released: {error}", "remove it by hand")]
    return []
