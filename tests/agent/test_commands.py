"""Commands on one real agent: what they are given, what comes back, and how they end."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanout.agent.core import frames
from tests.agent.parent import Parent, gone
from tests.patience import LIMITS


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    with Parent(tmp_path_factory.mktemp("agent")) as parent:
        yield parent


def test_argv_reaches_the_program_word_for_word(agent: Parent) -> None:
    words = ["a b", "", "$HOME", "*", "'\"", "é☃", "new\nline", "{unknown}", "{"]
    assert agent.run(argv=["printf", "[%s]", *words])[2].decode() == "".join(f"[{word}]" for word in words)


def test_a_string_is_for_the_shell(agent: Parent) -> None:
    assert agent.run(shell="echo out; echo err >&2; exit 3") == ["failed", 3, b"out\n", b"err\n", 0]


def test_templates_are_filled_in_at_the_machine(agent: Parent) -> None:
    assert agent.run(argv=["echo", "{id} {name}-{role} {address}"])[2] == b"0 peer-7-peer 10.0.0.7\n"
    assert agent.run(shell="echo {id} $X", env={"X": "<{name}>"})[2] == b"0 <peer-7>\n"
    assert agent.run(argv=["pwd"], cwd="/{name}/..")[0] == "failed"


def test_the_environment_is_the_machine_s_own_with_ours_added(agent: Parent) -> None:
    shown = agent.run(shell="env", env={"A": "1", "HOME": "/nowhere"})[2].decode().splitlines()
    assert {"A=1", "HOME=/nowhere", "FANOUT_ID=0", "FANOUT_NAME=peer-7", "FANOUT_ROLE=peer",
            "FANOUT_ADDRESS=10.0.0.7", "FANOUT_RUN=r1"} <= set(shown)
    (path,) = [line for line in shown if line.startswith("PATH=")]
    assert path.endswith(":" + os.environ["PATH"])  # before it, the folder of the `fanout` helper


def test_programs_start_in_the_run_s_folder_or_where_they_are_told(agent: Parent) -> None:
    work = agent.run(argv=["pwd"])[2].decode().strip()
    assert Path(work).parent.parent == agent.folder
    assert Path(work).parent.stat().st_mode & 0o777 == 0o700
    assert agent.run(argv=["pwd"], cwd="/")[2] == b"/\n"


def test_standard_input_is_what_was_given_or_empty(agent: Parent) -> None:
    data = bytes(range(256)) * 4000
    assert agent.run(argv=["cat"], stdin=data, capture=2 << 20)[2] == data
    assert agent.run(argv=["cat"])[:3] == ["ok", 0, b""]
    assert agent.run(argv=["true"], stdin=data)[0] == "ok"  # one that does not read it


def test_nothing_but_its_three_descriptors_is_open_in_a_program(agent: Parent) -> None:
    look = "for n in $(seq 0 40); do [ -e /proc/$$/fd/$n ] && echo $n; done; true"
    assert agent.run(shell=look)[2] == b"0\n1\n2\n"


@pytest.mark.parametrize(("spec", "code", "words"), [
    ({"argv": ["no-such-program"]}, 127, "cannot start no-such-program: No such file"),
    ({"argv": ["/etc/passwd"]}, 126, "cannot start /etc/passwd: Permission denied"),
    ({"argv": ["/tmp"]}, 126, "cannot start /tmp: Permission denied"),
    ({"argv": ["true"], "cwd": "/no/such/folder"}, 127, "cannot start in /no/such/folder: No such file"),
    ({"argv": ["true"], "cwd": "/etc/passwd"}, 126, "cannot start in /etc/passwd: Not a directory"),
    ({"argv": ["true", "x" * 200_000]}, 126, "cannot start true: Argument list too long"),
    ({"argv": ["true", "a\0b"]}, 126, "cannot start true: Invalid argument"),
    ({"argv": ["true"], "env": {"A=B": "c"}}, 126, "cannot start true: Invalid argument"),
])
def test_what_cannot_be_started_fails_and_says_why(
        agent: Parent, spec: dict[str, object], code: int, words: str) -> None:
    outcome, got, out, err, cut = agent.run(**spec)
    assert (outcome, got, out, cut) == ("failed", code, b"", 0) and words in err.decode()


def test_exit_codes_and_signals_are_told_apart(agent: Parent) -> None:
    assert agent.run(shell="exit 255")[:2] == ["failed", 255]
    assert agent.run(shell="kill -SEGV $$")[:2] == ["failed", -11]
    # Signals that the agent ignores itself must be alive in what it starts.
    for name, number in ("PIPE", 13), ("HUP", 1), ("INT", 2), ("TERM", 15):
        assert agent.run(shell=f"kill -{name} $$; exit 0")[:2] == ["failed", -number]


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\xff\xfe invalid", b"no newline", b"a\r\nb\n", b"\n\n"])
def test_output_comes_back_byte_for_byte(agent: Parent, data: bytes) -> None:
    assert agent.run(argv=["tee", "/dev/stderr"], stdin=data)[2:] == [data, data, 0]


def test_output_beyond_the_cap_is_cut_and_counted(agent: Parent) -> None:
    _, _, out, err, cut = agent.run(shell="head -c 5000000 /dev/zero; printf 12345 >&2", capture=1000)
    assert (len(out), err, cut) == (1000, b"12345", 4_999_000)
    assert agent.run(shell="head -c 3000000 /dev/zero")[4] == 3_000_000 - (1 << 20)


def test_a_cap_larger_than_a_message_is_cut_too(agent: Parent) -> None:
    outcome, _, out, err, cut = agent.run(shell="head -c 5000000 /dev/zero | tee /dev/stderr", capture=100 << 20)
    assert outcome == "ok" and len(out) + len(err) + cut == 10_000_000 and cut > 0


def test_output_of_a_daemon_left_behind_does_not_hold_the_command(agent: Parent) -> None:
    _, code, out, _, _ = agent.run(shell="(sleep 300; echo late) & echo $!")
    assert code == 0 and int(out) > 0


def test_a_timeout_kills_the_whole_group(agent: Parent) -> None:
    def struck(shell: str) -> Any:
        """By a timeout, once it has printed something."""
        return next(answer for limit in LIMITS if (answer := agent.run(shell=shell, timeout=limit))[2])

    assert gone(int(struck("trap '' TERM; (trap '' TERM; sleep 301) & echo $!; sleep 302")[2]))
    assert struck("echo before; sleep 303")[:3] == ["timed out", -15, b"before\n"]


def test_more_commands_than_may_run_at_once_wait_their_turn(agent: Parent) -> None:
    calls = [agent.send(frames.RUN, {"shell": f"sleep 0.1; echo {i}"}) for i in range(80)]  # 64 may run
    assert [int(agent.answer(call)[2]) for call in calls] == list(range(80))


@pytest.mark.parametrize("spec", [
    {}, {"argv": []}, {"argv": [7]}, {"argv": 7}, {"shell": 7}, 7, None,
    {"argv": ["true"], "env": {"A": 1}}, {"argv": ["true"], "env": 5}, {"argv": ["cat"], "stdin": "text"},
    {"argv": ["true"], "cwd": 3}, {"argv": ["true"], "timeout": "soon"}, {"argv": ["true"], "capture": "1k"},
])
def test_nonsense_is_refused_with_a_reason_and_costs_no_turn(agent: Parent, spec: object) -> None:
    calls = [agent.send(frames.RUN, spec) for _ in range(70)]  # more than may run at once
    for call in calls:
        answer = agent.answer(call)
        assert isinstance(answer, str) and answer, answer
    assert agent.run(argv=["true"])[0] == "ok"


def test_one_that_waits_its_turn_may_be_nonsense(agent: Parent) -> None:
    calls = [agent.send(frames.RUN, {"shell": "sleep 0.1"}) for _ in range(64)] + [agent.send(frames.RUN, {})]
    assert "argv" in agent.answer(calls[-1])
    assert agent.run(argv=["true"])[0] == "ok"


def test_what_a_process_is_asked_makes_sense_or_is_refused(agent: Parent) -> None:
    assert "no process 999" in agent.answer(agent.send(frames.PROCESS, [999, "stop", 1.0]))
    for body in (None, [], [1], {}):
        assert isinstance(agent.answer(agent.send(frames.PROCESS, body)), str)
