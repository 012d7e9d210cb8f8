"""A machine of a run: the host that a fleet gave, with its id and role in the scenario."""

from __future__ import annotations

from dataclasses import dataclass

from fanout.fleets.base import Host


@dataclass(frozen=True)
class Machine:
    id: int
    """0, 1, 2 ...: its bit in every set of machines."""
    host: Host
    role: str
    """Empty for a scenario without roles."""

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        """What other machines reach it by."""
        return self.host.reached_inside
