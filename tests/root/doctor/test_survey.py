"""What machines say is folded, and what is bad among it has a remedy."""

from __future__ import annotations

from typing import Any

from fanout.root.doctor import Level
from fanout.root.doctor.survey import survey
from tests.root.doctor.findings import levels


def answer(**options: Any) -> dict[str, Any]:
    limits = {"maxstartups": "10:30:100", "maxsessions": "10"}
    return {"python": "3.11.2", "base": "/tmp", "free": 5 << 30, "skew": 0.001, "sshd": limits, **options}


def test_what_machines_say_is_folded() -> None:
    answers: dict[str, dict[str, Any] | str] = {f"n{i}": answer() for i in range(20)}
    assert levels(survey(answers)) == ["ok"] * 4
    assert all("n[0-19]" in finding.text for finding in survey(answers))
    answers["n3"] = answer(free=1 << 20, python="3.8.1")
    answers["n4"] = answer(skew=-7.25, sshd={"maxstartups": "2:50:3", "maxsessions": "1"})
    answers["n5"] = answer(skew=None, sshd={})
    answers["n6"] = "it did not answer"
    bad = [finding for finding in survey(answers) if finding.level is not Level.OK]
    assert [(str(one.level), one.topic, one.text.rpartition(": ")[2]) for one in bad] == [
        ("fail", "command", "it did not answer"), ("fail", "space", "n3"), ("warn", "clock", "n4"),
        ("warn", "clock", "n5"), ("warn", "sshd", "n4"),
    ]  # fmt: skip
    assert all(one.remedy for one in bad) and "7.2 s" in bad[2].text
