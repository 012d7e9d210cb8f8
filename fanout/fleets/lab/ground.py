"""What a lab stands on: the words that the isolated hosts and the loopback fallback share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class LabHost:
    """One host of a lab that is up."""

    number: int
    """1, 2, 3 ..."""
    name: str
    address: str
    port: int
    user: str
    host_keys: tuple[str, ...]
    """As `type base64`."""
    pid: int
    """Its init process, as this machine numbers it; the shared sshd where hosts are not isolated."""


@dataclass(frozen=True)
class Plan:
    """What was asked of a lab."""

    machines: int
    rate: str | None = None
    """Link speed of each host, each way, such as `100mbit`; None is as fast as the machine can."""
    cpu: float | None = None
    """Cores that each host may use, 0.5 being half of one; None is without a cap."""
    sshd_options: Mapping[str, str] = field(default_factory=dict)
    init: Sequence[str] = ()
    """What each host's first process becomes in place of sshd; then nobody waits for an sshd to listen."""

    def names(self) -> list[str]:
        """`lab-001` and on, of one width, so that they fold."""
        width = max(3, len(str(self.machines)))
        return [f"lab-{i:0{width}d}" for i in range(1, self.machines + 1)]


class Ground(Protocol):
    """How hosts are made and handled, all in a lab's folder and under names derived from it."""

    limits: str
    """What this kind cannot do, for the user to read; empty when nothing."""

    def build(self, folder: Path, lock: int, plan: Plan, ready: Callable[[int], None]) -> list[LabHost]:
        """Make the hosts, and `folder/id`, the key to them.

        `ready` hears how many are up; `lock` is inherited by whoever may outlive us.
        """

    def remove(self, folder: Path) -> None:
        """Undo all or part of `build`, whoever did it, but for plain files in the folder; idempotent."""

    def power_cut(self, folder: Path, host: LabHost) -> None: ...

    def set_link(self, folder: Path, host: LabHost, up: bool) -> None: ...

    def entering(self, host: LabHost, argv: Sequence[str]) -> list[str]:
        """The command that runs this one in the host."""

    def processes(self, folder: Path, host: LabHost) -> dict[int, str]: ...

    def changed_files(self, folder: Path, host: LabHost) -> list[str]: ...
