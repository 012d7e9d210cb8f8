"""What a file system says of holes is believed as far as it can be: no data is shipped as zeros."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fanout.root.shipping import Source

SIZE = 1 << 20


@pytest.mark.parametrize(("platform", "code"), [("linux", errno.EINVAL), ("darwin", errno.ENXIO)])
def test_a_file_system_that_does_not_tell_of_holes_costs_no_data(
        platform: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENXIO is an answer, all is a hole from there on; on macOS it is not to be trusted."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(SIZE // 2)
        file.write(b"data" * 50_000)
        file.truncate(SIZE)
    with closing(Source(path)) as source:
        digest, sent = source.digest, source.bytes

    def untold(fd: int, at: int, how: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "lseek", untold)
    monkeypatch.setattr(sys, "platform", platform)
    with closing(Source(path)) as source:
        assert (source.digest, source.bytes) == (digest, sent)
