"""What else is installed here for the same work, on the same hosts: `true` on all of them, from first contact.

Each is given the same known hosts, key, port and user by an ssh configuration of its own, so the user's is not needed
and host keys are verified.  The key exchange is the same for all.  Tools that go through gateways log in from there by
what the gateway has.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fanout.fleets.base import Host
from fanout.root.settings import CIPHER, KEX

AT_ONCE = 64
GATEWAYS = 8


class Place:
    """A folder with what peers need to reach hosts; goes with its `with`."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = hosts
        self._folder = tempfile.TemporaryDirectory(prefix="fanout-peers-")
        self.path = Path(self._folder.name)
        self.config = self.path / "config"

    def __enter__(self) -> Place:
        known, lines = [], []
        for host in self.hosts:
            port = host.port or 22
            name = host.address if port == 22 else f"[{host.address}]:{port}"
            known += [f"{name} {key}\n" for key in host.host_keys]
            lines.append(f"Host {host.address}\n  Port {port}\n")
            lines += [f"  User {host.user}\n"] if host.user else []
            lines += [f"  IdentityFile {host.key}\n  IdentitiesOnly yes\n"] if host.key else []
            lines += [f"  ProxyJump {host.jump}\n"] if host.jump else []
        files = str(self.path / "known_hosts") + " ~/.ssh/known_hosts"
        (self.path / "known_hosts").write_text("".join(known))
        self.config.write_text("".join(lines) + (
            f"Host *\n  UserKnownHostsFile {files}\n  StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n"
            f"  KexAlgorithms ^{KEX}\n  Ciphers ^{CIPHER}\n"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._folder.cleanup()

    def names(self, n: int) -> Path:
        """A file with the addresses of the first `n`, one a line."""
        path = self.path / f"hosts-{n}"
        path.write_text("".join(host.address + "\n" for host in self.hosts[:n]))
        return path

    def entries(self, n: int) -> Path:
        """... as a hosts file of fanout's."""
        path = self.path / f"entries-{n}"
        lines = []
        for host in self.hosts[:n]:
            user = f"{host.user}@" if host.user else ""
            words = [f"{user}{host.address}" + (f":{host.port}" if host.port else ""), f"name={host.name}"]
            words += [f"key={host.key}"] if host.key else []
            words += [f'host_key="{host.host_keys[0]}"'] if host.host_keys else []
            lines.append(" ".join(words) + "\n")
        path.write_text("".join(lines))
        return path

    def topology(self, n: int) -> Path:
        """For clush: the first hosts are the gateways of the others."""
        path = self.path / f"topology-{n}"
        addresses = [host.address for host in self.hosts[:n]]
        gateways, leaves = ",".join(addresses[:GATEWAYS]), ",".join(addresses[GATEWAYS:])
        path.write_text(f"[routes]\n{os.uname().nodename}: {gateways}\n{gateways}: {leaves}\n")
        return path


@dataclass(frozen=True)
class Peer:
    name: str
    program: str
    argv: Callable[[Place, int], list[str]]
    environment: Callable[[Place], dict[str, str]] = lambda place: {}
    module: str = "fanout"
    """The Python package that it needs besides."""

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None and importlib.util.find_spec(self.module) is not None


@dataclass
class PeerRow:
    """One tool at one size."""

    n: int
    peer: str
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    """CPU seconds of its own processes, here."""
    failures: list[str] = field(default_factory=list)

    def measure(self, peer: Peer, place: Place, timeout: float) -> None:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        process = subprocess.Popen(
            peer.argv(place, self.n), env={**os.environ, **peer.environment(place)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            said = b"it did not end in time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            last = said.decode("utf-8", "replace").strip().splitlines()
            self.failures.append(last[-1] if last else f"exit {process.returncode}")
        else:
            self.walls.append(wall)
            self.cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


PEERS = [
    Peer("fanout exec", sys.executable, lambda place, n: [
        sys.executable, "-m", "fanout.cli", "exec", "-q", "--relays", "0", "-f", str(AT_ONCE), "-w",
        f"@{place.entries(n)}", "--", "true"]),
    Peer("pdsh", "pdsh", lambda place, n: [
        "pdsh", "-S", "-R", "ssh", "-f", str(AT_ONCE), "-w", f"^{place.names(n)}", "true"],
        lambda place: {"PDSH_SSH_ARGS_APPEND": f"-F {place.config}"}),
    Peer("pssh", "parallel-ssh", lambda place, n: [
        "parallel-ssh", "-p", str(AT_ONCE), "-x", f"-F {place.config}", "-h", str(place.names(n)), "true"]),
    Peer("clush", "clush", lambda place, n: [
        "clush", "-q", "-S", "-f", str(AT_ONCE), "-o", f"-F {place.config}", "--hostfile", str(place.names(n)),
        "true"]),
    Peer("clush tree", "clush", lambda place, n: [
        "clush", "-q", "-S", "-f", str(AT_ONCE), "-o", f"-F {place.config}", f"--topology={place.topology(n)}",
        "--hostfile", str(place.names(n)), "true"]),
    Peer("taktuk", "taktuk", lambda place, n: [
        "taktuk", "-c", f"ssh -F {place.config}", "-f", str(place.names(n)), "broadcast", "exec", "[", "true", "]"]),
    Peer("mitogen", sys.executable, lambda place, n: _contexts(place, n, 0), module="mitogen"),
    Peer("mitogen via", sys.executable, lambda place, n: _contexts(place, n, GATEWAYS), module="mitogen"),
]
"""Not the library of parallel-ssh (`pssh.clients`, 2.16): it does not verify host keys.  Its program does."""


def _contexts(place: Place, n: int, via: int) -> list[str]:
    return [sys.executable, "-m", "fanout.bench.contexts", str(place.config), str(place.names(n)), "--via", str(via),
            "--commands", "0"]


def installed(hosts: Sequence[Host]) -> tuple[list[Peer], list[str]]:
    """Those that can run here, and why not the others."""
    if any(host.local for host in hosts):
        return [], ["--compare: the machines of this fleet are not reached by SSH"]
    found = [peer for peer in PEERS if peer.installed]
    missing = [peer.name for peer in PEERS if peer not in found]
    return found, [f"not installed here, and not compared: {', '.join(missing)}"] if missing else []
