"""A cap on each host's CPU, by a cgroup: version 1 (the `cpu` controller) or version 2."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from fanout.errors import FleetError

PERIOD = 100_000  # microseconds; the kernel's own default
REMOVE_TIMEOUT = 5.0  # s; a cgroup lingers for an instant after its last process
V1 = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpu,cpuacct"))
V2 = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def controllers() -> list[tuple[Path, bool]]:
    """The root of each hierarchy that can cap CPU, and whether it is version 2."""
    found = [(root, False) for root in V1 if (root / "cgroup.procs").exists()]
    for root in V2:
        available = root / "cgroup.controllers"
        if available.exists() and "cpu" in available.read_text().split():
            found.append((root, True))
    return found


def make(name: str, hosts: list[str], cores: float) -> str:
    """A cgroup a host, capped to `cores`; the file that takes a process, with {name} for the host."""
    if not (found := controllers()):
        raise FleetError(
            "cpu= cannot be kept: this machine has no cgroup `cpu` controller; mount one, or leave cpu= out"
        )
    root, second = found[0]
    quota = max(1000, int(cores * PERIOD))
    try:
        if second:
            (root / "cgroup.subtree_control").write_text("+cpu")
        (root / name).mkdir()
        if second:
            (root / name / "cgroup.subtree_control").write_text("+cpu")
        for host in hosts:
            folder = root / name / host
            folder.mkdir()
            if second:
                (folder / "cpu.max").write_text(f"{quota} {PERIOD}")
            else:
                (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
                (folder / "cpu.cfs_quota_us").write_text(str(quota))
    except OSError as error:
        raise FleetError(
            f"cpu= cannot be kept: {error}; leave cpu= out, or run as root of the machine"
        ) from None
    return str(root / name / "{name}" / "cgroup.procs")


def remove(name: str) -> None:
    """Remove the cgroups that `make` made, all or part of them; idempotent."""
    deadline = time.monotonic() + REMOVE_TIMEOUT
    for root in (*V1, *V2):
        folder = root / name
        if not folder.is_dir():
            continue
        for path in (*(p for p in folder.iterdir() if p.is_dir()), folder):
            while path.exists():
                with contextlib.suppress(FileNotFoundError):
                    try:
                        path.rmdir()
                    except OSError as error:
                        if time.monotonic() > deadline:
                            raise FleetError(f"{path} cannot be removed: {error}") from None
                        time.sleep(0.01)  # cgroups have no event for this
