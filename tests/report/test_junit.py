"""JUnit XML: the cases of a run, and that any text gives a document that parses."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.errors import FanoutError
from fanout.report.junit import junit, write_junit
from fanout.root.outcomes import Failure, Outcome, RunOutcome, RunResult


def test_a_failed_run_has_a_case_for_itself_and_one_for_each_step() -> None:
    result = RunResult("r", "gossip.py", RunOutcome.FAILED, "no quorum\ndetails", 3.5)
    result.steps = [
        {"name": "wire", "seconds": 1.0, "ok": True},
        {"name": "cut", "seconds": None, "ok": False},
    ]
    result.failures = [Failure("peer-1", Outcome.LOST, "silent")]
    suite = ET.fromstring(junit(result))
    assert suite.attrib == {"name": "fanout", "tests": "3", "failures": "2", "errors": "0", "time": "3.500"}
    assert [case.get("name") for case in suite] == ["gossip.py", "wire", "cut"]
    assert [[child.tag for child in case] for case in suite] == [["failure"], [], ["failure"]]
    assert suite[0][0].get("message") == "no quorum"
    assert suite[0][0].text == "no quorum\ndetails\npeer-1: lost: silent"


def test_a_passed_run_has_no_failure_and_a_broken_one_an_error() -> None:
    assert b"<failure" not in junit(RunResult("r", "s", RunOutcome.PASSED))
    assert ET.fromstring(junit(RunResult("r", "s", RunOutcome.ERROR, "bang"))).get("errors") == "1"


@given(st.text(), st.text())
def test_any_text_gives_a_document(reason: str, name: str) -> None:
    result = RunResult("r", name, RunOutcome.FAILED, reason)
    result.failures = [Failure(name, Outcome.FAILED, reason)]
    result.steps = [{"name": name, "seconds": 1.0, "ok": False}]
    ET.fromstring(junit(result))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FanoutError, match=r"cannot write .*/no/x\.xml.*--junit"):
        write_junit(tmp_path / "no" / "x.xml", RunResult("r", "s"))
