"""A lab: N hosts on this machine, from `up` to `down`, by whichever process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from fanout.errors import FleetError, UsageError
from fanout.fleets.lab import isolated, state, switch
from fanout.fleets.lab.ground import Ground, LabHost, Plan
from fanout.fleets.lab.loopback import Loopback


class Lab:
    """Made by `Lab.up` or found by `Lab.open`; all calls block, for milliseconds but for `up` and `down`."""

    def __init__(self, folder: Path, ground: Ground, hosts: list[LabHost]) -> None:
        self.name = folder.name
        self.hosts = hosts
        self._folder = folder
        self._ground = ground

    @classmethod
    def up(
        cls,
        n: int,
        *,
        name: str | None = None,
        owner: str = "",
        rate: str | None = None,
        cpu: float | None = None,
        sshd_options: Mapping[str, str] | None = None,
        init: Sequence[str] = (),
        isolated_hosts: bool | None = None,
        ready: Callable[[int], None] = lambda count: None,
    ) -> Lab:
        """Make `n` hosts and return when all their sshd listen; after any failure nothing is left.

        `rate` caps each host's link, each way (`100mbit`), `cpu` its processor time (0.5 is half a core).
        `sshd_options` are words of sshd_config, on top of Debian's default limits.  `init` is a program, and
        its arguments, that each host starts with in place of sshd; hosts are up then once it is started.
        `ready` hears how many hosts are up.  `owner` is the run that it is made for.  Where isolated hosts cannot
        be made it falls back to one sshd on many loopback addresses (see `limits`); `isolated_hosts=True` makes
        that a FleetError, False asks for it.
        """
        if not 1 <= n <= switch.MAX_HOSTS:
            raise UsageError(f"a lab has 1 to {switch.MAX_HOSTS} hosts, not {n}")
        if cpu is not None and cpu <= 0:
            raise UsageError(f"cpu={cpu} is not a share of a core: write it like 0.5")
        switch.shape(rate)
        reason = "not asked for" if isolated_hosts is False else isolated.why_not()
        if reason and isolated_hosts:
            raise FleetError(f"no isolated hosts can be made: {reason}")
        ground: Ground = Loopback(reason) if reason else isolated.Isolated()
        folder = state.create(name, owner)
        lab = cls(folder, ground, [])
        try:
            with state.lock(folder) as lock:
                state.write(folder, not reason, [])
                lab.hosts = ground.build(folder, lock, Plan(n, rate, cpu, sshd_options or {}, init), ready)
                state.write(folder, not reason, lab.hosts)
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def open(cls, name: str) -> Lab:
        """The lab of that name, made by any process, even if only half; UsageError without."""
        folder = state.folder(name)
        if not folder.is_dir():
            there = ", ".join(state.names()) or "none at all"
            raise UsageError(f"there is no lab named {name} (there is {there}): fanout lab up --name {name}")
        kind, hosts = state.read(folder)
        return cls(folder, Loopback() if kind is False else isolated.Isolated(), hosts)

    @staticmethod
    def names() -> list[str]:
        """Of all labs of this user, half-made ones too."""
        return state.names()

    @property
    def owner(self) -> str:
        """The run that it was made for; empty when it was made by hand."""
        return state.owner(self._folder)

    @property
    def key(self) -> Path:
        """The file with the private key that may log in to every host."""
        return self._folder / "id"

    @property
    def limits(self) -> str:
        """What this lab cannot do, for the user to read; empty when its hosts are isolated."""
        return self._ground.limits

    def power_cut(self, host: LabHost) -> None:
        """End everything in the host at once, without a word to the network.  It does not come back."""
        self._ground.power_cut(self._folder, host)

    def link_down(self, host: LabHost) -> None:
        """Cut the host off; what runs there goes on."""
        self._ground.set_link(self._folder, host, False)

    def link_up(self, host: LabHost) -> None:
        self._ground.set_link(self._folder, host, True)

    def run_in(
        self, host: LabHost, argv: Sequence[str], timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the host without SSH, to look inside; `timeout` is in seconds."""
        return subprocess.run(
            self._ground.entering(host, argv), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout, check=False)

    def processes(self, host: LabHost) -> dict[int, str]:
        """What runs in the host but for its init: pid as this machine numbers it -> command line."""
        return self._ground.processes(self._folder, host)

    def changed_files(self, host: LabHost) -> list[str]:
        """Paths that the host made, changed or removed (` (deleted)` behind), sorted; also after its end."""
        return self._ground.changed_files(self._folder, host)

    def down(self) -> None:
        """Remove all of it: processes, namespaces, network, mounts, cgroups, files.  Idempotent."""
        if not self._folder.exists():
            return
        with state.lock(self._folder):
            self._ground.remove(self._folder)
            state.remove(self._folder)
        self.hosts = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
