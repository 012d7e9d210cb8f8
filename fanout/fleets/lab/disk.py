"""The lab's disk: one tmpfs with a layer that all hosts share and a layer of each host's own.

A host's root is an overlay: its own layer over the shared one over the machine's root file system, which is
never written.  The shared layer hides /tmp, /var/tmp, /run and /dev of the machine behind empty ones of the
host's, so that all a host ever writes is in its own layer.  Other file systems mounted below / are not seen.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from fanout.errors import FleetError

TIMEOUT = 30.0  # s; for mount and umount
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
OWN = ("/run/sshd/", "/etc/hostname")
"""What the lab itself puts into a host's layer."""


def mount(folder: Path) -> Path:
    """Mount the disk of the lab in `folder`."""
    disk = folder / "disk"
    disk.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "mode=0700", "fanout-lab", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise FleetError(f"no tmpfs can be mounted for the lab: {done.stderr.strip()}")
    return disk


def unmount(folder: Path) -> None:
    """Undo `mount`; idempotent."""
    disk = folder / "disk"
    while os.path.ismount(disk):
        # Lazily: a shell that stands in there must not keep the lab from going.
        subprocess.run(["umount", "--lazy", str(disk)], check=True, capture_output=True, timeout=TIMEOUT)


def furnish_common(disk: Path, hosts: str, sshd_config: str, authorized: str) -> Path:
    """Make the shared layer; `hosts` is the text of /etc/hosts."""
    common = _layer(disk / "common")
    for path, mode in ("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755), ("dev", 0o755):
        # Opaque: nothing of the machine's directory shows through.
        os.setxattr(_directory(common, path, mode), "trusted.overlay.opaque", b"y")
    for path, mode in ("run/lock", 0o1777), ("run/sshd", 0o755), ("dev/shm", 0o1777), ("dev/pts", 0o755):
        _directory(common, path, mode)
    for name, number in DEVICES.items():
        os.mknod(common / "dev" / name, stat.S_IFCHR | 0o600, os.makedev(*number))
        (common / "dev" / name).chmod(0o666)
    for name, target in LINKS.items():
        (common / "dev" / name).symlink_to(target)
    _file(common, "etc/hosts", hosts)
    _file(common, "run/sshd/config", sshd_config)
    _file(common, "run/sshd/authorized_keys", authorized)
    _unlock_root(common)
    return common


def furnish_host(disk: Path, name: str) -> Path:
    """Make the folder of one host: `upper` (its own layer), `work`, and `root` to mount its root on."""
    folder = disk / "hosts" / name
    upper = _layer(folder / "upper")
    _directory(upper, "run", 0o755)
    _directory(upper, "run/sshd", 0o755)
    _file(upper, "etc/hostname", name + "\n")
    (folder / "work").mkdir()
    (folder / "root").mkdir()
    return folder


def changed_files(disk: Path, name: str) -> list[str]:
    """What differs in a host from the machine it was made from: paths in the host, sorted.

    Files made or changed, directories made, and, with ` (deleted)` behind, what was removed.
    """
    return sorted(_changes(disk / "hosts" / name / "upper", disk / "common"))


def _changes(upper: Path, common: Path) -> Iterator[str]:
    for folder, directories, files in os.walk(upper):
        for entry in (Path(folder, entry) for entry in (*directories, *files)):
            path = f"/{entry.relative_to(upper)}"
            if f"{path}/".startswith(OWN[0]) or path in OWN:
                continue
            status = entry.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                yield f"{path} (deleted)"
            elif not stat.S_ISDIR(status.st_mode) or not _below(path, common):
                yield path


def _below(path: str, common: Path) -> bool:
    """Whether a directory was there before the host was: then it is in its layer only for what it holds."""
    hidden = ("/tmp/", "/var/tmp/", "/run/", "/dev/")  # noqa: S108
    return (common / path[1:]).is_dir() or (not path.startswith(hidden) and Path(path).is_dir())


def _layer(path: Path) -> Path:
    path.mkdir(parents=True)
    path.chmod(0o755)  # of the host's / itself
    return path


def _directory(layer: Path, path: str, mode: int) -> Path:
    """Make a directory in a layer; those above it get what the machine's own have."""
    made = layer
    for part in Path(path).parts:
        made /= part
        if not made.is_dir():
            made.mkdir()
            machine = Path("/", made.relative_to(layer))
            if machine.is_dir():
                shutil.copystat(machine, made)
    made.chmod(mode)
    return made


def _file(layer: Path, path: str, text: str) -> None:
    _directory(layer, str(Path(path).parent), 0o755)
    (layer / path).write_text(text)
    (layer / path).chmod(0o644)


def _unlock_root(common: Path) -> None:
    """Where root is a locked account, sshd lets nobody in: the hosts get one with no password instead."""
    shadow = Path("/etc/shadow")
    if not shadow.exists():
        return
    lines = shadow.read_text().splitlines(keepends=True)
    unlocked = ["root:*:" + line.split(":", 2)[2] if line.startswith("root:!") else line for line in lines]
    if unlocked != lines:
        _file(common, "etc/shadow", "".join(unlocked))
        (common / "etc/shadow").chmod(0o600)


def hosts_file(addresses: Mapping[str, str]) -> str:
    """The text of /etc/hosts for all hosts of a lab, by name."""
    lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{a} {name}" for name, a in addresses.items())]
    return "\n".join(lines) + "\n"
