"""What became of a command, folded: machines with equal answers are one entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fanout.agent.core import machineset
from fanout.errors import UsageError
from fanout.root.outcomes import Outcome
from fanout.scenario.command import exit_text
from fanout.scenario.group import Group, Machine

if TYPE_CHECKING:
    from fanout.scenario.context import Context

SHOWN = 8  # lines of a repr


@dataclass(frozen=True)
class Result:
    """One answer, and the machines that gave it."""

    machines: Group
    outcome: Outcome
    code: int | None = None
    """Exit code; below zero: the signal that ended it; None: there is none."""
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""
    cut: int = 0
    """Bytes of output beyond the cap, which are gone."""
    reason: str = ""
    """Why there is no exit code."""
    value: Any = None
    """What a member function returned: plain data, tuples having become lists."""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """What is shown of it: of a member function what it returned, where that is anything."""
        if self.value is not None:
            return repr(self.value)
        return (self.stdout + self.stderr).rstrip() if not self.ok else self.stdout.rstrip()

    @property
    def status(self) -> str:
        """`exit 0`, `killed by SIGKILL`, `timed out`, `lost: no heartbeat`."""
        if self.outcome in (Outcome.OK, Outcome.FAILED) and self.code is not None:
            return exit_text(self.code)
        return f"{self.outcome}: {self.reason}" if self.reason else str(self.outcome)

    def __repr__(self) -> str:
        return f"<Result {self.status}: {self.machines}>"


class Results:
    """The answers of all machines of a command, largest group first."""

    def __init__(self, context: Context, groups: list[Result]) -> None:
        self._context = context
        self.groups = sorted(groups, key=lambda one: (-len(one.machines), machineset.first(one.machines.bits)))

    def __getitem__(self, machine: Machine) -> Result:
        for one in self.groups:
            if machine in one.machines:
                return one
        raise UsageError(f"the command did not run on {machine.name}")

    def __iter__(self) -> Iterator[Result]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def ok(self) -> bool:
        """Whether every machine succeeded."""
        return all(one.ok for one in self.groups)

    @property
    def failed(self) -> Group:
        """The machines that did not."""
        bits = 0
        for one in self.groups:
            bits |= 0 if one.ok else one.machines.bits
        return Group(self._context, bits)

    @property
    def values(self) -> dict[Machine, Any]:
        """What a member function returned on each machine where it did, in the order of their ids."""
        found = {machine.id: (machine, one.value) for one in self.groups if one.ok for machine in one.machines}
        return dict(found[machine] for machine in sorted(found))

    @property
    def stdout(self) -> str:
        """The output, where all machines printed the same; otherwise UsageError."""
        return self._same("stdout_bytes").decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self._same("stderr_bytes").decode("utf-8", "replace")

    @property
    def code(self) -> int | None:
        """The exit code, where it is the same everywhere; otherwise UsageError."""
        codes = {one.code for one in self.groups}
        if len(codes) != 1:
            raise UsageError(f"the exit codes differ: ask by machine, with results[machine]\n{self}")
        return codes.pop()

    def _same(self, which: str) -> bytes:
        values: set[bytes] = {getattr(one, which) for one in self.groups}
        if len(values) != 1:
            raise UsageError(f"the outputs differ: ask by machine, with results[machine]\n{self}")
        return values.pop()

    def folded(self) -> list[tuple[str, str]]:
        """(folded names, what to show), largest group first."""
        shown = []
        for one in self.groups:
            output = one.text
            parts = [] if one.ok else [one.status]
            if one.cut:
                parts.append(f"({one.cut} bytes of output are cut)")
            shown.append((one.machines.folded, "\n".join([*parts, *([output] if output else [])])))
        return shown

    def __str__(self) -> str:
        """`exit 0, same output: peer-[0-998]`, a line for each status."""
        statuses: dict[str, list[Result]] = {}
        for one in self.groups:
            statuses.setdefault(one.status, []).append(one)
        lines = []
        for status, several in statuses.items():
            bits = 0
            for one in several:
                bits |= one.machines.bits
            if len(several) > 1:
                status += f", {len(several)} different outputs"
            elif len(several[0].machines) > 1 and several[0].code is not None:
                status += ", same output"
            lines.append(f"{status}: {self._context.names(bits)}")
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"and {len(lines) - SHOWN} more"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Results {'; '.join(str(self).splitlines())}>"
