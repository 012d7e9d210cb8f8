"""Whether scenarios would start, without a machine: they load, their parameters make sense, their tree is planned.

What always holds: every file and every scenario is looked at, whatever is wrong with those before it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fanout.errors import UsageError
from fanout.root.planner import plan
from fanout.scenario.build import check as check_build
from fanout.scenario.counts import resolve
from fanout.scenario.decorator import Scenario
from fanout.scenario.loader import beside, scenarios
from fanout.scenario.params import Parameter, parameters

_DECORATED = re.compile(rb"^\s*@(?:\w+\.)*scenario\b", re.MULTILINE)


@dataclass(frozen=True)
class Checked:
    """A scenario that would start."""

    file: str
    scenario: str
    machines: int | None
    """None: as many as the fleet has."""
    roles: dict[str, int]
    tree: dict[str, int] | None
    """relays, depth and width; None without a number of machines."""
    ttl: float | None
    tags: list[str]
    parameters: list[Parameter]
    build: str | None
    """What is built before: a branch or commit, and the repository."""


@dataclass(frozen=True)
class Problem:
    file: str
    scenario: str | None
    """None: the file as a whole."""
    reason: str


@dataclass
class Checks:
    scenarios: list[Checked] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """Python files in folders that have no @scenario; those are not imported."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check(paths: Iterable[Path]) -> Checks:
    """All scenarios of files, and of all Python files in folders.  Loading a file runs what is at its top level."""
    checks = Checks()
    for path in paths:
        if not path.is_dir():
            _file(path, checks)
            continue
        files = list(_in_folder(path))
        if not files:
            checks.problems.append(Problem(str(path), None, f"there is no Python file in {path}"))
        for file in files:
            if _may_have_scenarios(file):
                _file(file, checks)
            else:
                checks.passed_over.append(str(file))
    return checks


def _in_folder(folder: Path) -> Iterator[Path]:
    """Hidden files and folders, and caches, are left out."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") or part == "__pycache__" for part in parts) and path.is_file():
            yield path


def _may_have_scenarios(file: Path) -> bool:
    try:
        return _DECORATED.search(file.read_bytes()) is not None
    except OSError:
        return True  # loading it says why


def _file(path: Path, checks: Checks) -> None:
    # What a file prints while it loads must not mix with our own output.
    with beside(path.parent), redirect_stdout(sys.stderr):
        try:
            found = scenarios(path)
        except UsageError as error:
            checks.problems.append(Problem(str(path), None, str(error)))
            return
        for scenario in found:
            _scenario(path, scenario, checks)


def _scenario(path: Path, scenario: Scenario, checks: Checks) -> None:
    told, reasons = parameters(scenario)
    if scenario.ttl == 0:
        reasons.append("ttl=0 is no time for a run: give it a duration, such as 10m, or leave it out")
    if scenario.build is not None:
        reasons += check_build(scenario.build, (parameter.name for parameter in told))
    tree = None
    machines, roles = scenario.machines, dict(scenario.roles)
    try:
        machines, roles = resolve(scenario, None, {})
        if machines is not None:
            planned = plan(machines, relays=None, depth=None, width=None)
            tree = {"relays": planned.relays, "depth": planned.depth, "width": planned.width}
    except UsageError as error:
        reasons.append(str(error))
    checks.problems += [Problem(str(path), scenario.name, reason) for reason in reasons]
    if not reasons:
        checks.scenarios.append(
            Checked(
                str(path), scenario.name, machines, roles, tree, scenario.ttl, list(scenario.tags), told,
                str(scenario.build) if scenario.build is not None else None)
        )
