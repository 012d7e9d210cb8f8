"""A zip file of what Python is to import, without compression: one file is quicker to make than a folder of them.

By hand, because the import of `zipfile` costs more than the rest of what a machine's first program needs.
The format: PKWARE, APPNOTE.TXT 6.3.10, 4.3.
"""

from __future__ import annotations

import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 20  # of the format: all readers know it
DAY = 0x21  # 1 January 1980, the first that there is


def archive(files: Mapping[str, bytes]) -> bytes:
    """The bytes of a zip file that holds these files, by ASCII name."""
    body, directory = [], []
    at = 0
    for name, data in files.items():
        path = name.encode("ascii")
        fields = (VERSION, 0, 0, 0, DAY, zlib.crc32(data), len(data), len(data), len(path), 0)
        directory.append(struct.pack("<4sH5H3L5H2L", b"PK\1\2", VERSION, *fields, 0, 0, 0, 0, at) + path)
        body.append(struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + path + data)
        at += len(body[-1])
    size = sum(len(entry) for entry in directory)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(directory), len(directory), size, at, 0)
    return b"".join([*body, *directory, end])
