"""What is given as a command, pattern, policy, signal or size is checked before anything is sent."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from fanout.errors import UsageError
from fanout.scenario.command import (
    check_logs,
    check_pattern,
    exit_text,
    launch,
    process_name,
    show,
    signal_number,
)
from fanout.scenario.sizes import parse_size


def body(command: Any, **options: Any) -> dict[str, Any]:
    return launch(command, **{"env": None, "cwd": None, "stdin": None, **options})


def test_text_is_for_the_shell_and_a_list_is_not() -> None:
    assert body("a | b")["shell"] == "a | b"
    assert body([Path("/bin/echo"), "a b"])["argv"] == ["/bin/echo", "a b"]
    assert body(["cat"], stdin="é")["stdin"] == b"\xc3\xa9"


@pytest.mark.parametrize("command", ["", " ", [], [""], ["a", 1], [None], ["a\0b"], "a\0b", None, 3, b"ls", {"a": 1},
                                     Path("/bin/ls")])
def test_commands_that_are_none_are_refused(command: Any) -> None:
    with pytest.raises(UsageError):
        body(command)


def test_a_folder_may_be_a_path_and_nothing_else_that_is_no_text() -> None:
    assert body(["true"], cwd=Path("/tmp/{id}"))["cwd"] == "/tmp/{id}"
    with pytest.raises(UsageError, match="cwd=3: give a path"):
        body(["true"], cwd=3)


@pytest.mark.parametrize("stdin", [3, ["a"], True])
def test_input_is_text_or_bytes(stdin: Any) -> None:
    with pytest.raises(UsageError, match="for standard input give text or bytes"):
        body(["true"], stdin=stdin)


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A": 1}, {"A": "\0"}, ["A=1"]])
def test_an_environment_that_is_none_is_refused(env: Any) -> None:
    with pytest.raises(UsageError):
        body(["true"], env=env)


def test_a_command_is_shown_short_and_on_one_line() -> None:
    assert show(["echo", "a b"]) == "echo 'a b'"
    assert len(show("x" * 10_000)) < 200
    assert "\n" not in show(["python3", "-c", "a\nb"])


def test_a_process_is_named_after_its_program() -> None:
    assert process_name(["/usr/bin/python3", "x"], None) == "python3"
    assert process_name("a | b", None) == "sh"
    assert process_name(["/opt/a b/…"], None) == "process"
    assert process_name(["x"], "my-node.1") == "my-node.1"
    for bad in "", "a/b", "..", "a b", "x" * 65, 3:
        with pytest.raises(UsageError, match="no name for a process"):
            process_name(["x"], bad)


def test_bad_patterns_and_policies_are_told() -> None:
    assert check_pattern("a(b)") == "a(b)"
    with pytest.raises(UsageError, match="not a regular expression"):
        check_pattern("a(b")
    for policy in "none", "file", "tail:5", "match:ERROR|head", "all":
        assert check_logs(policy) == policy
    for policy in "", "some", "tail", "tail:x", "match:", "match:(", "file:x", None, True:
        with pytest.raises(UsageError, match="log policy"):
            check_logs(policy)  # type: ignore[arg-type]


def test_signals_have_names() -> None:
    assert {signal_number(value) for value in ("HUP", "sighup", "SIGHUP", 1, signal.SIGHUP)} == {1}
    for bad in "FOO", 0, 999:
        with pytest.raises(UsageError, match="there is no signal"):
            signal_number(bad)


def test_exit_codes_are_told_as_words() -> None:
    assert [exit_text(code) for code in (0, 3, -9, -120)] == [
        "exit 0",
        "exit 3",
        "killed by SIGKILL",
        "killed by signal 120",
    ]


def test_sizes_have_units() -> None:
    assert [parse_size(v) for v in (7, "7", "1KB", "1.5 MB", "2GiB", "64m")] == [
        7,
        7,
        1024,
        3 << 19,
        2 << 30,
        64 << 20,
    ]
    for bad in "", "MB", "-1", "1XB", "1e5", -1, True, None:
        with pytest.raises(UsageError, match="not a number of bytes"):
            parse_size(bad)  # type: ignore[arg-type]
