"""Keys of a run go with it, also when nobody could remove them."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fanout.fleets.keyfolder import KeyFolder, sweep

HOLDER = """
import sys, time
from fanout.fleets.keyfolder import KeyFolder
folder = KeyFolder("fanout-test-")
(folder.path / "login").write_text("a key")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_what_a_killed_owner_has_left_is_removed_by_the_next_and_nothing_else(temporary: Path) -> None:
    others = temporary / "fanout-test-elsewhere"
    (temporary / "kept").mkdir()
    (temporary / "kept/login").write_text("a key")
    others.symlink_to(temporary / "kept")
    owner = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        left = Path(owner.stdout.readline().strip())
        mine = KeyFolder("fanout-test-")
        (mine.path / "login").write_text("a key")
        assert mine.path.stat().st_mode & 0o777 == 0o700
        assert sweep("fanout-test-") == 0 and (left / "login").exists() and (mine.path / "login").exists()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    unlocked = KeyFolder("fanout-test-")
    assert not left.exists() and (mine.path / "login").exists() and (temporary / "kept/login").exists()
    mine.remove()
    unlocked.remove()
    assert sorted(path.name for path in temporary.iterdir()) == ["fanout-test-elsewhere", "kept"]
