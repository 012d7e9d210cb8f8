"""What a run holds: all that a later command needs to clean up after it, as `machines.json` has it.

It is known at every moment from the first thing that a fleet makes, so that a root which is killed leaves enough to go
by.  There are no secrets in it: keys are named by their paths.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from fanout.errors import UsageError
from fanout.fleets.base import Host
from fanout.root.machine import Machine


@dataclass(frozen=True)
class Holdings:
    run: str
    fleet: str
    """The kind of fleet: `hosts`, `lab` ..."""
    machines: Sequence[Machine] = ()
    parents: Sequence[int | None] = ()
    """Who reaches whom, when it is done again; None: the root."""
    left: Sequence[int] = ()
    """Machines on which something of the run may be: all, until they say otherwise."""
    made: Mapping[str, Any] | None = None
    """What the fleet needs to take back what it made; None when it has made nothing, or has taken it back."""
    kept: float | None = None
    """Until when what the fleet made is kept for a person to look at; seconds since the epoch."""
    ssh: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run's connections: kex, cipher, forward_agent."""
    lease: float = 60.0
    computer: str = field(default_factory=platform.node)
    """Where the root ran: machines that are processes of it, or a lab, are there and nowhere else."""

    def __bool__(self) -> bool:
        return bool(self.left) or self.made is not None

    def as_json(self) -> dict[str, Any]:
        whole = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        whole["machines"] = [
            {"id": machine.id, "role": machine.role, "host": dataclasses.asdict(machine.host)}
            for machine in self.machines
        ]
        return {**whole, "left": list(self.left)}

    @classmethod
    def from_json(cls, whole: Any) -> Self:
        """UsageError when it is nothing that `as_json` has made."""
        try:
            machines = [
                Machine(one["id"], Host(**{**one["host"], "host_keys": tuple(one["host"]["host_keys"])}), one["role"])
                for one in whole["machines"]
            ]
            found = cls(**{**whole, "machines": machines})
            fits = [machine.id for machine in machines] == list(range(len(found.parents)))
            if not fits or not {*found.left} <= {*range(len(machines))}:
                raise TypeError("its machines and their tree do not fit")
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"it is damaged, or of another version of fanout: {error!r}") from None
        return found
