"""`fanout doctor`: a line a finding, an exit code, and nothing is left of a visit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fanout.cli.main import main

PROJECT = Path(__file__).parents[2]


def fanout_doctor(*args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args])


def test_a_line_a_finding_and_the_exit_code_tells_whether_any_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = fanout_doctor()
    assert done.exit_code == 0, done.output
    assert all(line[:6] in ("ok    ", "warn  ", "      ") for line in done.stdout.splitlines())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    done = fanout_doctor()
    assert done.exit_code == 1 and "\nfail  state " in done.stdout and "-> " in done.stdout
    found = json.loads(fanout_doctor("--json").stdout)
    assert {"fail"} <= {one["level"] for one in found} and found[0].keys() == {"level", "topic", "text", "remedy"}


def test_a_fleet_that_cannot_be_meant_is_a_usage_error() -> None:
    assert fanout_doctor("--fleet", "nowhere:x").exit_code == 2


def test_a_program_that_makes_no_machines_is_a_failure(tmp_path: Path) -> None:
    program = tmp_path / "make"
    program.write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/calls.txt; echo no rights >&2; [ $1 = down ]\n")
    program.chmod(0o755)
    done = fanout_doctor("--fleet", f"exec:{program}")
    assert done.exit_code == 1 and "failed with exit code 1" in done.stdout and "note: make: no rights" in done.stderr
    assert (tmp_path / "calls.txt").read_text() == "up\ndown\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_doctor_that_is_interrupted_removes_what_was_made(number: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "make"
    program.write_text(f"#!/bin/sh\n[ $1 = down ] && exec touch {tmp_path}/down\necho up >&2; sleep 100\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "fanout.cli", "doctor", "--fleet", f"exec:{program}"]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "note: make: up\n"
        process.send_signal(number)
        assert process.wait(30) == 130
        assert process.stderr.read() == "fanout: interrupted\n"
    assert (tmp_path / "down").exists()
