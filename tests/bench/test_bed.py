"""What a process says of its own memory, also where there is no /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.bench import bed


def test_memory_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1.0 < bed.memory_now() <= bed.memory_peak() * 1.05 * 1.048576  # MB of either kind

    def missing(path: Path) -> str:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "read_text", missing)
    assert bed.memory_now() == bed.memory_peak() > 0.0
