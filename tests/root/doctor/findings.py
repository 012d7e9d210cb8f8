"""What tests of the doctor share."""

from __future__ import annotations

from collections.abc import Iterable

from fanout.root.doctor import Finding


def levels(findings: Iterable[Finding]) -> list[str]:
    return [str(finding.level) for finding in findings]
