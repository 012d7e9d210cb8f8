"""The local fleet: machines that are agents on this very machine, without SSH.

On Linux each machine has a loopback address of its own (127.x.y.z), so that members which listen on the same
port do not collide; the `x` comes from the run's id, which keeps two runs at once apart, most of the time.
macOS has 127.0.0.1 alone: there members must choose different ports.  Either way a program that listens on
all addresses takes the port from everyone.
"""

from __future__ import annotations

import sys
import zlib
from typing import ClassVar

from fanout.errors import UsageError
from fanout.fleets import roles
from fanout.fleets.base import Fleet, Host, Progress, Request

DEFAULT_MACHINES = 2
"""The least on which something can be distributed."""
MAX_MACHINES = (1 << 16) - 2
"""The addresses of one 127.x block, without its first and last."""


class LocalFleet(Fleet):
    """`local`: as many machines as are asked for, DEFAULT_MACHINES without a number; there is no spec."""

    name: ClassVar[str] = "local"
    here: ClassVar[bool] = True

    def __init__(self, spec: str = "") -> None:
        if spec:
            raise UsageError(f"--fleet local:{spec}: it takes no further text, write --fleet local")

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        """Nothing is started here: the root starts the agents."""
        machines = roles.total(request.machines, request.roles, DEFAULT_MACHINES)
        if machines > MAX_MACHINES:
            raise UsageError(f"{machines} local machines: at most {MAX_MACHINES} have an address")
        progress(machines, machines)
        # Without leading zeros the names fold into `local-[0-19]` whatever the number.
        return [
            Host(name=f"local-{i}", address=_address(request.run, i), local=True, python=sys.executable)
            for i in range(machines)
        ]

    async def release(self) -> None:
        """The agents are the root's children, and end with the run."""


def _address(run: str, machine: int) -> str:
    if not sys.platform.startswith("linux"):
        return "127.0.0.1"
    # 127.0 is left to services of the machine itself, such as 127.0.0.53 and 127.0.1.1.
    block = 1 + zlib.crc32(run.encode()) % 255
    high, low = divmod(machine + 1, 256)
    return f"127.{block}.{high}.{low}"
