"""The lines of a known_hosts file that apply to one host, so that a relay's `ssh` trusts what the root would.

Reads the file as OpenSSH does (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): lists, `*` and `?`, negation, hashed
names, markers.  What cannot be read applies to nobody.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

from fanout.fleets.hostkey import whole

DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_MARKERS = ("@cert-authority", "@revoked")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


class _Line(NamedTuple):
    order: int
    marker: str
    """`@cert-authority`, `@revoked`, or empty."""
    key: str
    """Type and base64, without the comment."""


class _Hashed:
    """A line whose name is hidden as HMAC-SHA1.

    The salt is hashed once, here: a thousand hosts are each looked up in every such line, and `hmac.digest`
    takes more than twice the time.
    """

    def __init__(self, salt: bytes, digest: bytes, line: _Line) -> None:
        block = (sha1(salt).digest() if len(salt) > 64 else salt).ljust(64, b"\0")  # noqa: S324  the file's format
        self._inner = sha1(bytes(b ^ 0x36 for b in block))  # noqa: S324
        self._outer = sha1(bytes(b ^ 0x5C for b in block))  # noqa: S324
        self._digest = digest
        self.line = line

    def matches(self, name: bytes) -> bool:
        inner = self._inner.copy()
        inner.update(name)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest() == self._digest


class _Patterns(NamedTuple):
    wanted: re.Pattern[str]
    unwanted: re.Pattern[str]
    line: _Line


class KnownHosts:
    """A known_hosts file, or several after each other, parsed once for any number of hosts."""

    def __init__(self, text: str) -> None:
        self._exact: dict[str, list[_Line]] = {}
        self._hashed: list[_Hashed] = []
        self._patterns: list[_Patterns] = []
        for order, line in enumerate(text.splitlines()):
            self._add(order, line.split())

    def lines_for(self, host: str, port: int = 22) -> list[str]:
        """The lines that apply, in order, written for exactly this host and port.

        As with OpenSSH and asyncssh, a host at another port than 22 that has no key under `[host]:port` is
        looked up by its name alone.  Keys revoked under either name stay revoked.  ValueError for a host
        that is neither a name nor an address.
        """
        if not _HOST.fullmatch(host):
            raise ValueError(f"not a host: {host!r}")
        name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
        lines = self._matching(name)
        if port != 22:
            plain = self._matching(host.lower())
            trusted = any(line.marker != "@revoked" for line in lines)
            lines |= {line for line in plain if line.marker == "@revoked"} if trusted else plain
        written = (f"{line.marker} {name} {line.key}".lstrip() for line in sorted(lines))
        return list(dict.fromkeys(written))

    def _add(self, order: int, words: list[str]) -> None:
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or (marker and marker not in _MARKERS):
            return
        names, line = words[0].lower(), _Line(order, marker, f"{words[1]} {words[2]}")
        if words[0].startswith("|"):
            self._add_hashed(words[0], line)
        elif re.search(r"[*?!]", names):
            patterns = names.split(",")
            self._patterns.append(
                _Patterns(
                    any_of([p for p in patterns if not p.startswith("!")]),
                    any_of([p[1:] for p in patterns if p.startswith("!")]),
                    line,
                )
            )
        else:
            for name in names.split(","):
                self._exact.setdefault(name, []).append(line)

    def _add_hashed(self, text: str, line: _Line) -> None:
        try:
            _, magic, salt, digest = text.split("|")
            hashed = _Hashed(
                base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True), line
            )
        except (ValueError, binascii.Error):
            return
        if magic == "1":
            self._hashed.append(hashed)

    def _matching(self, name: str) -> set[_Line]:
        # A hashed line hides one name: once that is known, the line need not be tried for others.
        message = name.encode()
        found = [hashed for hashed in self._hashed if hashed.matches(message)]
        if found:
            self._exact.setdefault(name, []).extend(hashed.line for hashed in found)
            self._hashed = [hashed for hashed in self._hashed if hashed not in found]
        lines = set(self._exact.get(name, ()))
        lines.update(
            each.line
            for each in self._patterns
            if each.wanted.fullmatch(name) and not each.unwanted.fullmatch(name)
        )
        return lines


@lru_cache(maxsize=1)
def of_user() -> KnownHosts:
    """The user's and the machine's known_hosts: what relays are told about keys comes from here."""
    return KnownHosts("\n".join(line for _, line in _lines_of_user()))


def broken_line(host: str, port: int) -> str:
    """`FILE, line N` of the user's where the key for this host is cut or mistyped; empty where there is none."""
    return next((where for where, names in _broken() if names.lines_for(host, port)), "")


@lru_cache(maxsize=1)
def _broken() -> list[tuple[str, KnownHosts]]:
    """(where, whom it was for) of each line without a whole key."""
    found = []
    for where, line in _lines_of_user():
        words = line.split()
        if words and words[0] in _MARKERS:
            words.pop(0)
        if words and not words[0].startswith("#") and not whole(" ".join(words[1:3])):
            found.append((where, KnownHosts(f"{words[0]} - -")))
    return found


def _lines_of_user() -> Iterator[tuple[str, str]]:
    """(where, line)"""
    for name in DEFAULT_KNOWN_HOSTS:
        with contextlib.suppress(OSError):
            text = Path(name).expanduser().read_text(errors="replace")
            yield from ((f"{name}, line {number}", line) for number, line in enumerate(text.splitlines(), 1))


def any_of(patterns: list[str]) -> re.Pattern[str]:
    """Matches what one of the patterns does; nothing, if there are none."""
    texts = ["".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern) for pattern in patterns]
    return re.compile("|".join(texts) if texts else "(?!)")
