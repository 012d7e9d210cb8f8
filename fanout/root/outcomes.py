"""What became of a machine, a command, a report and a run, as plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Outcome(enum.StrEnum):
    """What became of one machine, or of one command on it.  Nothing is ever merely missing."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    UNREACHABLE = "unreachable"
    AUTH_FAILED = "auth failed"
    HOST_KEY = "host key mismatch"
    NO_PYTHON = "no python"
    LOST = "lost"


class RunOutcome(enum.StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Report:
    """A line that always travels to the root."""

    machine: int | None
    """None: said by the scenario itself, at the root."""
    name: str
    """The machine's name; `root` for the scenario itself."""
    seq: int
    """1, 2, 3 ... per machine, without a gap."""
    time: float
    """Seconds since the epoch, by the clock of the machine that said it."""
    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    when: float = 0.0
    """Seconds since the epoch by the root's clock, as the machine knows it: what orders reports of several machines."""


@dataclass(frozen=True)
class Failure:
    machine: str
    outcome: Outcome
    reason: str


@dataclass
class RunResult:
    """Everything `result.json` holds; `as_json` is its exact shape."""

    run: str
    scenario: str
    outcome: RunOutcome = RunOutcome.ERROR
    reason: str = ""
    """Why it did not pass, in one line or a few; empty when it passed."""
    seconds: float = 0.0
    machines: dict[str, int] = field(default_factory=dict)
    """Outcome -> number of machines."""
    tree: dict[str, int] = field(default_factory=lambda: {"relays": 0, "depth": 0, "width": 0})
    timings: dict[str, float] = field(default_factory=dict)
    """provision_s, connect_s, scenario_s, teardown_s."""
    root: dict[str, float] = field(default_factory=dict)
    """cpu_s, peak_rss_mb, connections, messages_in, messages_out, bytes_in, bytes_out."""
    reports: int = 0
    logs: dict[str, int] = field(default_factory=lambda: {"bytes_forwarded": 0, "bytes_dropped": 0})
    metrics: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """{name, seconds, ok}, in the order they began."""
    failures: list[Failure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What did not make the run fail, and the user should know: machines that broke the protocol, what could not be
    cleaned up or kept."""

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "scenario": self.scenario,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "machines": {"total": sum(self.machines.values()), **self.machines},
            "tree": self.tree,
            "timings": {k: round(v, 3) for k, v in self.timings.items()},
            "root": self.root,
            "reports": {"received": self.reports},
            "logs": self.logs,
            "metrics": self.metrics,
            "steps": self.steps,
            "failures": [[f.machine, str(f.outcome), f.reason] for f in self.failures],
            "problems": self.problems,
        }
