"""The parent's side of starting an agent on a machine: stub, stage 0, payload.  Pure.

    parent                                  machine
    command line: python3 -I -S -c STUB     (by ssh, or as a child process)
    stage 0, as text, and a line    ->
                                    <-      fanout-stage0 MAGIC VERSION new|attached
    new: sizes and hashes, agent    ->
                                    <-      HELLO: from here on it is a link

The line is `start`, or `attach FOLDER` where an agent of the run may still be there: then that one takes the
connection over (attached), and no other is started.

A login shell that prints a banner does no harm: everything before the greeting is passed over.
"""

from __future__ import annotations

from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GREETING = b"\nfanout-stage0 "
BANNER_MOST = 64 << 10  # bytes of other output before the greeting

# One line, no single quotes, nothing that any login shell would touch inside single quotes.
_STUB = 'import os;b=b"";exec("while len(b)<%d:b+=os.read(0,%d-len(b))or 1/0");exec(b)'


def stub(stage0: bytes) -> str:
    """The argument of `python3 -I -S -c`: takes exactly `stage0` from stdin and runs it."""
    return _STUB % (len(stage0), len(stage0))


def opening(stage0: bytes, folder: str | None) -> bytes:
    """What the parent writes first; `folder` is that of an agent that may be there already: a
    path, or a name in the machine's temporary folder."""
    line = "start" if folder is None else "attach " + folder.encode().hex()
    return stage0 + line.encode() + b"\n"


class Payload:
    """The agent as bytes: source for any Python, and code for the Pythons it was compiled for."""

    def __init__(self, build: str, stage0: bytes, source: bytes, codes: dict[str, bytes]) -> None:
        self.build = build
        self.stage0 = stage0
        self.source = source
        self.codes = codes
        """By the magic number of the Python's compiled code, in hexadecimal."""
        self._offers: dict[tuple[bytes, bytes], bytes] = {}
        """Made once for children that are alike, by what is in them: at most three."""

    def offer(self, magic: str, relay: bool) -> bytes:
        """What a machine that greeted with `magic` is sent; a relay also gets what its children may need."""
        code = self.codes.get(magic, b"")
        source = self.source if relay or not code else b""
        made = self._offers.get((code, source))
        if made is None:
            head = " ".join("%d %s" % (len(b), blake2b(b, digest_size=32).hexdigest()) for b in (code, source))
            made = self._offers[code, source] = head.encode() + b"\n" + code + source
        return made


class Bootstrap:
    """Reads what a starting machine prints until its greeting is complete."""

    def __init__(self) -> None:
        self._buffer = b"\n"
        self.banner = b""
        """What came before the greeting."""
        self.magic = ""
        self.version = ""
        self.attached = False
        """An agent was there already, and has taken the connection."""

    def feed(self, data: bytes) -> bytes | None:
        """None: not yet.  Otherwise the bytes after the greeting.  ValueError: too much, or too old a Python."""
        self._buffer += data
        at = self._buffer.find(GREETING)
        end = self._buffer.find(b"\n", at + 1) if at >= 0 else -1
        if end < 0:
            if len(self._buffer) > BANNER_MOST:
                raise ValueError(
                    "its login printed %d KiB and no agent started: it should print to terminals only, [ -t 1 ]" % (
                        BANNER_MOST >> 10))
            return None
        self.banner = self._buffer[1:at]
        words: Any = self._buffer[at + len(GREETING) : end].decode("ascii", "replace").split()
        if words[:1] == ["old"]:
            raise ValueError("python3 is %s; 3.8 or newer is needed" % words[-1])
        if len(words) != 3:
            raise ValueError("greeted with %r" % (words,))
        self.magic, self.version = words[:2]
        self.attached = words[2] == "attached"
        return self._buffer[end + 1 :]

    def noise(self) -> bytes:
        """What was printed so far, when no greeting came."""
        return self._buffer[1:]
