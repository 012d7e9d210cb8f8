"""A tree over SSH: how long until all agents are ready, what a command costs, and what the root pays."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

from fanout.agent.core import machineset
from fanout.bench.bed import PATIENCE, Bed, bed, connected, memory_peak, run
from fanout.bench.figure import Figure, Size, median
from fanout.root.session import Session

COMMANDS = 7  # of which the median is told


async def bare_logins(place: Bed, count: int) -> float:
    """Seconds until OpenSSH's own client has run `true` on each host, as many at a time as fanout has."""
    gate = asyncio.Semaphore(32)
    known = place.sshd.folder / "known_hosts"
    known.write_text(place.sshd.known_hosts)
    options = ("-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}",
               "-o", "KexAlgorithms=curve25519-sha256", "-i", str(place.sshd.key),
               "-p", str(place.sshd.port), "-l", place.sshd.user)

    async def login(address: str) -> None:
        async with gate:
            client = await asyncio.create_subprocess_exec(
                "ssh", *options, address, "true", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if await asyncio.wait_for(client.wait(), PATIENCE):
                raise RuntimeError(f"a bare login on {address} failed")

    began = time.monotonic()
    await asyncio.gather(*(login(host.address) for host in place.hosts(count)))
    return time.monotonic() - began


def _bare_starts(count: int) -> float:
    """Seconds to start /bin/true so many times, two at a time, and wait for each."""
    began = time.monotonic()
    running: list[int] = []
    for _ in range(count):
        if len(running) >= 2:
            os.waitpid(running.pop(0), 0)
        running.append(os.posix_spawn("/bin/true", ["true"], {}))
    for pid in running:
        os.waitpid(pid, 0)
    return time.monotonic() - began


async def _commands(session: Session, machines: int, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began = time.monotonic()
        await run(session, machines, argv=["/bin/true"])
        taken.append(time.monotonic() - began)
    return taken


async def _tree(place: Bed, size: Size, relays: int) -> list[Figure]:
    name = f"{relays} relays" if relays else "flat"
    logins = await bare_logins(place, size.machines)
    async with place.session(size.machines, relays) as session:
        began, cpu = time.monotonic(), time.process_time()
        await connected(session)
        ready, ready_cpu = time.monotonic() - began, time.process_time() - cpu
        await _commands(session, session.up, 1)
        before, cpu = session.statistics(), time.process_time()
        second = await _commands(session, session.up, COMMANDS)
        command_cpu = (time.process_time() - cpu) / COMMANDS
        after = session.statistics()
        starts = _bare_starts(size.machines)
    aim = bool(relays)
    return [
        Figure(f"{name}: all agents ready", ready, "s", 10.0 if aim else None, logins, "`ssh host true` on each"),
        Figure(f"{name}: a later command on all", median(second), "s", 0.4 if aim else None, starts,
               "starting /bin/true as often, here"),
        Figure(f"{name}: root CPU, connecting", ready_cpu, "s"),
        Figure(f"{name}: root CPU, a command on all", command_cpu * 1e3, "ms"),
        Figure(f"{name}: messages to the root, a command on all",
               (after["messages_in"] - before["messages_in"]) / COMMANDS, ""),
        Figure(f"{name}: root memory at most", memory_peak(), "MB"),
    ]


def measure_relays(size: Size) -> list[Figure]:
    with bed() as place:
        return asyncio.run(_tree(place, size, size.relays))


def measure_flat(size: Size) -> list[Figure]:
    with bed() as place:
        return asyncio.run(_tree(place, size, 0))


def measure_trip(size: Size) -> list[Figure]:
    """From the root to one leaf and back, with /bin/true started and ended on it."""

    async def trip(place: Bed) -> list[Figure]:
        medians = []
        for depth in (1, 2, 3):
            async with place.session(depth, 1 if depth > 1 else 0, depth) as session:
                await connected(session)
                leaf = machineset.single(_deepest(session))
                await _commands(session, leaf, 2)
                medians.append(median(await _commands(session, leaf, size.repeats)) * 1e3)
        start = median([_bare_starts(1) for _ in range(size.repeats)]) * 1e3
        figures = [Figure("command on one leaf, depth 1", medians[0], "ms", None, start, "starting /bin/true here")]
        figures += [Figure(f"command on one leaf, depth {i + 1}", medians[i], "ms", None, medians[0], "depth 1")
                    for i in (1, 2)]
        return figures

    with bed() as place:
        return asyncio.run(trip(place))


def _deepest(session: Session) -> int:
    return machineset.first(session.up & ~session.topology.relays)
