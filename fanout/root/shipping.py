"""Files from the root into the tree: read once for each link of the root's own, hashed before anything is sent."""

from __future__ import annotations

import os
import tarfile
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fanout.agent.core import frames
from fanout.agent.core.feed import Feed
from fanout.errors import UsageError
from fanout.root.call import Call

if TYPE_CHECKING:
    from fanout.root.session import Session

QUEUE = 256 << 10  # bytes of files waiting on one link


class Source:
    """A file, or a folder as an uncompressed tar archive in a temporary file; `with` removes that."""

    def __init__(self, path: Path) -> None:
        """UsageError when it cannot be read.  Blocking: it is read once for its hash."""
        path = path.expanduser()
        self.path = path
        self.name = path.resolve().name
        self.tree = path.is_dir()
        try:
            self.file: BinaryIO = self._archive() if self.tree else path.open("rb")
            state = os.fstat(self.file.fileno())
            self.mode = path.stat().st_mode & 0o777
            digest = blake2b(digest_size=32)
            self.size = 0
            while piece := self.file.read(1 << 20):
                digest.update(piece)
                self.size += len(piece)
        except OSError as error:
            raise UsageError(f"cannot ship {path}: {error.strerror or error}") from None
        if self.size != state.st_size:
            self.file.close()
            raise UsageError(f"cannot ship {path}: it changed while it was read; ship it when nothing writes to it")
        self._state = (state.st_size, state.st_mtime_ns)
        self.digest = digest.digest()

    def _archive(self) -> BinaryIO:
        archive = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry in sorted(self.path.rglob("*")):
                if entry.is_symlink() or entry.is_file() or entry.is_dir():
                    member = tar.gettarinfo(entry, str(entry.relative_to(self.path)))
                    if member.islnk():  # the same file twice: as two files
                        member.type, member.size = tarfile.REGTYPE, entry.stat().st_size
                    if member.isfile():
                        with entry.open("rb") as file:
                            tar.addfile(member, file)
                    else:
                        tar.addfile(member)
                else:
                    raise UsageError(f"cannot ship {entry}: it is no file, folder or symbolic link")
        archive.seek(0)
        return archive

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.file.fileno(), size, offset)

    def changed(self) -> bool:
        """Whether it was written to since it was hashed."""
        state = os.fstat(self.file.fileno())
        return not self.tree and (state.st_size, state.st_mtime_ns) != self._state

    def close(self) -> None:
        self.file.close()


class Shipping:
    """What the root is sending."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sending: dict[int, tuple[Feed, Source]] = {}

    def ship(self, source: Source, targets: int, to: str, mode: int | None) -> Call:
        """DONE of each target tells ["ok", ""] or ["failed", reason].  `over` ends it."""
        body = {
            "size": source.size, "digest": source.digest, "to": to, "tree": source.tree,
            "mode": source.mode if mode is None else mode,
        }
        call = self._session.call(frames.SHIP, targets, body)
        self._sending[call.number] = (Feed(source.size, source.size), source)
        return call

    def over(self, call: Call) -> None:
        self._sending.pop(call.number, None)

    def wanted(self, child: int, number: int, offset: int, allowed: int, again: bool) -> None:
        entry = self._sending.get(number)
        if entry is not None:
            feed = entry[0]
            if again:
                feed.want(child, offset, allowed)
            else:
                feed.more(child, allowed)

    def pump(self) -> bool:
        """Send what may be sent, as far as links have room; False when there was nothing to send."""
        sent = False
        for number, (feed, source) in self._sending.items():
            for child in feed.children():
                link = self._session.node.children.get(child)
                if link is None:
                    feed.forget(child)
                    continue
                while link.queued(frames.BULK) < QUEUE:
                    piece = feed.next(child)
                    if piece is None:
                        break
                    body = piece[0].to_bytes(8, "big") + source.read(*piece)
                    link.send(frames.BULK, frames.DATA, number, b"", body)
                    sent = True
        return sent
