"""What the machines said, folded: one finding for all that said the same.  Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fanout.names import fold
from fanout.root.doctor.finding import STARTUPS, Finding, Level, space

SKEW = 0.5  # s; times in reports and logs of machines that differ more are not to be compared
SESSIONS = 2  # what one connection needs of sshd's MaxSessions


def survey(answers: Mapping[str, dict[str, Any] | str]) -> list[Finding]:
    """Name -> what the probe said there, folded over the machines."""
    findings, said = [], {}
    silent: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if isinstance(answer, str):
            silent.setdefault(answer, []).append(name)
        else:
            said[name] = answer
    for why, those in silent.items():
        findings.append(Finding(Level.FAIL, "command", f"{fold(those)}: {why}", "log in there, and try python3"))
    for version, those in _folded(said, lambda one: one["python"]):
        findings.append(Finding(Level.OK, "python", f"Python {version}: {fold(those)}"))
    findings += _spaces(said)
    findings += _skews({name: one["skew"] for name, one in said.items()})
    for limits, those in _folded(said, lambda one: json.dumps(one["sshd"], sort_keys=True)):
        findings.append(_sshd(json.loads(limits), those))
    return findings


def _spaces(said: Mapping[str, dict[str, Any]]) -> list[Finding]:
    found = []
    for base, those in _folded(said, lambda one: one["base"]):
        worst: dict[Level, list[str]] = {}
        for name in those:
            worst.setdefault(space("", said[name]["free"]).level, []).append(name)
        for names in worst.values():
            least = min(said[name]["free"] for name in names)
            found.append(space(f"or more in {base}: {fold(names)}", least))
    return found


def _skews(skews: Mapping[str, float | None]) -> list[Finding]:
    measured = {name: skew for name, skew in skews.items() if skew is not None}
    found = []
    off = [name for name, skew in measured.items() if abs(skew) > SKEW]
    if off:
        worst = max((measured[name] for name in off), key=abs)
        text = f"clocks differ from the root's by up to {abs(worst):.1f} s: {fold(off)}"
        found.append(Finding(Level.WARN, "clock", text, "run NTP there: until then times in logs mislead"))
    right = [name for name in measured if name not in set(off)]
    if right:
        most = max(abs(measured[name]) for name in right)
        found.append(
            Finding(Level.OK, "clock", f"within {max(1, round(most * 1000))} ms of the root's: {fold(right)}")
        )
    unknown = [name for name in skews if name not in measured]
    if unknown:
        found.append(Finding(Level.WARN, "clock", f"could not be compared: {fold(unknown)}", "try again"))
    return found


def _sshd(limits: Mapping[str, str], those: Sequence[str]) -> Finding:
    where = fold(those)
    if not limits:
        return Finding(Level.OK, "sshd", f"its limits cannot be read without root: {where}")
    startups, sessions = limits.get("maxstartups", "?").strip(), limits.get("maxsessions", "?").strip()
    text = f"MaxStartups {startups}, MaxSessions {sessions} (by `sshd -T`): {where}"
    first = startups.partition(":")[0]
    if (first.isdigit() and int(first) < STARTUPS) or (sessions.isdigit() and int(sessions) < SESSIONS):
        remedy = f"MaxStartups {STARTUPS}:30:100 and MaxSessions 10 in sshd_config, then reload sshd"
        return Finding(Level.WARN, "sshd", text, remedy)
    return Finding(Level.OK, "sshd", text)


def _folded(said: Mapping[str, dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> list[tuple[str, list[str]]]:
    """(key, names), the largest group first."""
    groups: dict[str, list[str]] = {}
    for name, one in said.items():
        groups.setdefault(key(one), []).append(name)
    return sorted(groups.items(), key=lambda group: -len(group[1]))
