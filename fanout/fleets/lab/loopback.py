"""Without root: one unprivileged sshd that answers on many loopback addresses, each taken for a host."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fanout.errors import FleetError
from fanout.fleets.lab.ground import LabHost, Plan
from fanout.fleets.openssh import LoopbackSshd, started_through, stop_server

REMEDY = "run as root of a Linux machine for isolated hosts"


class Loopback:
    def __init__(self, why: str = "") -> None:
        self._server: LoopbackSshd | None = None
        self.limits = (
            "all hosts are loopback addresses of one sshd and share its file system, processes and limits; "
            f"there is no power cut, no partition, no rate= and no cpu= ({why or REMEDY})"
        )

    def build(self, folder: Path, lock: int, plan: Plan, ready: Callable[[int], None]) -> list[LabHost]:
        for option, value in ("rate", plan.rate), ("cpu", plan.cpu), ("init", plan.init):
            if value:
                raise _impossible(f"{option}={value}")
        if not sys.platform.startswith("linux"):
            raise FleetError("a lab needs Linux, which alone has all these loopback addresses; take --fleet local")
        server = self._server = LoopbackSshd(plan.sshd_options, folder).start()
        ready(plan.machines)
        return [
            LabHost(
                i, name, f"127.1.{i >> 8}.{i & 255}", server.port, server.user, server.host_keys, server.pid
            )
            for i, name in enumerate(plan.names(), 1)
        ]

    def remove(self, folder: Path) -> None:
        if self._server is not None:
            self._server.stop()
        else:
            stop_server(folder)

    def power_cut(self, folder: Path, host: LabHost) -> None:
        raise _impossible("a power cut")

    def set_link(self, folder: Path, host: LabHost, up: bool) -> None:
        raise _impossible("a partition")

    def entering(self, host: LabHost, argv: Sequence[str]) -> list[str]:
        return list(argv)

    def processes(self, folder: Path, host: LabHost) -> dict[int, str]:
        found = {}
        for pid in started_through(folder):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            found[pid] = title.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def changed_files(self, folder: Path, host: LabHost) -> list[str]:
        raise _impossible("a list of changed files")


def _impossible(what: str) -> FleetError:
    return FleetError(f"{what} is not possible in a lab without isolated hosts: {REMEDY}")
