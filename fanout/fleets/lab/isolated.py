"""Hosts of their own: network, process, mount and name spaces, an overlay of the root file system, an sshd.

Needs root.  Hosts are for tests and measurements; they are no fence against hostile programs, since root in a
host is root of the machine with fewer things in sight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL
from typing import Any

from fanout.errors import FleetError
from fanout.fleets.lab import disk, quota, switch
from fanout.fleets.lab.ground import LabHost, Plan
from fanout.fleets.openssh import SSHD_DEFAULTS, find, keypair, send, sshd_config, wait_gone

BUILD_TIMEOUT = 300.0  # s; a thousand hosts take about 60
KILL_TIMEOUT = 20.0  # s; for killed hosts to be gone
PROBE_TIMEOUT = 20.0  # s

SSHD = {
    **SSHD_DEFAULTS,
    "Port": "22",
    "HostKey": "/run/sshd/host_key",
    "AuthorizedKeysFile": "/run/sshd/authorized_keys",
    "PermitRootLogin": "prohibit-password",
}


def why_not() -> str:
    """Why this process cannot make isolated hosts; empty when it can."""
    if not sys.platform.startswith("linux"):
        return "this is not Linux"
    if os.geteuid() != 0:
        return "this needs root"
    command = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"namespaces cannot be made: {error}"
    return f"namespaces are not permitted here: {done.stderr.strip()}" if done.returncode else ""


class Isolated:
    limits = ""

    def build(self, folder: Path, lock: int, plan: Plan, ready: Callable[[int], None]) -> list[LabHost]:
        sshd = find("sshd", "openssh-server")
        shape = switch.shape(plan.rate)
        names = plan.names()
        pattern = quota.make(switch.tag(folder), names, plan.cpu) if plan.cpu is not None else None
        network = switch.make(folder)
        addresses = {name: str(network[i + 2]) for i, name in enumerate(names)}
        root = disk.mount(folder)
        common = disk.furnish_common(
            root,
            disk.hosts_file(addresses),
            sshd_config(plan.sshd_options, SSHD),
            keypair(folder / "id") + "\n",
        )
        paths = [disk.furnish_host(root, name) for name in names]
        order = {
            "lock": lock,
            "netns": switch.tag(folder),
            "prefix": network.prefixlen,
            "common": str(common),
            "cgroups": [pattern] if pattern else [],
            "shape": shape,
            "init": [*plan.init] or [sshd, "-D", "-f", "/run/sshd/config", "-E", "/run/sshd/log"],
            "listens": not plan.init,
            "hosts": [
                {
                    "name": name,
                    "address": addresses[name],
                    "port": switch.port(i),
                    "upper": str(path / "upper"),
                    "work": str(path / "work"),
                    "root": str(path / "root"),
                }
                for i, (name, path) in enumerate(zip(names, paths, strict=True), 1)
            ],
        }
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            keys = list(pool.map(lambda path: keypair(path / "upper/run/sshd/host_key"), paths))
        pids = dict(_built(order, lock, ready))
        return [
            LabHost(i, name, addresses[name], 22, "root", (key,), pids[name])
            for i, (name, key) in enumerate(zip(names, keys, strict=True), 1)
        ]

    def remove(self, folder: Path) -> None:
        # Again after each round: what was being forked while we looked is seen the next time.
        while doomed := inside(folder):
            for pid in doomed:
                send(pid, SIGKILL)
            if left := wait_gone(doomed, KILL_TIMEOUT):
                raise FleetError(f"processes {left} of the lab in {folder} do not end, not even by SIGKILL")
        switch.remove(folder)
        quota.remove(switch.tag(folder))
        disk.unmount(folder)

    def power_cut(self, folder: Path, host: LabHost) -> None:
        # The link first: a host without power says no farewell.
        switch.set_link(folder, host.number, up=False)
        if host.pid in inside(folder, host.name):
            send(host.pid, SIGKILL)
            if wait_gone([host.pid], KILL_TIMEOUT):
                raise FleetError(
                    f"{host.name}: its init process {host.pid} does not end, not even by SIGKILL"
                )

    def set_link(self, folder: Path, host: LabHost, up: bool) -> None:
        switch.set_link(folder, host.number, up)

    def entering(self, host: LabHost, argv: Sequence[str]) -> list[str]:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", "--target", str(host.pid), *spaces, "--root", "--wd", "--", *argv]

    def processes(self, folder: Path, host: LabHost) -> dict[int, str]:
        return {pid: _title(pid) for pid in inside(folder, host.name) if pid != host.pid}

    def changed_files(self, folder: Path, host: LabHost) -> list[str]:
        return disk.changed_files(folder / "disk", host.name)


def inside(folder: Path, name: str | None = None) -> set[int]:
    """The processes in the hosts of a lab (or in one of them): those whose root is on the lab's disk."""
    layer = f"upperdir={folder}/disk/hosts/{name}/upper" if name else f"upperdir={folder}/disk/hosts/"
    found = set()
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if layer in mounts.read_text():
                found.add(int(mounts.parent.name))
        except OSError:
            continue
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _built(order: dict[str, Any], lock: int, ready: Callable[[int], None]) -> Iterator[tuple[str, int]]:
    """Run the builder: (name, pid) of each host as it comes up."""
    program = Path(__file__).with_name("builder.py")
    with tempfile.TemporaryFile() as errors:
        builder = subprocess.Popen(
            [sys.executable, "-I", "-S", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=[lock],
            cwd="/",
        )
        watchdog = threading.Timer(BUILD_TIMEOUT, builder.kill)
        watchdog.start()
        try:
            assert builder.stdin is not None and builder.stdout is not None
            with builder.stdin as stdin:
                stdin.write(json.dumps(order).encode())
            for count, line in enumerate(builder.stdout, 1):
                host = json.loads(line)
                yield host["name"], host["pid"]
                ready(count)
            code = builder.wait()
        finally:
            watchdog.cancel()
            builder.kill()
            builder.wait()
            if builder.stdout is not None:
                builder.stdout.close()
        if code:
            errors.seek(0)
            said = errors.read(10_000).decode(errors="replace").strip()
            raise FleetError(f"the lab's hosts could not be made: {said or f'the builder ended with {code}'}")
