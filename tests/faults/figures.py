"""What a campaign did and found, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Of any number of runs."""

    faults: Counter[str] = field(default_factory=Counter)
    noticed: dict[str, list[float]] = field(default_factory=dict)
    recovered: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    """Seconds that the tear-down took."""
    runs: int = 0
    machines_lost: int = 0
    reports: int = 0
    log_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    """What was lost, doubled, out of order or left behind: must be empty."""

    def text(self) -> str:
        lines = [f"{self.runs} runs, {sum(self.faults.values())} faults: "
                 + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))]
        for name, values in sorted(self.noticed.items()):
            lines.append(f"  noticed, {name}: {spread(values)}")
        lines.append(f"  recovered (from the loss of the link): {spread(self.recovered)}")
        lines.append(f"  ended (from the word to end): {spread(self.ended)}")
        lines.append(f"  {self.machines_lost} machines lost by fate; {self.reports} reports and {self.log_bytes} "
                     f"bytes of logs arrived; wrong: {len(self.wrong)}")
        return "\n".join([*lines, *(f"  WRONG: {wrong}" for wrong in self.wrong)])


def spread(values: list[float]) -> str:
    if not values:
        return "never"
    values = sorted(values)
    at = lambda share: values[min(len(values) - 1, int(len(values) * share))]  # noqa: E731
    return f"{len(values)} times, median {at(0.5):.2f} s, p99 {at(0.99):.2f} s, most {values[-1]:.2f} s"
