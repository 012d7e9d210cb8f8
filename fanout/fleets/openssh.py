"""OpenSSH servers and keys of our own: for the lab's hosts, and for one unprivileged server on loopback.

Every key here is made by fanout, is thrown away with its folder, and opens nothing else.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from fanout.errors import FleetError

START_TIMEOUT = 20.0  # s; for an sshd to listen: it needs 20 ms on an idle machine
STOP_TIMEOUT = 10.0  # s; for killed processes to be gone
QUIET_SHELL = "SHLVL=2"
"""For `SetEnv`: keeps bash from reading ~/.bashrc (it does for a first-level shell under sshd), so that what this
machine's account runs at login is no part of a lab or a test."""
MARKER = "FANOUT_SSHD"
"""Its value is the server's folder, in all that a LoopbackSshd starts, so that none of it can hide."""

SSHD_DEFAULTS = {
    "AddressFamily": "inet",
    "PidFile": "none",
    "UsePAM": "no",
    "StrictModes": "no",  # the folder may lie under a /tmp that is anybody's, while being private itself
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PrintMotd": "no",
    "PrintLastLog": "no",
    "Subsystem": "sftp internal-sftp",
    "MaxStartups": "10:30:100",
    "MaxSessions": "10",
    "SetEnv": QUIET_SHELL,
}
"""Of every sshd of a lab or a test: its limits are OpenSSH's own, also where a distribution has others."""


def find(program: str, package: str) -> str:
    """The path of a system program; FleetError naming the Debian package without it."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise FleetError(f"{program} is not installed on this machine: apt install {package}")
    return path


def keypair(path: Path) -> str:
    """Make an ed25519 key at `path` (0600) and return its public half as `type base64`."""
    done = subprocess.run(
        [find("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise FleetError(f"ssh-keygen could not make {path}: {done.stderr.strip()}")
    return path.with_name(path.name + ".pub").read_text().strip()


def sshd_config(options: Mapping[str, str], defaults: Mapping[str, str]) -> str:
    """The text of an sshd_config in which `options` win over `defaults`, whatever the case of their names."""
    asked = {name.lower() for name in options}
    lines = [f"{name} {value}" for name, value in options.items()]
    lines += [f"{name} {value}" for name, value in defaults.items() if name.lower() not in asked]
    return "\n".join(lines) + "\n"


def wait_gone(pids: Iterable[int], timeout: float) -> list[int]:
    """Wait until the processes have ended (a zombie has); return those that have not in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    left = []
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                left.append(pid)
        finally:
            os.close(fd)
    return left


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> set[int]:
    """Every process below `pid`, without it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything, brackets and spaces too.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def with_environment(name: str, value: str) -> set[int]:
    """The processes that were started with `name=value` in their environment, as far as we may see."""
    wanted = f"{name}={value}".encode()
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in environ.read_bytes().split(b"\0"):
                found.add(int(environ.parent.name))
        except OSError:
            continue
    return found


class LoopbackSshd:
    """One real sshd on a free port of every loopback address, 127.0.0.0/8; no other address may log in.

    It lets in the current user with the key `key`, and has Debian's default limits unless `options` (words of
    sshd_config) says otherwise.  Without `folder`, it has a temporary one, gone after `stop`.  Run by root it
    needs /run/sshd, the empty folder that Debian's own service makes, and makes it when missing.
    """

    def __init__(self, options: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        self._options = dict(options or {})
        self._temporary = folder is None
        self._given = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.port = 0
        self.user = getpass.getuser()
        self.host_keys: tuple[str, ...] = ()
        """What the server proves itself with, as `type base64`."""

    @property
    def pid(self) -> int:
        """Of the server, while it was started here and runs; else 0."""
        return self._process.pid if self._process is not None else 0

    @property
    def key(self) -> Path:
        """The private key that may log in."""
        return self.folder / "id"

    @property
    def known_hosts(self) -> str:
        """A known_hosts text that is right for every loopback address at this server's port."""
        return "".join(f"[127.*]:{self.port} {key}\n" for key in self.host_keys)

    @property
    def log(self) -> str:
        """What sshd itself has said so far."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> LoopbackSshd:
        sshd = find("sshd", "openssh-server")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.folder = self._given or Path(tempfile.mkdtemp(prefix="fanout-sshd-"))
        try:
            self.host_keys = (keypair(self.folder / "host_key"),)
            (self.folder / "authorized_keys").write_text(keypair(self.key) + "\n")
            self._launch(sshd)
        except BaseException:
            self.stop()
            raise
        return self

    def _launch(self, sshd: str) -> None:
        # Another process may take the free port before sshd does: then sshd ends, and we choose again.
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            (self.folder / "config").write_text(self._config())
            process = subprocess.Popen(
                [sshd, "-D", "-f", str(self.folder / "config"), "-E", str(self.folder / "log")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
            self._process = process
            if self._listens(process):
                return
        raise FleetError(f"sshd does not start: {self.log.strip() or 'it says nothing'}")

    def _listens(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        listening = f" 00000000:{self.port:04X} 00000000:0000 0A "
        while process.poll() is None:
            # Not by connecting: that would take one of the few logins that sshd allows to be under way.
            if listening in Path("/proc/net/tcp").read_text():
                return process.poll() is None
            if time.monotonic() > deadline:
                raise FleetError(f"sshd does not listen after {START_TIMEOUT:.0f} s: {self.log.strip()}")
            time.sleep(0.005)
        return False

    def _config(self) -> str:
        # AllowUsers is what keeps other machines out, since sshd cannot listen on a whole network.
        return sshd_config(
            self._options,
            {
                **SSHD_DEFAULTS,
                "Port": str(self.port),
                "HostKey": f'"{self.folder}/host_key"',
                "AuthorizedKeysFile": f'"{self.folder}/authorized_keys"',
                "AllowUsers": f"{self.user}@127.0.0.0/8",
                "SetEnv": f'{MARKER}="{self.folder}" {QUIET_SHELL}',
            },
        )

    def processes(self) -> set[int]:
        """What was started through this server and still runs, its sessions too; not the server itself."""
        return started_through(self.folder)

    def stop(self) -> None:
        """Kill the server and everything started through it, and remove the temporary folder; idempotent."""
        if not self.folder.name:
            return
        stop_server(self.folder)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT)
            self._process = None
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path()

    def __enter__(self) -> LoopbackSshd:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def servers(folder: Path) -> set[int]:
    """The LoopbackSshd of a folder, whoever started it: sshd keeps its arguments in its title."""
    wanted = f"-f {folder}/config -E".encode()
    found = set()
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in cmdline.read_bytes().replace(b"\0", b" "):
                found.add(int(cmdline.parent.name))
        except OSError:
            continue
    return found


def started_through(folder: Path) -> set[int]:
    """The processes that were started through the LoopbackSshd of a folder and still run."""
    found = with_environment(MARKER, str(folder))
    listening = servers(folder)
    for pid in listening:
        found |= descendants(pid)
    return found - listening


def stop_server(folder: Path) -> None:
    """Stop the LoopbackSshd of a folder, and all that was started through it; idempotent."""
    deadline = time.monotonic() + STOP_TIMEOUT
    # Again after each round: what was being forked while we looked is seen the next time.
    while True:
        listening = servers(folder)
        for pid in listening:
            send(pid, signal.SIGSTOP)  # no new session between looking and killing
        doomed = listening | started_through(folder)
        if not doomed:
            return
        for pid in doomed:
            send(pid, signal.SIGKILL)
        left = wait_gone(doomed, max(0.0, deadline - time.monotonic()))
        if left:
            raise FleetError(f"processes {left} of the sshd in {folder} do not end, not even by SIGKILL")
