"""The run's folder: what is in it, and that no name or crash can spoil it."""

from __future__ import annotations

import gc
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.errors import FanoutError, UsageError
from fanout.report.folder import OPEN_LOGS, RunFolder, SafeNames, new_run_id, redact, result_text
from fanout.root.outcomes import Report, RunOutcome, RunResult


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "fanout" / "runs"


def folder(run: str = "r1", path: Path | None = None) -> RunFolder:
    return RunFolder(run, scenario="s.py", fleet="local", argv=["fanout", "run"], path=path)


def report(seq: int, **fields: object) -> Report:
    return Report(machine=3, name="peer-3", seq=seq, time=1.5, text="head is 12", fields=fields, when=2.5)


def test_a_run_leaves_its_story(state: Path) -> None:
    with folder() as kept:
        kept.report(report(1, block=12))
        kept.log("peer-3", "node", b"\x00\xff no newline", 1.0)
        kept.log("peer-3", "node", b"\n more", 1.0)
        kept.finished(RunResult("r1", "s.py", RunOutcome.PASSED))
    assert kept.path == state / "r1"
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o700
    assert json.loads((kept.path / "reports.jsonl").read_text()) == {
        "time": 1.5, "when": 2.5, "machine": 3, "name": "peer-3", "seq": 1, "text": "head is 12",
        "fields": {"block": 12},
    }  # fmt: skip
    assert (kept.path / "machines/peer-3/node.log").read_bytes() == b"\x00\xff no newline\n more"
    assert json.loads((kept.path / "result.json").read_text())["outcome"] == "passed"
    about = json.loads((kept.path / "run.json").read_text())
    assert (about["run"], about["fleet"], about["pid"]) == ("r1", "local", os.getpid())
    names = sorted(path.name for path in kept.path.iterdir())
    assert names == ["lock", "machines", "reports.jsonl", "result.json", "run.json"]


def test_latest_is_the_run_that_began_last(state: Path) -> None:
    for run in ("r1", "r2"):
        folder(run).close()
        assert (state / "latest").resolve() == state / run
    assert sorted(p.name for p in state.iterdir()) == ["latest", "r1", "r2"]


def test_a_given_folder_is_made_and_is_not_latest(state: Path, tmp_path: Path) -> None:
    folder(path=tmp_path / "a" / "b").close()
    assert (tmp_path / "a/b/run.json").exists()
    assert not state.exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thing").touch()
    with pytest.raises(UsageError, match="not empty"):
        folder(path=tmp_path)


def test_of_two_runs_that_begin_at_once_in_one_folder_the_second_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder(path=tmp_path):
        monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))  # as it was when the second one looked
        with pytest.raises(UsageError, match="is that of a run that has just begun; name another"):
            folder(path=tmp_path)


def test_what_was_reported_is_there_without_any_end(state: Path) -> None:
    kept = folder()
    kept.report(report(1))
    kept.log("m", "p", b"x", 1.0)
    assert (kept.path / "reports.jsonl").read_text().count("\n") == 1
    assert (kept.path / "machines/m/p.log").read_bytes() == b"x"
    assert not (kept.path / "result.json").exists()
    kept.close()


def test_more_logs_than_open_files_lose_nothing(state: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    gc.collect()  # what tests before have forgotten closes now
    before = descriptors()
    with folder() as kept:
        for turn in (b"1", b"2", b"3"):
            for i in range(OPEN_LOGS * 3):
                kept.log(f"m{i}", "p", turn, 1.0)
        assert descriptors() <= before + 2 * OPEN_LOGS + 2  # each has its times beside it; reports and the lock
        assert {p.read_bytes() for p in kept.path.glob("machines/*/p.log")} == {b"123"}
        assert len(list(kept.path.glob("machines/*"))) == OPEN_LOGS * 3
    assert descriptors() == before


def test_fields_that_json_cannot_say_are_kept_as_text(state: Path) -> None:
    with folder() as kept:
        kept.report(report(1, raw=b"\xff", nan=float("nan"), odd={1: (2, 3), b"k": None}))
        line = (kept.path / "reports.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["fields"] == {
        "raw": "\\xff", "nan": "nan", "odd": {"1": [2, 3], "k": None},
    }  # fmt: skip


def test_hostile_names_stay_inside_and_apart(state: Path) -> None:
    names = ["..", ".", "", "/etc/passwd", "../../x", "a/b", "a\\b", "a\x00b", "Peer", "peer", "PEER", "é",
             "x" * 5000, "x" * 5001, "\ud800", ".hidden", "%2E.", "peer~2", "con\n"]  # fmt: skip
    with folder() as kept:
        for i, name in enumerate(names):
            kept.log(name, name, b"%d" % i, 1.0)
            kept.log(name, "other", b"", 1.0)
        found = [p for p in kept.path.rglob("*.log") if p.read_bytes()]
        assert {int(p.read_bytes()) for p in found} == set(range(len(names)))
        assert {p.parent.parent for p in found} == {kept.path / "machines"}
        assert len({p.parent.name.casefold() for p in found}) == len(names)
    assert [p.name for p in state.iterdir() if p.name != "latest"] == ["r1"]


@given(st.lists(st.text(), unique=True))
def test_safe_names_are_plain_distinct_and_stable(names: list[str]) -> None:
    safe = SafeNames()
    given_out = [safe.get(name) for name in names]
    assert len({name.casefold() for name in given_out}) == len(names)
    assert [safe.get(name) for name in names] == given_out
    for name in given_out:
        assert name.isascii() and "/" not in name and name.isprintable()
        assert not name.startswith(".") and 0 < len(name) < 140


def test_ordinary_names_are_left_alone() -> None:
    assert SafeNames().get("peer-12.eu_west") == "peer-12.eu_west"


def test_a_folder_that_cannot_be_made_names_the_path_and_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FanoutError, match=r"cannot write .*/file/runs/r: Not a directory; make it yours .*--run-dir"):
        folder(path=tmp_path / "file" / "runs" / "r")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
def test_a_full_disk_names_the_file_and_a_remedy(state: Path) -> None:
    with folder() as kept:
        (kept.path / "machines/m").mkdir(parents=True)
        (kept.path / "machines/m/p.log").symlink_to("/dev/full")
        with pytest.raises(FanoutError, match=r"p\.log: No space left on device; free some space"):
            kept.log("m", "p", b"x", 1.0)


def test_run_ids_sort_by_time_and_are_plain() -> None:
    ids = {new_run_id() for _ in range(20)}
    assert len(ids) == 20
    assert all(len(i) == 20 and i.replace("-", "").isalnum() and i.islower() | i.isascii() for i in ids)


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("rounds=5", "rounds=5"),
        ("api_token=abc=d", "api_token=***"),
        ("--arg=PASSWORD=abc", "--arg=PASSWORD=***"),
        ("broker:https://me:pw@broker.example/x", "broker:https://***@broker.example/x"),
        ("hosts:nodes.txt", "hosts:nodes.txt"),
    ],
)
def test_secrets_stay_out_of_run_json(argument: str, kept: str) -> None:
    assert redact(argument) == kept


def test_the_printed_result_is_the_written_one(state: Path) -> None:
    result = RunResult("r1", "s.py", metrics={"x": float("inf")})
    with folder() as kept:
        kept.finished(result)
    assert (kept.path / "result.json").read_text() == result_text(result) + "\n"
