"""The console: what a run looks like in a file, and that no machine can steer a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.report.console import COLOURS, Console, summary
from fanout.report.screen import PENDING
from fanout.report.text import MAX_LINE, MAX_LINES, clean, lines
from fanout.root.outcomes import Failure, Outcome, Report, RunOutcome, RunResult

REPO = Path(__file__).parents[2]


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Shown:
    """A console on two strings; `out` and `err` may be read once, at the end."""

    def __init__(self, **options: object) -> None:
        self.clock = Clock()
        self._out, self._err = io.StringIO(), io.StringIO()
        self.console = Console(self._out, self._err, clock=self.clock, **options)  # type: ignore[arg-type]

    @property
    def out(self) -> str:
        self.console.close()
        return self._out.getvalue()

    @property
    def err(self) -> str:
        self.console.close()
        return self._err.getvalue()


def result(outcome: RunOutcome = RunOutcome.PASSED, **fields: object) -> RunResult:
    return RunResult(run="r", scenario="gossip.py", outcome=outcome, seconds=12.4, **fields)  # type: ignore[arg-type]


def report(text: str, machine: int | None = 17, name: str = "peer-12") -> Report:
    return Report(machine=machine, name=name, seq=1, time=0.0, text=text)


def test_a_phase_is_one_line_when_it_begins_and_one_when_it_ends() -> None:
    shown = Shown()
    for done in range(61):
        shown.console.phase("provision", done, 60)
        shown.clock.now += 0.05
    shown.console.phase("provision", 60, 60)
    shown.console.phase("scenario", 0, 1)
    shown.clock.now += 6
    shown.console.phase("scenario", 1, 1)
    shown.console.phase("tear-down", 0, 0)
    assert shown.err.splitlines() == [
        "provision: 60 to go",
        "provision: 60/60 in 3.0s",
        "scenario ...",
        "scenario: 6.0s",
        "tear-down: 0ms",
    ]
    assert shown.out == ""


def test_reports_and_results_go_to_stdout_and_the_rest_to_stderr() -> None:
    shown = Shown()
    shown.console.report(report("head is 12"))
    shown.console.report(report("wired", machine=1234, name="peer-1230"))
    shown.console.report(report("all wired", machine=None, name="root"))
    shown.console.folded("uptime", [("peer[0-998]", "up 3 days"), ("peer-999", "one\ntwo\n"), ("peer-7", "")])
    shown.console.note("no relays: too few machines")
    shown.console.warning("peer-3 is lost")
    shown.console.step("restart", None, True)
    shown.console.step("restart", 3.14, True)
    shown.console.step("again", 0.2, False)
    assert shown.out.splitlines() == [
        "[017 peer-12] head is 12",
        "[1234 peer-1230] wired",
        "[root] all wired",
        "uptime",
        "peer[0-998] (999): up 3 days",
        "peer-999:",
        "  one",
        "  two",
        "peer-7: (nothing)",
    ]
    assert shown.err.splitlines() == [
        "note: no relays: too few machines",
        "warning: peer-3 is lost",
        "step restart ...",
        "step restart: 3.1s",
        "step again: failed after 200ms",
    ]


def test_quiet_leaves_reports_warnings_and_the_summary_of_a_failure() -> None:
    shown = Shown(quiet=True)
    shown.console.phase("provision", 0, 3)
    shown.console.note("aside")
    shown.console.step("s", 1.0, True)
    shown.console.warning("careful")
    shown.console.report(report("here"))
    shown.console.finished(result())
    assert shown.err == "warning: careful\n"
    assert shown.out == "[017 peer-12] here\n"

    failed = Shown(quiet=True)
    failed.console.finished(result(RunOutcome.FAILED, reason="no quorum"))
    assert "failed: gossip.py in 12s\n  no quorum\n" in failed.err


def test_the_summary_of_a_run() -> None:
    failures = [Failure(f"peer-{i}", Outcome.LOST, "no heartbeat for 10 s") for i in range(3, 6)]
    failures.append(Failure("boot-1", Outcome.FAILED, "exit 2\nmore of it"))
    text = summary(
        result(
            RunOutcome.FAILED,
            reason="2 of 60 did not converge",
            machines={"ok": 56, "lost": 3, "failed": 1, "no python": 0},
            tree={"relays": 4, "depth": 2, "width": 15},
            timings={"provision_s": 1.2, "connect_s": 3.4, "scenario_s": 66.0, "teardown_s": 0.7},
            logs={"bytes_forwarded": 1_234_567, "bytes_dropped": 12},
            metrics={
                "resync_s": {"p50": 1.23456, "count": 60, "sum": 7.0, "unit": "s"}, "peers": 12,
                "spread": {"count": 1, "sum": 0.6, "min": 0.6, "max": 0.6, "unit": "s"},
            },
            failures=failures,
        ),
        Path("/runs/r"),
    )
    assert text == [
        "failed: gossip.py in 12s",
        "  2 of 60 did not converge",
        "  machines  60: 56 ok, 3 lost, 1 failed",
        "  tree      4 relays, depth 2, width 15",
        "  timings   provision 1.2s, connect 3.4s, scenario 1m06s, teardown 700ms",
        "  logs      1.23 MB forwarded, 12 B dropped",
        "  metrics   resync_s: p50 1.235, count 60 (s)",
        "            peers: 12",
        "            spread: 0.6 s",
        "  failures  peer-[3-5] (3): lost: no heartbeat for 10 s",
        "            boot-1: failed: exit 2",
        "  results   /runs/r",
    ]


def test_the_summary_stays_short_however_many_failures() -> None:
    failures = [Failure(f"peer-{i}", Outcome.FAILED, f"exit {i}") for i in range(1000)]
    text = summary(result(RunOutcome.FAILED, machines={"failed": 1000}, failures=failures), None)
    assert len(text) < 20
    assert text[-1].strip() == "and 990 machines more, in result.json"


HOSTILE = "a\x1b[2J\x1b]0;owned\x07\x9b31m\rb\x00\u202e[bold]x[/bold]\ud800"


def test_control_characters_and_markup_from_machines_are_shown_not_obeyed() -> None:
    shown = Shown()
    shown.console.report(report(HOSTILE, name="peer\x1b[31m"))
    shown.console.report(report("one\n[018 peer-13] forged\r\n"))
    shown.console.folded(HOSTILE, [("peer-1", HOSTILE)])
    shown.console.warning(HOSTILE)
    shown.console.note(HOSTILE)
    shown.console.step(HOSTILE, None, True)
    shown.console.step(HOSTILE, 1.0, False)
    shown.console.phase(HOSTILE, 0, 2)
    shown.console.finished(
        result(
            RunOutcome.FAILED,
            reason=HOSTILE,
            metrics={HOSTILE: HOSTILE},
            failures=[Failure("peer-1", Outcome.FAILED, HOSTILE)],
        )
    )
    both = shown.out + shown.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", both)
    assert r"a\x1b[2J\x1b]0;owned\x07\x9b31m\rb\x00\u202e[bold]x[/bold]\ud800" in shown.out
    assert "[017 peer-12] [018 peer-13] forged\n" in shown.out


@given(st.text())
def test_clean_text_is_one_printable_line_and_clean_twice_is_clean_once(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.splitlines()) <= 1
    assert clean(cleaned) == cleaned
    assert cleaned.isprintable() or not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f]", cleaned)
    cleaned.encode()


def test_a_text_without_end_is_cut_and_says_so() -> None:
    assert len(lines("x" * 10**7)[0]) < MAX_LINE + 60
    many = lines("\n".join("x" * 1000))
    assert len(many) == MAX_LINES + 1
    assert "not shown" in many[-1]


def test_an_ascii_stream_still_shows_every_line() -> None:
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, "ascii"), io.StringIO())
    console.report(report("naïve ✓"))
    console.close()
    assert raw.getvalue() == rb"[017 peer-12] na\xefve \u2713" + b"\n"


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as gone:
        err = io.StringIO()
        with Console(gone, err) as console:
            console.report(report("one"))
            console.warning("still here")
        assert "still here" in err.getvalue()


def test_a_stopped_reader_does_not_stop_the_run_and_what_it_missed_is_counted() -> None:
    ours, theirs = os.pipe()
    err = io.StringIO()
    got = []

    def read() -> None:
        with os.fdopen(ours) as pipe:
            got.extend(pipe)

    reader = threading.Thread(target=read)
    total = 3 * PENDING
    with os.fdopen(theirs, "w") as out, Console(out, err) as console:
        for i in range(total):
            console.report(report(f"{i} {'x' * 50}"))  # nobody reads, and this returns
        reader.start()
    reader.join(60)
    missed = int(re.search(r"warning: (\d+) lines are not shown", err.getvalue())[1])  # type: ignore[index]
    assert len(got) + missed == total
    assert 0 < missed < total


def test_what_a_scenario_prints_is_shown_by_whole_lines_in_its_place() -> None:
    both = io.StringIO()
    with Console(both, both, live=False) as console:
        with console.printing():
            for i in range(1000):
                print("out", i)
                console.report(report(str(i)))
                print("err", i, file=sys.stderr)
            print("a\n\x1b[31mb", end="")
            assert sys.stdout.encoding == both.encoding, "all else is the stream's own"
            kept = sys.stdout
        print("after it", file=kept)
    print("later still", file=kept)
    shown = both.getvalue().splitlines()
    assert shown[:-4] == [line for i in range(1000) for line in (f"out {i}", f"[017 peer-12] {i}", f"err {i}")]
    assert shown[-4:] == ["a", "\x1b[31mb", "after it", "later still"]


def test_a_scenario_that_prints_more_than_its_reader_takes_loses_nothing() -> None:
    ours, theirs = os.pipe()
    total = 2 * PENDING
    with os.fdopen(ours) as pipe, os.fdopen(theirs, "w") as out:
        reader = threading.Timer(0.1, lambda: got.extend(pipe))
        got: list[str] = []
        reader.start()
        with Console(out, io.StringIO()) as console, console.printing():
            for i in range(total):
                print(i)
        out.close()
        reader.join(60)
    assert got == [f"{i}\n" for i in range(total)]


def test_plain_output_does_not_import_rich() -> None:
    code = (
        "import sys\n"
        "from fanout.report.console import Console\n"
        "from fanout.root.outcomes import Report, RunResult\n"
        "with Console() as c:\n"
        "    c.report(Report(1, 'a', 1, 0.0, 'x')); c.finished(RunResult('r', 's'))\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('rich', 'asyncssh', 'click')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """What a terminal gets from a small run, both streams on it."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        with Console(terminal, terminal) as console:
            console.phase("connect", 3, 60)
            console.report(report("[bold]hello\x1b[2J"))
            console.finished(result())
        got = b""
        while b"passed: gossip.py" not in got:
            got += os.read(master, 65536)
    os.close(master)
    return got.decode()


def test_a_terminal_gets_a_live_display_with_stable_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    got = on_a_terminal(monkeypatch)
    number = COLOURS[17 % len(COLOURS)][len("color(") : -1]
    assert f"\x1b[38;5;{number}m[017 peer-12] \x1b[0m[bold]hello\\x1b[2J" in got
    assert "\x1b[2J" not in got


def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    got = on_a_terminal(monkeypatch, NO_COLOR="1")
    assert "[017 peer-12] [bold]hello" in re.sub(r"\x1b\[[01]?m", "", got)
    assert "38;5;" not in got


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in on_a_terminal(monkeypatch, TERM="dumb")
