"""Long-lived processes on one real agent: output and its policies, waiting for lines, stopping, starting again."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.agent.core import frames
from fanout.agent.core.node import DONE, EXITED, MATCHED, READY, STARTED
from fanout.agent.process import GATHER
from tests.agent.parent import Parent, gone

STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    with Parent(tmp_path_factory.mktemp("agent")) as parent:
        yield parent


def kept(agent: Parent, name: str) -> bytes:
    """What is in the files of a process, oldest first."""
    (folder,) = agent.folder.glob("fanout-*")
    return b"".join(path.read_bytes() for path in (folder / f"{name}.log.0", folder / f"{name}.log") if path.exists())


def watch(agent: Parent, process: int, pattern: str, from_start: bool) -> int:
    """The number of a watch that is set up for certain."""
    call = agent.send(frames.PROCESS, [process, "watch", pattern, "start" if from_start else "now"])
    agent.run(argv=["true"])  # commands are done in order
    return call


# Output.

AWKWARD = b"\0\xff\xfe\r\nhead is 1\n" + b"x" * 3_000_000 + b"\nERROR no newline"


@pytest.mark.parametrize(("policy", "forwarded", "files"), [
    ("none", b"", b""),
    ("file", b"", AWKWARD),
    ("all", AWKWARD, AWKWARD),
    ("tail:1", b"ERROR no newline", AWKWARD),
    ("match:ERROR|head is", b"head is 1\nERROR no newline", AWKWARD),
])
def test_each_policy_keeps_and_forwards_what_it_says_byte_for_byte(
        agent: Parent, policy: str, forwarded: bytes, files: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(AWKWARD)
    name = policy.partition(":")[0]
    call = agent.spawn(argv=["cat", str(tmp_path / "data")], logs=policy, name=name)
    assert agent.answer(call, EXITED, 1) == [0, False, b""]
    agent.until(lambda: len(agent.logs.get(call, b"")) >= len(forwarded))
    agent.run(argv=["true"])
    assert agent.logs.get(call, b"") == forwarded and kept(agent, name) == files


def test_what_is_printed_line_by_line_travels_many_lines_at_once(agent: Parent) -> None:
    began = time.monotonic()
    call = agent.spawn(shell="for i in $(seq 20000); do echo line; done", logs="all", name="lines")
    assert agent.answer(call, EXITED, 1) == [0, False, b""]
    agent.until(lambda: agent.logs.get(call) == b"line\n" * 20000)
    assert agent.pieces[call] <= (time.monotonic() - began) / GATHER + 10  # after each a rest, full reads excepted


def test_the_oldest_output_is_rotated_out_and_counted(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        call = agent.spawn(shell="seq 100000", cap=100_000)
        assert agent.answer(call, EXITED, 1)[0] == 0
        everything = b"".join(b"%d\n" % i for i in range(1, 100001))
        last = kept(agent, "p")
        assert 50_000 <= len(last) <= 100_000 and everything.endswith(last)
        assert agent.end() == [0, len(everything) - len(last), []]


def test_output_that_can_no_longer_be_kept_is_counted_and_told_at_the_end(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        call = agent.spawn(shell="echo one; read x; seq 10000; read x; seq 10000", cap=1000)
        agent.until(lambda: kept(agent, "p") == b"one\n")
        (folder,) = tmp_path.glob("fanout-*")
        folder.rename(tmp_path / "moved")
        for _ in range(2):
            agent.tell(call, "write", b"go\n", False)
        assert agent.answer(call, EXITED, 1)[0] == 0
        (tmp_path / "moved").rename(folder)
        _, rotated, problems = agent.end()
        assert rotated > 90_000 and problems == ["p: its output could not be kept: No such file or directory"]


def test_a_flood_for_a_root_that_does_not_read_swells_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        before = agent.status("VmRSS")
        size = 8_000_000
        call = agent.spawn(shell=f"yes 123456789012345 | head -c {size}", logs="all")
        (folder,) = tmp_path.glob("fanout-*")
        # It reads as much as its buffers hold, and then no more, though nobody takes anything from it.
        log, last, since = folder / "p.log", -1, time.monotonic()
        while time.monotonic() - since < 0.5:
            if (now := log.stat().st_size) != last or not now:
                last, since = now, time.monotonic()
        assert 0 < last < 2_000_000
        assert agent.status("VmHWM") - before < 4_000  # kB
        assert agent.answer(call, EXITED, 1)[0] == 0
        agent.until(lambda: len(agent.logs[call]) == size)
        assert agent.logs[call] == b"123456789012345\n" * (size // 16)
        assert agent.end() == [size, 0, []]


def test_what_a_flood_has_left_under_way_is_at_home_before_the_end_is(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        call = agent.spawn(shell="yes 123456789012345", logs="all")
        agent.until(lambda: len(agent.logs.get(call, b"")) > 1_000_000)
        forwarded, _, problems = agent.end()
        assert (len(agent.logs[call]), problems) == (forwarded, [])


# Lines.

def test_ready_tells_what_the_pattern_matched(agent: Parent) -> None:
    shell = "echo starting; echo listening on 1.2.3.4:5; sleep 300"
    call = agent.spawn(shell=shell, ready=r"listening on (\S+):(\d+)")
    assert agent.answer(call, READY, 1) == ["1.2.3.4", "5"]
    agent.tell(call, "stop", 1.0)


def test_ready_may_be_written_in_pieces_and_without_an_end_of_line(agent: Parent) -> None:
    call = agent.spawn(shell="printf lis; sleep 0.1; printf tening", ready="listening")
    assert agent.answer(call, READY, 1) == ["listening"]


def test_a_watch_sees_what_comes_from_now_on(agent: Parent) -> None:
    call = agent.spawn(shell="echo first one; while read x; do echo $x; done", ready="one")
    agent.answer(call, READY, 1)
    now = watch(agent, call, "one", False)
    agent.tell(call, "write", b"second one\n", False)
    assert agent.answer(now, MATCHED)[:2] == ["second one", ["one"]]
    start = watch(agent, call, "(f\\w+) one", True)
    assert agent.answer(start, MATCHED)[:2] == ["first one", ["first"]]
    agent.tell(call, "stop", 1.0)


def test_a_line_that_is_half_written_when_it_is_watched_is_seen_whole(agent: Parent) -> None:
    call = agent.spawn(shell="printf sync; while read x; do printf $x; done", name="half", logs="file")
    agent.until(lambda: kept(agent, "half") == b"sync")
    calls = [watch(agent, call, "^synchronised$", from_start) for from_start in (False, True)]
    agent.tell(call, "write", b"hronised\\\\n\n", False)
    for each in calls:
        assert agent.answer(each, MATCHED)[0] == "synchronised"
    agent.tell(call, "stop", 1.0)


def test_an_old_half_line_is_not_glued_to_a_later_one(agent: Parent) -> None:
    call = agent.spawn(shell="while read x; do printf $x; done", name="glue")
    first = watch(agent, call, "one", False)
    agent.tell(call, "write", b"one\\\\nab\n", False)
    agent.answer(first, MATCHED)
    agent.tell(call, "write", b"cd\\\\nef\n", False)
    agent.until(lambda: kept(agent, "glue") == b"one\nabcd\nef")
    second = watch(agent, call, "^.*g$", False)
    agent.tell(call, "write", b"g\\\\n\n", False)
    assert agent.answer(second, MATCHED)[0] == "efg"
    agent.tell(call, "stop", 1.0)


def test_the_last_line_counts_without_its_end_and_after_the_process(agent: Parent) -> None:
    call = agent.spawn(shell="echo a; printf last", name="last")
    agent.answer(call, EXITED, 1)
    assert agent.answer(watch(agent, call, "^last$", True), MATCHED)[0] == "last"
    assert agent.answer(watch(agent, call, "never", True), MATCHED) is None
    assert agent.answer(watch(agent, call, "last", False), MATCHED) is None


def test_who_watches_a_process_that_ends_is_told(agent: Parent) -> None:
    call = agent.spawn(shell="read x; exit 3")
    waiting = watch(agent, call, "never", False)
    agent.tell(call, "write", b"", True)
    assert agent.answer(waiting, MATCHED) is None
    assert agent.answer(call, EXITED, 1)[0] == 3


def test_a_bad_pattern_or_policy_is_refused(agent: Parent) -> None:
    call = agent.spawn(argv=["sleep", "300"])
    assert "unterminated" in agent.answer(agent.send(frames.PROCESS, [call, "watch", "(", "now"]), MATCHED)
    agent.tell(call, "stop", 1.0)
    for wrong in {"ready": "("}, {"logs": "match:("}, {"logs": "some"}, {"logs": "tail:x"}, {"argv": []}:
        answer = agent.answer(agent.send(frames.SPAWN, {"argv": ["true"], "name": "p", **wrong}), STARTED, 1)
        assert isinstance(answer, str) and answer


# Its life.

def test_an_exit_tells_code_signal_and_last_words(agent: Parent) -> None:
    call = agent.spawn(shell="seq 2000; echo at last; exit 7", name="words")
    code, stopped, tail = agent.answer(call, EXITED, 1)
    assert (code, stopped) == (7, False) and tail.endswith(b"2000\nat last\n") and len(tail) == 2048
    assert agent.answer(agent.spawn(shell="kill -9 $$"), EXITED, 1)[0] == -9


def test_what_cannot_be_started_says_why(agent: Parent) -> None:
    call = agent.send(frames.SPAWN, {"argv": ["no-such-program"], "name": "p"})
    assert agent.answer(call, STARTED, 1) == "cannot start no-such-program: No such file or directory"
    assert agent.tell(call, "stop", 1.0) == ""


def test_stop_is_term_then_kill(agent: Parent) -> None:
    kind = agent.spawn(shell="trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.02; done", ready="up",
                       logs="all")
    agent.answer(kind, READY, 1)
    assert agent.tell(kind, "stop", 20.0) == ""
    assert agent.answer(kind, EXITED, 1) == [5, True, b""]
    agent.until(lambda: agent.logs[kind].endswith(b"bye\n"))  # some shells tell of their killed `sleep` before
    stubborn = agent.spawn(shell="trap '' TERM; echo up;" + STUBBORN, ready="up")
    agent.answer(stubborn, READY, 1)
    assert agent.tell(stubborn, "stop", 0.1) == ""
    assert agent.answer(stubborn, EXITED, 1) == [-9, True, b""]
    assert agent.tell(stubborn, "stop", 0.1) == ""  # again, for what is gone


def test_stop_reaches_who_has_left_group_session_and_parent(agent: Parent) -> None:
    script = f"""
        setsid sh -c 'echo $$; {STUBBORN.replace("'", '"')}' &
        (setsid sh -c 'echo $$; sleep 304' & )
        (sh -c 'echo $$; exec setsid sleep 305' & )
        sleep 0.1; echo all up; sleep 306"""
    call = agent.spawn(shell=script, ready="all up", logs="all")
    agent.answer(call, READY, 1)
    agent.until(lambda: agent.logs[call].count(b"\n") == 4)
    pids = [int(word) for word in agent.logs[call].split() if word.isdigit()]
    assert len(pids) == 3 and all(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert agent.tell(call, "stop", 0.1) == ""
    assert all(gone(pid, 0) for pid in pids)


def test_stop_leaves_other_processes_alone(agent: Parent) -> None:
    one, other = agent.spawn(argv=["sleep", "307"]), agent.spawn(argv=["sleep", "308"])
    agent.tell(one, "stop", 1.0)
    assert (other, EXITED, (1).to_bytes(4, "big")) not in agent.events
    assert agent.answer(agent.send(frames.PROCESS, [other, "start"])) == (
        "ValueError: it is running already")
    agent.tell(other, "stop", 1.0)


def test_a_stopped_process_starts_again_with_its_input(agent: Parent) -> None:
    call = agent.spawn(argv=["cat"], stdin=b"in\n", logs="all")
    for generation in (1, 2, 3):
        assert agent.answer(call, EXITED, generation)[0] == 0
        if generation < 3:
            assert agent.tell(call, "start") is None
            assert agent.answer(call, STARTED, generation + 1) == ""
    agent.until(lambda: agent.logs[call] == b"in\n" * 3)


def test_a_suspended_process_can_be_stopped(agent: Parent) -> None:
    call = agent.spawn(argv=["sleep", "309"])
    agent.tell(call, "signal", 19)
    assert agent.tell(call, "stop", 5.0) == ""
    assert agent.answer(call, EXITED, 1)[0] == -15


def test_writing_reaches_it_and_may_end_its_input(agent: Parent) -> None:
    call = agent.spawn(argv=["cat"], logs="all", stdin=None)
    data = bytes(range(256)) * 2000
    agent.tell(call, "write", data, False)
    agent.until(lambda: agent.logs.get(call) == data)
    agent.tell(call, "write", b"end", True)
    assert agent.answer(call, EXITED, 1)[0] == 0
    agent.until(lambda: agent.logs[call] == data + b"end")
    assert agent.tell(call, "write", b"more", False) == (
        "ValueError: it is not running, or its input is closed")


def test_two_processes_of_one_name_do_not_mix_their_output(agent: Parent) -> None:
    calls = [agent.spawn(shell=f"echo {word}; echo end", name="twin") for word in ("one", "two")]
    for call in calls:
        agent.answer(call, EXITED, 1)
    assert agent.answer(watch(agent, calls[1], "one|two", True), MATCHED)[0] == "two"


def test_a_name_cannot_lead_out_of_the_folder(agent: Parent, tmp_path: Path) -> None:
    call = agent.send(frames.SPAWN, {"argv": ["echo", "x"], "name": f"../../{tmp_path.name}-escaped"})
    assert "name of a file" in agent.answer(call, STARTED, 1)
    assert not list(agent.folder.parent.glob("*escaped*"))


def test_done_is_not_said_of_other_calls(agent: Parent) -> None:
    assert agent.answer(agent.send(frames.PROCESS, [agent.spawn(argv=["true"]), "dance"]), DONE) == (
        "ValueError: a process cannot 'dance'")
