"""What machines say of themselves, as it comes in: reports, and the output of their processes.

Each is taken once and in order, whichever way and however often it came.  What is missing, or is no record, is told
as a problem of its machine; what follows is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fanout.agent.core import codec, frames, machineset
from fanout.root.outcomes import Report

if TYPE_CHECKING:
    from fanout.root.session import Session

_WHEN = (float, type(None))
LAST = 200  # characters kept of a machine's last report


class Records:
    def __init__(self, session: Session) -> None:
        self.last_report: dict[int, str] = {}
        """Machine -> the begin of the last report of it."""
        self._session = session
        self._reports: dict[int, int] = {}
        """Machine -> the number of its last report."""
        self._logged: dict[tuple[int, int], int] = {}
        """(machine, process) -> how much of its output has come."""

    def take(self, kind: int, machine: int, data: bytes) -> None:
        take: Callable[..., None]
        try:
            if kind == frames.LOGS:
                take, fields = self._log, codec.fields(data, int, int, bytes, _WHEN)
            else:
                take, fields = self._report, codec.fields(data, int, (int, float), str, dict, _WHEN)
        except codec.ProtocolError as error:
            self._session.complain(machineset.single(machine), f"sent a record that is none: {error}")
            return
        try:
            take(machine, *fields)
        except Exception as error:  # of who takes it here, not of the machine; all else goes on
            asyncio.get_running_loop().call_exception_handler({
                "message": f"what came from {self._session.machines[machine].name} could not be handed on",
                "exception": error})

    def _log(self, machine: int, process: int, offset: int, piece: bytes, when: float | None) -> None:
        session = self._session
        known = self._logged.get((machine, process), 0)
        if offset > known:
            self._missing(machine, f"{offset - known} bytes of the log of process {process}")
        piece = piece[max(0, known - offset) :]  # what came twice, by the old way and the new
        if not piece:
            return
        self._logged[machine, process] = max(known, offset) + len(piece)
        if process in session.streams:
            session.streams[process](machine, piece)
            return
        session.forwarded += len(piece)
        session.on_log(machine, process, piece, self._epoch(when))

    def _epoch(self, when: float | None) -> float:
        """Seconds since the epoch, of an instant that a machine says by the root's clock."""
        now = self._session.now()
        if when is None or not 0.0 <= when <= now:
            when = now  # nobody knows it better
        return self._session.epoch + when

    def _report(
        self, machine: int, seq: int, stamp: float, text: str, fields: dict[str, Any], when: float | None
    ) -> None:
        session = self._session
        known = self._reports.get(machine, 0)
        if seq <= known:
            return
        if seq > known + 1:
            self._missing(machine, f"{seq - known - 1} reports before its {seq}.")
        self._reports[machine] = seq
        self.last_report[machine] = text[:LAST]
        session.on_report(Report(
            machine, session.machines[machine].name, seq, stamp, text, fields, self._epoch(when)))

    def _missing(self, machine: int, what: str) -> None:
        """This must not happen; if it does, it is said, and what follows is taken."""
        if not self._session.settings.heir:  # the old root had it
            self._session.complain(machineset.single(machine), f"{what} did not arrive")
