"""The program's side of the agent's socket.  Runs on the machine, in the `fanout` helper and in members."""

from __future__ import annotations

import _socket
import os

from .core import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Refused(Exception):
    """The agent or the root said no; the text says why.  Members know it as `fanout.SyncFailed`."""


class AgentGone(Exception):
    """There is no run here (any more)."""


class Client:
    def __init__(self) -> None:
        """AgentGone: this program was not started by fanout, or its run has ended."""
        folder = os.environ.get("FANOUT_FOLDER")
        if not folder:
            raise AgentGone("FANOUT_FOLDER is not set: this program was not started by fanout")
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            here = os.open(folder, os.O_RDONLY)
            try:  # by a short name: a socket's path has 107 bytes at most
                short = "/proc/self/fd/%d" % here if os.path.isdir("/proc/self/fd") else folder
                self._socket.connect(short + "/socket")
            finally:
                os.close(here)
        except OSError as error:
            raise AgentGone("the agent in %s does not answer, its run has ended: %s" % (folder, error)) from None
        self._number = 0
        token = os.environ.get("FANOUT_PROCESS", "")
        self.ask("hello", int(token.rpartition("/")[2] or 0))

    def ask(self, op: str, *arguments: Any) -> Any:
        """One request, one answer.  Refused with the reason; TypeError for what is not plain data."""
        self._number += 1
        body = codec.pack([self._number, op] + list(arguments))
        try:
            self._socket.sendall(len(body).to_bytes(4, "big") + body)
            size = int.from_bytes(self._take(4), "big")
            _, ok, value = codec.unpack(self._take(size))
        except OSError as error:
            raise AgentGone("the agent went away: %s" % error) from None
        if not ok:
            raise Refused(value)
        return value

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise AgentGone("the agent went away: the run has ended")
            data += piece
        return data
