"""A run as JUnit XML, which CI systems show: one test case for the scenario and one for each of its steps."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from fanout.errors import FanoutError
from fanout.report.text import clean, lines
from fanout.root.outcomes import RunOutcome, RunResult


def junit(result: RunResult) -> bytes:
    """The document, with text that XML cannot hold escaped."""
    passed = result.outcome == RunOutcome.PASSED
    broken = result.outcome in (RunOutcome.ERROR, RunOutcome.INTERRUPTED)
    failed_steps = sum(not step["ok"] for step in result.steps)
    suite = ET.Element(
        "testsuite",
        name="fanout",
        tests=str(1 + len(result.steps)),
        failures=str(failed_steps + (not passed and not broken)),
        errors=str(int(broken)),
        time=f"{result.seconds:.3f}",
    )
    whole = _case(suite, "fanout", result.scenario, result.seconds)
    if not passed:
        reason = "\n".join(lines(result.reason))
        told = [f"{f.machine}: {f.outcome}: {f.reason}" for f in result.failures]
        kind = "error" if broken else "failure"
        problem = ET.SubElement(whole, kind, message=reason.split("\n")[0], type=str(result.outcome))
        problem.text = "\n".join([reason, *(clean(line) for line in told)])
    for step in result.steps:
        case = _case(suite, result.scenario, step["name"], step["seconds"])
        if not step["ok"]:
            ET.SubElement(case, "failure", message="the step failed", type="failed")
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def write_junit(path: Path, result: RunResult) -> None:
    try:
        path.write_bytes(junit(result))
    except OSError as error:
        raise FanoutError(f"cannot write {path}: {error.strerror}; name another file with --junit") from error


def _case(suite: ET.Element, group: str, name: str, seconds: float | None) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", classname=clean(group), name=clean(name), time=f"{seconds or 0.0:.3f}"
    )
