"""The command line: exit codes, what reaches the runner, and that help costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fanout.cli import run as cli_run
from fanout.cli.main import COMMANDS, main
from fanout.errors import FanoutError, FleetError, UsageError
from fanout.root.outcomes import Outcome, Report, RunOutcome, RunResult
from fanout.scenario.observer import Observer
from fanout.version import __version__

REPO = Path(__file__).parents[2]

Execute = Callable[[Path, dict[str, Any], list[Observer]], RunResult]


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("FANOUT_FLEET", "FANOUT_DEBUG"):
        monkeypatch.setenv(name, "")  # so that what a command sets itself is undone too
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "s.py"
    path.touch()
    return str(path)


def fanout(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def stub(
    monkeypatch: pytest.MonkeyPatch, outcome: RunOutcome | BaseException = RunOutcome.PASSED
) -> list[Any]:
    """A runner that ends with the outcome; returns the list of options that it was called with."""
    calls: list[Any] = []

    def execute(path: Path, options: dict[str, Any], observers: list[Observer]) -> RunResult:
        calls.append(options)
        if isinstance(outcome, BaseException):
            raise outcome
        result = RunResult(options["run"], path.name, outcome, machines={Outcome.OK: 2})
        print("printed by the scenario")
        for observer in observers:
            observer.phase("provision", 0, 2)
            observer.report(Report(1, "peer-1", 1, 0.0, "hello"))
            observer.log("peer-1", "node", b"line\n", 1.0)
            observer.finished(result)
        return result

    monkeypatch.setattr(cli_run, "execute", execute)
    return calls


@pytest.mark.parametrize(("words", "error"), [
    (["--bogus"], "No such option '--bogus' (see fanout --help)"),
    (["nosuch"], "there is no command 'nosuch'"),
    (["run"], "Missing argument 'SCENARIO.py' (see fanout run --help)"),
    (["exec", "-w", "a"], "Missing argument '-- COMMAND...' (see fanout exec --help)"),
    (["exec", "-w", "a", "--relays", "x", "--", "true"], "'x' is neither 'auto' nor a number of relays"),
    (["lab", "up", "-n", "0"], "0 is not in the range x>=1 (see fanout lab up --help)"),
    (["run", "{scenario}", "--junit", "/nowhere/there.xml"], "--junit /nowhere/there.xml: there is no folder /nowhere"),
    (["run", "{scenario}", "--run-dir", "/proc/nowhere"], "cannot write /proc/nowhere"),
    (["plan", "-n", "3", "--fleet", "nope"], "there is no fleet 'nope'"),
    (["doctor", "-n", "3"], "-n 3: of which fleet?"),
    (["fetch", "-w", "a", "/x", "{scenario}"], "is no folder"),
])
def test_wrong_input_is_one_line_and_exit_code_2(scenario: str, words: list[str], error: str) -> None:
    done = fanout(*(word.format(scenario=scenario) for word in words))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("fanout: error: ") and done.stderr.count("\n") == 1
    assert error in done.stderr


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_heeded(scenario: str, no_color: str) -> None:
    done = CliRunner().invoke(main, ["doctor"], color=True, env={"NO_COLOR": no_color})
    assert ("\x1b[" in done.stdout) is (not no_color)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (RunOutcome.PASSED, 0),
        (RunOutcome.FAILED, 1),
        (RunOutcome.ERROR, 1),
        (RunOutcome.INTERRUPTED, 130),
        (FanoutError("no"), 1),
        (UsageError("no"), 2),
        (FleetError("no"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(
    outcome: RunOutcome | BaseException, code: int, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, outcome)
    done = fanout("run", scenario)
    assert done.exit_code == code, done.output
    if isinstance(outcome, FanoutError):
        assert "fanout: error: no\n" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_error_is_in_the_result_too(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, FleetError("nobody answers"))
    done = fanout("run", scenario, "--run-dir", str(tmp_path / "out"), "--json")
    written = (tmp_path / "out/result.json").read_text()
    assert done.stdout == written
    assert (json.loads(written)["outcome"], json.loads(written)["reason"]) == ("error", "nobody answers")


@pytest.mark.parametrize(
    ("raised", "outcome", "reason"),
    [(KeyboardInterrupt(), "interrupted", ""), (ZeroDivisionError("oh"), "error", "ZeroDivisionError oh")],
)
def test_a_run_that_ends_without_a_result_gets_one(
    raised: BaseException, outcome: str, reason: str, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, raised)
    written = json.loads(fanout("run", scenario, "--json").stdout)
    assert (written["outcome"], written["reason"]) == (outcome, reason)


def test_what_is_typed_reaches_the_runner(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stub(monkeypatch)
    done = fanout(
        "run", scenario, "restart", "-n", "20", "--role", "boot=2", "--role", "peer=18", "--arg", "x=a=b",
        "--fleet", "lab", "--relays", "4", "--depth", "3", "--width", "2", "--timeout", "5m",
        "--keep", "30m",
        "--connect-timeout", "1m30s", "--lease", "10", "--kex", "k", "--cipher", "c", "--forward-agent", "--yes",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for key in ("run", "place", "live"):
        del calls[0][key]
    assert calls == [
        {
            "name": "restart", "machines": 20, "roles": {"boot": 2, "peer": 18}, "args": {"x": "a=b"},
            "fleet": "lab", "relays": 4, "depth": 3, "width": 2, "timeout": 300.0, "connect_timeout": 90.0,
            "lease": 10.0, "kex": "k", "cipher": "c", "forward_agent": True, "keep": 1800.0, "yes": True,
        }
    ]  # fmt: skip


def test_what_is_not_typed_has_a_default(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stub(monkeypatch)
    monkeypatch.setenv("FANOUT_FLEET", "hosts:nodes.txt")
    assert fanout("run", scenario).exit_code == 0
    for key in ("run", "place", "live"):
        del calls[0][key]
    assert calls == [
        {
            "name": None, "machines": None, "roles": {}, "args": {}, "fleet": "hosts:nodes.txt",
            "relays": None, "depth": None, "width": None, "timeout": None, "connect_timeout": 60.0,
            "lease": 60.0, "kex": None, "cipher": None, "forward_agent": False, "keep": None, "yes": False,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-n", "0"], "-n"),
        (["-n", "-3"], "-n"),
        (["-n", "many"], "-n"),
        (["--role", "peer"], "NAME=N"),
        (["--role", "peer=0"], "1 or more"),
        (["--role", "peer=x"], "1 or more"),
        (["--role", "a=1", "--role", "a=2"], "given twice"),
        (["--arg", "=1"], "KEY=VALUE"),
        (["--relays", "some"], "neither 'auto'"),
        (["--relays", "-1"], "neither 'auto'"),
        (["--depth", "0"], "--depth"),
        (["--timeout", "soon"], "is not a duration"),
        (["--timeout", "0"], "more than 0"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_options_are_usage_errors_before_anything_runs(
    args: list[str], text: str, scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stub(monkeypatch)
    done = fanout("run", scenario, *args)
    assert done.exit_code == 2
    assert text in done.stderr
    assert not calls
    assert not (tmp_path / "state").exists()


def test_a_scenario_that_is_not_there_is_named(scenario: str) -> None:
    done = fanout("run", scenario + "x")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"fanout: error: there is no scenario file {scenario}x")


def test_json_alone_is_on_stdout(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch)
    done = fanout("run", scenario, "--json")
    assert json.loads(done.stdout)["machines"] == {"total": 2, "ok": 2}
    assert "[001 peer-1] hello" in done.stderr
    assert "printed by the scenario" in done.stderr


def test_without_json_reports_are_on_stdout(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch)
    done = fanout("run", scenario)
    assert done.stdout == "printed by the scenario\n[001 peer-1] hello\n"
    assert "provision: 2 to go\n" in done.stderr
    assert "passed: s.py" in done.stderr
    assert fanout("run", scenario, "--quiet").stderr == ""


def test_a_run_leaves_a_folder_and_junit(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch)
    assert fanout("run", scenario, "--junit", str(tmp_path / "j.xml")).exit_code == 0
    latest = tmp_path / "state/fanout/runs/latest"
    assert (latest / "machines/peer-1/node.log").read_bytes() == b"line\n"
    assert json.loads((latest / "result.json").read_text())["outcome"] == "passed"
    assert ET.parse(tmp_path / "j.xml").getroot().get("failures") == "0"


@pytest.mark.parametrize("outcome", [RunOutcome.PASSED, RunOutcome.FAILED, FleetError("no machine")])
def test_what_is_said_of_a_run_whose_result_cannot_be_kept_is_what_holds(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: RunOutcome | BaseException
) -> None:
    stub(monkeypatch, outcome)
    whole = cli_run.execute

    def execute(path: Path, options: dict[str, Any], observers: list[Observer]) -> RunResult:
        (tmp_path / "run" / ".result.json.new").symlink_to("/dev/full")
        return whole(path, options, observers)

    monkeypatch.setattr(cli_run, "execute", execute)
    done = fanout("run", scenario, "--run-dir", str(tmp_path / "run"), "--junit", str(tmp_path / "j.xml"))
    last = done.stderr.rpartition("\n\n")[2]
    broken = f"cannot write {tmp_path}/run/result.json: No space left on device; free some space there"
    if isinstance(outcome, FleetError):
        assert (done.exit_code, done.stderr) == (3, "fanout: error: no machine\n")
    elif outcome == RunOutcome.PASSED:
        assert done.exit_code == 1 and last.startswith("error: s.py") and f"it went well, but {broken}" in last
        assert "passed" not in done.stderr and "it went well" in (tmp_path / "j.xml").read_text()
    else:
        assert done.exit_code == 1 and last.startswith("failed: s.py") and f"warning: {broken}" in done.stderr


def test_an_unexpected_exception_is_called_a_bug(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, ZeroDivisionError("oh"))
    done = fanout("run", scenario)
    assert done.exit_code == 1
    assert "ZeroDivisionError: oh" in done.stderr
    assert "bug in fanout" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in fanout("run", scenario, "--debug").stderr


@pytest.mark.parametrize(("to", "code", "said"), [
    ("> /dev/full", 1, "fanout: error: standard output cannot be written: No space left on device\n"),
    (">&0 <&-", 1, ""), (">&-", 0, ""), ("<&- >/dev/null", 0, ""), (">/dev/null 2>&-", 0, ""),
])
def test_a_standard_stream_that_leads_nowhere_is_no_bug(scenario: str, to: str, code: int, said: str) -> None:
    reader, unread = os.pipe()
    os.close(reader)
    line = f"({sys.executable} -m fanout.cli plan --json -n 9; echo $? > {scenario}.code) {to}"
    with os.fdopen(unread) as pipe:
        done = subprocess.run(["sh", "-c", line], stdin=pipe, capture_output=True, text=True, timeout=60)
    assert (Path(f"{scenario}.code").read_text(), done.stderr) == (f"{code}\n", said)


def test_help_teaches() -> None:
    for args in (["--help"], ["run", "-h"]):
        done = fanout(*args)
        assert done.exit_code == 0
        assert "fanout run scenarios/" in done.stdout
    top = fanout("--help").stdout
    assert all(name in top for name in COMMANDS)
    assert "_FANOUT_COMPLETE=bash_source" in top


def test_an_unknown_command_names_those_there_are() -> None:
    done = fanout("walk")
    assert done.exit_code == 2
    assert ", ".join(COMMANDS) in done.stderr


def test_version() -> None:
    assert __version__ in fanout("version").stdout
    assert fanout("--version").stdout == f"fanout {__version__}\n"


def test_the_table_of_commands_is_true() -> None:
    """Their modules import, and say of themselves what `--help` says of them."""
    for name, (_, text) in COMMANDS.items():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert (command.name, command.get_short_help_str(100)) == (name, text)


def test_help_imports_click_and_little_else() -> None:
    code = (
        "import sys\n"
        "from fanout.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncio', 'asyncssh', 'rich', 'msgpack', 'fanout.root', 'fanout.report'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_which_scenario_of_a_file_ran_is_in_ls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "two.py"
    path.write_text("from fanout import scenario\n" + "".join(
        f"@scenario(machines=1)\nasync def {name}(fleet): pass\n" for name in ("first", "second")))
    for name in ("first", "second"):
        assert fanout("run", str(path), name).exit_code == 0
    second, first = (line for line in fanout("ls").stdout.splitlines() if "two.py" in line)
    assert second.endswith("two.py second") and first.endswith("two.py first")


def test_the_package_itself_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fanout", "version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("fanout "), done.stderr


def test_a_user_without_a_home_is_at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # whom no list of users has
    done = fanout("logs", "nonsense")
    assert (done.exit_code, "no run 'nonsense' in /.local/state/fanout/runs" in done.output) == (2, True), done.output
