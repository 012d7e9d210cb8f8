"""The logs of a run are lines in the order they were printed, whatever machine printed them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.report import logs
from fanout.report.folder import RunFolder
from fanout.report.logs import find, merged
from fanout.root.outcomes import Report


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder("r1", scenario="s.py", fleet="local", path=tmp_path / "run")


def texts(folder: RunFolder, **options) -> list[str]:
    folder.close()
    return [f"{line.machine}:{line.process} {line.text.decode()}" for line in merged(find(folder.path), **options)]


def test_lines_of_all_machines_come_in_the_order_of_time(folder: RunFolder) -> None:
    folder.log("b", "p", b"first\nthird, be", 10.0)
    folder.log("a", "p", b"second\n", 11.0)
    folder.log("b", "p", b"gun before\nfifth\n", 12.0)
    folder.log("a", "q", b"fourth\nlast", 11.5)
    assert texts(folder) == [
        "b:p first", "b:p third, begun before", "a:p second", "a:q fourth", "a:q last", "b:p fifth"]


def test_a_line_has_the_time_of_its_begin_and_what_is_asked_for_is_picked(folder: RunFolder) -> None:
    for second in range(10):
        folder.log("m", "p", b"line %d\n" % second, 100.0 + second)
    folder.log("n", "p", b"other\n", 200.0)
    assert texts(folder, since=108.0) == ["m:p line 8", "m:p line 9", "n:p other"]
    assert texts(folder, pattern=re.compile(rb"[37]$")) == ["m:p line 3", "m:p line 7"]
    assert [log.machine for log in find(folder.path, lambda machine, process: machine == "n")] == ["n"]


def test_a_last_line_without_an_end_has_the_time_of_its_begin_too(folder: RunFolder) -> None:
    folder.log("m", "p", b"with an end\n", 100.0)
    folder.log("m", "p", b"none", 200.0)
    folder.log("n", "p", b"nothing else", 150.0)
    assert texts(folder) == ["m:p with an end", "n:p nothing else", "m:p none"]
    assert texts(folder, since=120.0) == ["n:p nothing else", "m:p none"]


def test_what_was_collected_whole_stands_for_what_was_forwarded(folder: RunFolder) -> None:
    folder.log("m", "p", b"part\n", 1.0)
    whole = folder.machine("m") / "collected"
    whole.mkdir()
    (whole / "p.log").write_bytes(b"a\npart\nb\n")
    (whole / "p.times").write_text("0 0.500\n2 1.000\nnonsense\n")
    assert texts(folder) == ["m:p a", "m:p part", "m:p b"]


def test_reports_stand_where_they_were_said_those_of_a_machine_in_their_order(folder: RunFolder) -> None:
    folder.log("a", "p", b"second\n", 11.0)
    for machine, name, text, when in ((0, "a", "third", 12.0), (0, "a", "fourth", 11.9), (1, "b", "first", 10.0),
                                      (None, "root", "last", 13.0)):
        folder.report(Report(machine, name, 1, 5000.0 * when, text, {}, when))
    with (folder.path / "reports.jsonl").open("a") as file:
        file.write('nonsense\n{"name": "a"}\n[]\n{"name": "cut by a cra')
    folder.close()
    reports = logs.Reports(folder.path)
    lines = list(merged(find(folder.path), reports=reports))
    assert [(line.machine, line.process, line.text) for line in lines] == [
        ("b", None, b"first"), ("a", "p", b"second"), ("a", None, b"third"), ("a", None, b"fourth"),
        ("root", None, b"last")]
    assert list(reports.read()) == [], "each is read once"
    with (folder.path / "reports.jsonl").open("a") as file:
        file.write('sh", "text": "", "fields": {}, "when": 14.0}\n')
    assert [line.machine for line in reports.read()] == ["cut by a crash"]
    assert [line.text for line in logs.Reports(folder.path, lambda machine: machine == "b").read()] == [b"first"]
    assert [line.machine for line in logs.Reports(folder.path, tail=100).read()] == ["cut by a crash"]


def test_without_times_lines_are_there_all_the_same(folder: RunFolder) -> None:
    folder.log("m", "p", b"x\ny", 5.0)
    folder.close()
    (folder.machine("m") / "p.times").unlink()
    assert texts(folder) == ["m:p x", "m:p y"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\x00", b"\n")), max_size=20), st.integers(1, 9))
def test_whatever_is_logged_in_whatever_pieces_comes_back(pieces: list[bytes], chunk: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "CHUNK", chunk)
        with RunFolder("r", scenario="s", fleet="f", path=Path(base) / "run") as folder:
            for number, piece in enumerate(pieces):
                folder.log("m", "p", piece, float(number))
        found = list(merged(find(folder.path)))
    whole = b"".join(pieces)
    expected = whole.removesuffix(b"\n").split(b"\n") if whole else []
    assert [line.text for line in found] == expected
    assert [line.time for line in found] == sorted(line.time for line in found)
