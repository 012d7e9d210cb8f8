"""asyncssh, for the few that use it; imported where SSH is, since that takes 0.2 s.

It asks `ctypes.util.find_library` for liboqs, which few machines have and it does without.  On Linux that ends in
running gcc and ld, where there are any: 40 to 60 ms of CPU at every start.  What they could find can be loaded as
`lib*.so`; so that is tried instead, while asyncssh is being imported.
"""

from __future__ import annotations

import contextlib
import ctypes.util
from typing import Any

_util: Any = ctypes.util
_whole: Any = _util.find_library
_cached: Any = getattr(_util, "_findSoname_ldconfig", None)


def _found(name: str) -> str | None:
    found: str | None = _cached(name)
    if found is None:
        with contextlib.suppress(OSError):
            ctypes.CDLL(f"lib{name}.so")
            found = f"lib{name}.so"
    return found


if _cached is not None:  # not so on other systems, which start nothing
    _util.find_library = _found
try:
    import asyncssh as asyncssh
finally:
    _util.find_library = _whole
