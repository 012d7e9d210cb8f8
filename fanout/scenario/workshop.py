"""The machine that a scenario is built on: it is sent a working tree, runs the command there, and gives the outputs.

What always holds: it needs no git, no login and no way to the repository; nothing that the command has started outlives
it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fanout.scenario.group import Machine
from fanout.scenario.results import Result
from fanout.scenario.safe_names import SafeNames

PLACE = "build-tree"  # in the folder where commands start
SCRIPT = "build-command"
PLATFORM = "uname -sm; cat /etc/os-release 2>/dev/null || :"
MOST = "64GB"  # of outputs
GRACE = 2.0  # s between TERM and KILL


class Workshop:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def platform(self) -> str:
        """What an output depends on, beside its source: the kind of system, and its release."""
        return (await self.machine.run(PLATFORM)).stdout

    async def run(self, tree: Path, command: str, timeout: float) -> Result:
        """The command's end; `stderr` has its last lines when it failed.  UsageError when the tree cannot be sent."""
        await self.machine.ship(tree, PLACE, timeout=timeout, cache=False)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as script:
            # A file: in a word of a command, `{name}` and the like would be filled in.
            script.write(command)
            script.flush()
            await self.machine.ship(script.name, SCRIPT, cache=False)
        process = await self.machine.spawn(f"cd {PLACE} && exec sh ../{SCRIPT}", name="build", logs="all", stdin="")
        try:
            return await process.wait(timeout)
        finally:
            await process.stop(GRACE)

    async def bring(self, outputs: Sequence[str], into: Path, timeout: float) -> tuple[Path, str]:
        """The folder, below `into`, that has the outputs by name; what was left out, and why."""
        left_out: list[str] = []
        for output in outputs:
            fetched = await self.machine.fetch(f"{PLACE}/{output}", into=into, cap=MOST, total=MOST, timeout=timeout)
            left_out += [what for _, what in fetched.left_out]
        return into / SafeNames().get(self.machine.name), "; ".join(left_out)

    async def clear(self) -> None:
        await self.machine.run(["rm", "-rf", PLACE, SCRIPT], check=False)
