"""`fetch`: files of a set of machines to the root, waited for, or kept for the end of a run that fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Literal

from fanout.agent.core import machineset
from fanout.durations import parse_duration
from fanout.durations import show as show_duration
from fanout.errors import UsageError
from fanout.root.fetching import Fetch, Intake
from fanout.root.fetching import told as words
from fanout.root.landing import SIZE_MOST
from fanout.root.outcomes import Outcome
from fanout.scenario import command, failures
from fanout.scenario.command import Place
from fanout.scenario.context import Context
from fanout.scenario.failures import FetchFailed, Trouble
from fanout.scenario.group import Group, Machine, bits_of
from fanout.scenario.safe_names import SafeNames
from fanout.scenario.sizes import parse_size

When = Literal["always", "on_failure"]


class Fetched:
    """What was brought, and what was not."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._files: dict[int, list[Path]] = {}
        self.bytes = 0
        """Of content, holes not counted."""
        self.left_out: list[tuple[Group, str]] = []
        """(machines, what was not brought and why)"""

    @property
    def files(self) -> dict[Machine, list[Path]]:
        """Where the files of each machine are now; machines without any are not in it."""
        return {self._context.machines[machine]: files for machine, files in sorted(self._files.items()) if files}

    @property
    def machines(self) -> Group:
        """Those that something came from."""
        return Group(self._context, machineset.of(machine for machine, files in self._files.items() if files))

    def __getitem__(self, machine: Machine) -> list[Path]:
        bits_of(self._context, machine)
        return self._files.get(machine.id, [])

    def __repr__(self) -> str:
        return f"<Fetched {sum(map(len, self._files.values()))} files from {self.machines}>"

    def take(self, intakes: dict[int, Intake]) -> None:
        for machine, intake in intakes.items():
            self._files[machine] = intake.files
            self.bytes += intake.bytes
        self.left_out = [(Group(self._context, bits), what) for bits, what in told(intakes)]


async def fetch(
    context: Context, bits: int, pattern: Place, *, into: str | Path, when: When, cap: str | int, total: str | int,
    timeout: str | float,
) -> Fetched:
    seconds = parse_duration(timeout)
    if when not in ("always", "on_failure"):
        raise UsageError(f"fetch(when={when!r}): write 'always' or 'on_failure'")
    if not bits:
        raise UsageError(f"fetching {pattern}: the group is empty")
    pattern = command.place(pattern, "pattern")
    if not pattern.strip("/."):
        raise UsageError(f"fetch({pattern!r}): name files, such as 'results/*.json'")
    place = placed(context, into)
    sizes = min(parse_size(cap), SIZE_MOST), parse_size(total)
    fetched = Fetched(context)

    async def bring(bits: int, seconds: float) -> None:
        work = Fetch(context.session, place, *sizes)
        call = work.begin(bits, pattern)
        try:
            with context.doing(f"fetching {pattern} from {context.names(bits)}"):
                await work.wait(seconds)
            late = work.open_yet()
        finally:
            work.close()
        fetched.take(work.intakes)
        for machines, what in fetched.left_out:
            context.observer.warning(f"{machines}: {what}")
        troubles = [
            Trouble(intake.failed, machineset.single(machine), Outcome.FAILED)
            for machine, intake in work.intakes.items() if intake.failed
        ]
        troubles += [Trouble(reason, machines, Outcome.FAILED) for machines, reason in call.refused]
        over = machineset.of(machine for machine, intake in work.intakes.items() if intake.over)
        troubles += [
            Trouble(reason, machines, outcome) for machines, outcome, reason in context.why_down(call.lost & ~over)
        ]
        if late:
            troubles.append(Trouble(f"not complete within {show_duration(seconds)}", late, Outcome.TIMED_OUT))
        if troubles:
            bad = machineset.count(reduce(or_, (trouble.bits for trouble in troubles)))
            head = f"fetching {pattern} failed on {bad} of {machineset.count(bits)} machines"
            raise FetchFailed(failures.message(context, head, troubles), failures.failures(context, troubles), fetched)

    if when == "on_failure":
        context.on_failure.append(lambda most: bring(bits & context.session.up, min(seconds, most)))
    else:
        await bring(bits, seconds)
    return fetched


def placed(context: Context, into: str | Path) -> Callable[[int], Path]:
    """Where the files of each machine go.  UsageError where that cannot be."""
    if not isinstance(into, str | Path) or ".." in Path(into).parts:
        raise UsageError(f"into={into!r}: give a folder below the machine's part of the run's folder, or a whole path")
    if Path(into).is_absolute():
        names = SafeNames()
        return lambda machine: Path(into) / names.get(context.machines[machine].name)
    keep = context.keep
    if keep is None:
        raise UsageError(f"into={str(into)!r}: this run keeps no folder; give a whole path")
    return lambda machine: keep(context.machines[machine].name) / into


def told(intakes: dict[int, Intake]) -> list[tuple[int, str]]:
    """(machines, what is to be known): equal words of many machines once."""
    found: dict[str, int] = {}
    for machine, intake in intakes.items():
        for text in words(intake):
            found[text] = found.get(text, 0) | machineset.single(machine)
    return [(bits, text) for text, bits in found.items()]
