"""Commands that not every target has answered: what a machine may have missed is sent again from here.  Pure."""

from __future__ import annotations

from fanout.agent.core import frames


class Outstanding:
    MOST = 64 << 20  # bytes kept; beyond that the oldest are forgotten, and who may have missed them is told of it

    def __init__(self) -> None:
        self.forgotten: dict[int, int] = {}
        """Number -> targets that had not answered it."""
        self._commands: dict[int, tuple[int, int, bytes]] = {}
        self._bytes = 0

    def add(self, number: int, kind: int, targets: int, body: bytes) -> None:
        self._commands[number] = (kind, targets, body)
        self._bytes += len(body)
        while self._bytes > self.MOST and len(self._commands) > 1:
            oldest = next(iter(self._commands))
            self.forgotten[oldest] = self._commands[oldest][1]
            self._remove(oldest)

    def answered(self, number: int, machines: int) -> None:
        """These have it."""
        entry = self._commands.get(number)
        if entry is not None:
            kind, targets, body = entry
            targets &= ~machines
            if targets:
                self._commands[number] = (kind, targets, body)
            else:
                self._remove(number)
        elif self.forgotten.get(number, 0) & ~machines:
            self.forgotten[number] &= ~machines
        else:
            self.forgotten.pop(number, None)

    def unsure(self, machines: int) -> list[int]:
        """The commands that these have not answered, and that cannot be sent again."""
        return [number for number, targets in self.forgotten.items() if targets & machines]

    def _remove(self, number: int) -> None:
        self._bytes -= len(self._commands.pop(number)[2])

    def after(self, number: int, machines: int) -> list[tuple[int, int, int, bytes]]:
        """(number, kind, targets, body) of what these may have missed, in order; what they have they pass over.

        `number` is the last that the topmost had.  Those below it may lack earlier ones, but not the NETWORK, which
        is large, and which came with their first commands.
        """
        return [
            (n, kind, targets & machines, body)
            for n, (kind, targets, body) in sorted(self._commands.items())
            if targets & machines and kind != frames.CONNECT and (n > number or kind != frames.NETWORK)
        ]
