"""The list of runs: their states, and how one is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fanout.errors import FanoutError, UsageError
from fanout.fleets.base import Host
from fanout.report.folder import RunFolder
from fanout.report.runs import State, every, find, read, take
from fanout.root.holdings import Holdings
from fanout.root.machine import Machine
from fanout.root.outcomes import RunOutcome, RunResult

REPO = Path(__file__).parents[2]

DIES = """
import os, sys
from fanout.report.folder import RunFolder
folder = RunFolder("r2", scenario="s.py", fleet="local")
if sys.argv[1] == "child":
    os.system("sleep 1000 >/dev/null 2>&1 & echo $!")  # what it has started does not hold its lock
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    return tmp_path / "fanout/runs"


def made(name: str) -> RunFolder:
    return RunFolder(name, scenario="s.py", fleet="local")


def test_a_run_is_running_then_ended(state: Path) -> None:
    assert every() == []
    with made("r1") as folder:
        assert [(run.id, run.state, run.outcome) for run in every()] == [("r1", State.RUNNING, "")]
        with pytest.raises(FanoutError, match=f"kill {os.getpid()}"):
            take(find("r1"))
        folder.finished(RunResult("r1", "s.py", RunOutcome.FAILED))
    assert [(run.id, run.state, run.outcome) for run in every()] == [("r1", State.ENDED, "failed")]
    os.close(take(find("r1")))


@pytest.mark.parametrize("how", ["alone", "child"])
def test_a_run_has_died_as_soon_as_its_root_is_gone(state: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, how], stdout=subprocess.PIPE, text=True, check=False)
    try:
        assert done.returncode == -9 and find("last").state is State.DIED
    finally:
        if done.stdout:
            os.kill(int(done.stdout), 9)


def test_the_newest_comes_first_and_what_is_no_run_is_passed_over(state: Path) -> None:
    for name in ("r1", "r2", "r3"):
        made(name).__exit__(None, None, None)
    (state / "other").mkdir()
    (state / "r2" / "run.json").write_text("[broken")
    assert [run.id for run in every()] == ["r3", "r1"] and read(state / "other") is None


def test_a_run_is_named_by_its_first_letters_or_its_folder(state: Path, tmp_path: Path) -> None:
    for name in ("abc-1", "abc-2"):
        made(name).__exit__(None, None, None)
    with RunFolder("x", scenario="s.py", fleet="local", path=tmp_path / "own"):
        pass
    assert find("last").id == find("abc-2").id == "abc-2" and find(str(tmp_path / "own")).id == "x"
    with pytest.raises(UsageError, match="2 runs begin with 'abc'"):
        find("abc")
    with pytest.raises(UsageError, match="no run 'nope'"):
        find("nope")
    with pytest.raises(UsageError, match="not the folder of a run"):
        find(str(tmp_path))


def test_machines_that_the_end_did_not_reach_count_until_their_lease_is_over(state: Path) -> None:
    machine = Machine(0, Host("a", "a"), "")
    with made("r1") as folder:
        folder.holds(Holdings("r1", "hosts", [machine], [None], [0], lease=60.0))
        folder.finished(RunResult("r1", "s.py", RunOutcome.FAILED))
    assert find("r1").leased
    hour_ago = time.time() - 3600.0
    os.utime(state / "r1/result.json", (hour_ago, hour_ago))
    assert not find("r1").leased


def test_what_it_holds_is_read_back_and_is_readable_by_its_user_alone(state: Path) -> None:
    held = Holdings("r1", "exec", [], [], [], made={"printed": "a\udcff"}, kept=1.0)
    with made("r1") as folder:
        folder.holds(held)
    assert find("r1").holdings == held and find("r1").overdue > 0
    written = state / "r1/machines.json"
    assert written.stat().st_mode & 0o777 == 0o600
    written.chmod(0o620)
    assert find("r1").holdings is None and "not yours alone" in find("r1").damaged
