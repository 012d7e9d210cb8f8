"""How a new parent reaches an agent that has lost its own: a socket in the run's folder.

Stage 0, started on this machine by the new parent, connects and hands over its two ends of the connection; from
then on the link runs over those, without a process in between.
"""

from __future__ import annotations

import _socket
import os
import sys

from .loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .main import Agent


NAME = "attach"  # of the socket; stage 0 knows it too
DESCRIPTORS = "/proc/self/fd"  # a folder that is open has a short name there, however long its path


def listen(agent: Agent, name: str, backlog: int, came: Callable[[int], None]) -> _socket.socket:
    """A Unix socket of that name in the agent's folder; as `Loop.listen`."""
    folder = os.open(os.path.join(agent.folder, "."), os.O_RDONLY)  # its failure names not the folder: that is there
    try:
        short = "%s/%d" % (DESCRIPTORS, folder) if os.path.isdir(DESCRIPTORS) else agent.folder
        return agent.loop.listen(os.path.join(short, name), backlog, came)
    finally:
        os.close(folder)


class AttachPoint:
    def __init__(self, agent: Agent) -> None:
        """OSError when the socket cannot be made."""
        self._agent = agent
        self._socket = listen(agent, NAME, 4, self._came)
        self._holder: _socket.socket | None = None
        """The connection of the stage 0 that waits for us to be done; closing it lets that end."""

    def _came(self, fd: int) -> None:
        peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
        self._agent.loop.watch(fd, READ, lambda _: self._take(peer))

    def _take(self, peer: _socket.socket) -> None:
        self._agent.loop.forget(peer.fileno())
        fds: list[int] = []
        try:
            _, ancillary, _, _ = peer.recvmsg(1, _socket.CMSG_SPACE(8))
            for level, kind, data in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    fds = [int.from_bytes(data[i : i + 4], sys.byteorder) for i in range(0, len(data), 4)]
        except OSError:
            pass
        if len(fds) != 2:
            for fd in fds:
                os.close(fd)
            peer.close()
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        if self._holder is not None:
            self._holder.close()
        self._holder = peer
        self._agent.attach(fds[0], fds[1])

    def close(self) -> None:
        self._agent.loop.forget(self._socket.fileno())
        self._socket.close()
