"""What a host proves itself with, as text: `TYPE BASE64`."""

from __future__ import annotations

import base64


def whole(key: str) -> bool:
    """It can be a public key: strings, each with its size before it, of which the first is the type (RFC 4253, 6.6)."""
    kind, _, text = key.partition(" ")
    try:
        blob = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    strings, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        strings.append(blob[at + 4 : end])
        at = end
    return at == len(blob) and len(strings) > 1 and strings[0] == kind.encode()
