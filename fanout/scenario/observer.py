"""Who watches a run: the console, the run's folder, or nobody.

Called by the runner on the event loop; an observer must not block it.
"""

from __future__ import annotations

from fanout.root.holdings import Holdings
from fanout.root.outcomes import Report, RunResult

PHASES = ("provision", "connect", "scenario", "tear-down")


class Observer:
    """Base with nothing in it: override what is wanted."""

    def phase(self, name: str, done: int, total: int) -> None:
        """One of PHASES moved on; `done == total` ends it.  Called often."""

    def note(self, text: str) -> None:
        """Something the user should read once, such as a fallback taken."""

    def warning(self, text: str) -> None:
        """Something that went wrong without ending the run, such as a lost machine."""

    def report(self, report: Report) -> None:
        """A report arrived."""

    def step(self, name: str, seconds: float | None, ok: bool) -> None:
        """A step of the scenario began (`seconds` None) or ended."""

    def folded(self, title: str, groups: list[tuple[str, str]]) -> None:
        """A folded result to show: (folded machine names, text), largest group first."""

    def log(self, machine: str, process: str, data: bytes, when: float) -> None:
        """Forwarded log bytes of one process, in order, exactly; `when` they were printed, by the root's clock."""

    def holds(self, holdings: Holdings) -> None:
        """What the run holds has changed: made, cleaned, or released."""

    def kept(self, holdings: Holdings, key: str | None) -> None:
        """The machines of a run that failed are kept, until `holdings.kept`; `key` is the text of the private key
        that lets the user in, where the fleet has one of its own."""

    def finished(self, result: RunResult) -> None:
        """The last call."""
