"""Files from the root into the tree: read where they are, once for their hash and then as relays ask for them."""

from __future__ import annotations

import bisect
import errno
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fanout.agent.core import blocks, frames
from fanout.agent.core.blocks import BLOCK, FILE, FOLDER, LINK, ZEROS
from fanout.agent.core.feed import Feed
from fanout.agent.unpack import leads_out
from fanout.errors import UsageError
from fanout.root.call import Call

if TYPE_CHECKING:
    from fanout.root.session import Session

QUEUE = 128 << 10  # bytes of files waiting on one link
READY = 128  # blocks kept as they are sent, for links that are about as far
SAMPLES = 8  # blocks that are compressed to see whether it pays
MOMENT = 0.005  # s that reading and compressing may take between two looks at everything else
PAYS = 0.8  # ... which it does when that leaves less than this
NO_CHECK = bytes(16)


class Changed(Exception):
    """A file was written to since it was hashed; the text is its path."""


class Source:
    """A file or a folder as the stream that `agent.core.blocks` describes.  `close` it."""

    def __init__(self, path: Path, compress: bool = True) -> None:
        """UsageError when it cannot be read.  Blocking: it is read once for its hash."""
        path = path.expanduser()
        self.path = path
        self.name = path.resolve().name
        self._fd = -1
        self._open = -1
        self._starts: list[int] = []
        self._pieces: list[bytes | tuple[Path, tuple[int, int, int]]] = []
        """What begins at each start: the head of an entry, or a file with its (size, mtime, inode)."""
        self.size = 0
        self.bytes = 0
        """Of `size`, those that are not in blocks of zeros."""
        self._holes: list[tuple[int, int]] = []
        self._checks = bytearray()
        self._compress = False
        try:
            state = path.stat()
            self.mode = state.st_mode & 0o777
            self._scan(path, state)
            self.digest = self._hash()
        except Changed as error:
            self.close()
            raise UsageError(f"cannot ship {error}: it changed while it was read; ship it when nothing writes to it"
                             ) from None
        except OSError as error:
            self.close()
            raise UsageError(f"cannot ship {error.filename or path}: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise
        self._compress = compress and self._pays()

    # What it consists of.

    def _scan(self, path: Path, state: os.stat_result) -> None:
        if not stat.S_ISDIR(state.st_mode):
            self._add(path, "", state)
            return
        self._entry(FOLDER, "", self.mode, 0, "")
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(path / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    self._add(path / name, name, entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)

    def _add(self, path: Path, name: str, state: os.stat_result) -> None:
        if stat.S_ISDIR(state.st_mode):
            self._entry(FOLDER, name, state.st_mode & 0o777, 0, "")
        elif stat.S_ISLNK(state.st_mode):
            link = str(path.readlink())
            if leads_out(os.fsencode(name), os.fsencode(link)):
                raise UsageError(f"cannot ship {path}: the link leads out of the folder, to {link}; leave it out, "
                                 "or make it point to what is shipped")
            self._entry(LINK, name, 0, 0, link)
        elif stat.S_ISREG(state.st_mode):
            self._entry(FILE, name, state.st_mode & 0o777 if name else 0, state.st_size, "")
            if state.st_size:
                if sys.platform == "linux" and state.st_blocks * 512 < state.st_size:
                    self._holes += [(self.size + start, self.size + end) for start, end in _holes(path, state.st_size)]
                self._append((path, _same(state)), state.st_size)
        else:
            raise UsageError(f"cannot ship {path}: it is no file, folder or symbolic link")

    def _entry(self, kind: int, name: str, mode: int, size: int, link: str) -> None:
        head = blocks.entry(kind, os.fsencode(name), mode, size, os.fsencode(link))
        self._append(head, len(head))

    def _append(self, piece: bytes | tuple[Path, tuple[int, int, int]], size: int) -> None:
        self._starts.append(self.size)
        self._pieces.append(piece)
        self.size += size

    def _hash(self) -> bytes:
        digest = blocks.Digest()
        holes = iter(self._holes)
        hole = next(holes, None)
        for at in range(0, self.size, BLOCK):
            end = min(at + BLOCK, self.size)
            while hole is not None and hole[1] < end:
                hole = next(holes, None)
            data = ZEROS[: end - at] if hole is not None and hole[0] <= at else self._read(at, end - at)
            if data == ZEROS[: end - at]:
                self._checks += NO_CHECK
            else:
                known = blocks.check(at, data)
                digest.add(known)
                self._checks += known
                self.bytes += len(data)
        return digest.result(self.size)

    def _pays(self) -> bool:
        full = [at for at in range(0, self.size, BLOCK) if self._check(at) != NO_CHECK]
        chosen = full[:: max(1, len(full) // SAMPLES)][:SAMPLES]
        samples = [self._read(at, min(BLOCK, self.size - at)) for at in chosen]
        return sum(len(zlib.compress(data, 1)) for data in samples) < PAYS * sum(map(len, samples))

    def _check(self, offset: int) -> bytes:
        return bytes(self._checks[offset // BLOCK * 16 : offset // BLOCK * 16 + 16])

    # What is sent of it.

    def block(self, offset: int) -> bytes:
        """The block that begins there.  Changed, OSError."""
        known = self._check(offset)
        if known == NO_CHECK:
            end = offset
            while end < self.size and end - offset < blocks.ZEROS_MOST and self._check(end) == NO_CHECK:
                end += BLOCK
            return blocks.zeros(offset, min(end, self.size) - offset)
        return blocks.encode(offset, self._read(offset, min(BLOCK, self.size - offset)), known, self._compress)

    def _read(self, offset: int, size: int) -> bytes:
        parts = []
        at = bisect.bisect_right(self._starts, offset) - 1
        while size:
            piece, inside = self._pieces[at], offset - self._starts[at]
            if isinstance(piece, bytes):
                part = piece[inside : inside + size]
            else:
                part = self._read_file(at, *piece, inside, min(size, piece[1][0] - inside))
            parts.append(part)
            offset += len(part)
            size -= len(part)
            at += 1
        return b"".join(parts)

    def _read_file(self, at: int, path: Path, known: tuple[int, int, int], offset: int, size: int) -> bytes:
        if self._open != at:
            self.close()
            self._fd, self._open = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), at
        data = os.pread(self._fd, size, offset)
        if len(data) != size or _same(os.fstat(self._fd)) != known:
            raise Changed(str(path))
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._open = -1


def _same(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_size, state.st_mtime_ns, state.st_ino


def _holes(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """From and to, in a file.  On Linux: APFS has told of holes where data was (GNU bug 61386)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = 0
        while at < size:
            try:
                data = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # this file system does not tell
                    return
                data = size  # nothing but a hole to the end
            if data > at:
                yield at, data
            at = os.lseek(fd, data, os.SEEK_HOLE) if data < size else size
    finally:
        os.close(fd)


class _Sending:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.feed = Feed(source.size, True, source.size)
        self.problem = ""
        """Why nothing more can be sent."""
        self._ready: dict[int, bytes] = {}

    def block(self, offset: int) -> bytes:
        ready = self._ready.get(offset)
        if ready is None:
            ready = self._ready[offset] = self.source.block(offset)
            if len(self._ready) > READY:
                del self._ready[next(iter(self._ready))]
        return ready


class Shipping:
    """What the root is sending."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sending: dict[int, _Sending] = {}
        self.sent = 0
        """Bytes that were sent so far, of all files, to the root's own children."""

    def ship(self, source: Source, targets: int, to: str, mode: int | None, cache: bool = True) -> Call:
        """DONE of each target tells ["ok", ""] or ["failed", reason].  `over` ends it."""
        call = self._session.call(frames.SHIP, targets, {
            "size": source.size, "bytes": source.bytes, "digest": source.digest, "to": to, "cache": cache,
            "mode": source.mode if mode is None else mode})
        self._sending[call.number] = _Sending(source)
        return call

    def over(self, call: Call) -> None:
        self._sending.pop(call.number, None)

    def wanted(self, child: int, number: int, offset: int, allowed: int, again: bool) -> None:
        sending = self._sending.get(number)
        if sending is None:
            return
        if offset % BLOCK:
            raise ValueError(f"wants what begins at {offset}, where no block does")
        sending.feed.want(child, offset, allowed, again, self._session.now())
        if sending.problem:
            self._session.node.cannot(child, number, sending.problem)

    def pump(self) -> bool:
        """Send what may be sent, as far as links have room; False when there was nothing to send."""
        sent = [self._pump(number, sending) for number, sending in self._sending.items() if not sending.problem]
        return any(sent)

    def _pump(self, number: int, sending: _Sending) -> bool:
        sent, feed, until = False, sending.feed, self._session.now() + MOMENT
        for child in feed.children():
            link = self._session.node.children.get(child)
            if link is None:
                feed.forget(child)
                continue
            while link.queued(frames.BULK) < QUEUE:
                offset = feed.next(child)
                if offset is None:
                    break
                if sent and self._session.now() > until:
                    return True
                try:
                    block = sending.block(offset)
                except (Changed, OSError) as error:
                    sending.problem = f"{error} was written to while it was shipped"
                    if isinstance(error, OSError):
                        sending.problem = f"cannot read {error.filename}: {error.strerror}"
                    for one in feed.children():
                        self._session.node.cannot(one, number, sending.problem)
                    return True
                link.send(frames.BULK, frames.DATA, number, b"", block)
                feed.sent(child, blocks.size_of(block), self._session.now())
                self.sent += len(block)
                sent = True
        return sent
