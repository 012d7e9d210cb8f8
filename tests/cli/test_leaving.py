"""A run has an end, whatever its scenario left in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import asyncio, threading
from fanout import scenario

async def holds_on():
    while True:
        try:
            await asyncio.sleep(1000)
        except BaseException:
            pass

@scenario(machines=1)
async def tested(fleet):
    {body}
"""


@pytest.mark.parametrize(
    ("body", "outcome", "code", "timeout"),
    [
        ("await holds_on()", "failed", 1, "2s"),
        ("asyncio.create_task(holds_on()); await asyncio.sleep(0)", "passed", 0, "1m"),
        ("await asyncio.to_thread(threading.Event().wait)", "failed", 1, "2s"),
        ("threading.Thread(target=threading.Event().wait).start()", "passed", 0, "1m"),
    ],
)
def test_what_does_not_end_holds_up_no_run(tmp_path: Path, body: str, outcome: str, code: int, timeout: str) -> None:
    path = tmp_path / "stays.py"
    path.write_text(HEAD.format(body=body))
    done = subprocess.run(
        [sys.executable, "-m", "fanout.cli", "run", str(path), "--json", "--timeout", timeout, "--run-dir",
         str(tmp_path / "run")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["outcome"] == outcome, done.stderr
    assert done.returncode == code
    assert "has left a task or a thread that does not end" in done.stderr


def test_what_ends_by_itself_is_waited_for_and_not_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "ends.py"
    path.write_text(HEAD.format(body="threading.Timer(0.1, print, ['it has ended']).start()"))
    done = subprocess.run(
        [sys.executable, "-m", "fanout.cli", "run", str(path), "--run-dir", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "it has ended" in done.stdout
    assert "does not end" not in done.stderr
