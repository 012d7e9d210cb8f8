"""An agent from its first byte to its last: every Python, what it costs, and that nothing of it stays."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from fanout.agent.core import blocks, frames, machineset
from fanout.agent.core import node as tree
from fanout.agent.core.bootstrap import opening
from fanout.agent.proctree import children
from fanout.root.payload import payload
from tests.agent.parent import TIMEOUT, Parent, gone
from tests.pythons import pythons

ESCAPED = "(setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' &); sleep 400"
LEASE = 4.0  # s; the root is heard every 2


def escaped(agent: Parent) -> int:
    """The pid of something that has left its group, session and parent, and takes no notice of TERM."""
    call = agent.spawn(shell=ESCAPED, logs="all")
    agent.until(lambda: b"\n" in agent.logs.get(call, b""))
    return int(agent.logs[call])


# Every Python.

@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "source"])
def test_it_works_under_every_python(each_python: str, compiled: bool, tmp_path: Path) -> None:
    with Parent(tmp_path, each_python, compiled=compiled) as agent:
        facts = agent.events[0, tree.UP, b""][0][1]
        assert os.path.basename(each_python).endswith(".".join(facts["python"].split(".")[:2]))
        assert agent.run(shell="echo {id}; exit 3") == ["failed", 3, b"0\n", b"", 0]
        call = agent.spawn(shell="echo ready; while read x; do echo $x; done", ready="ready", logs="match:w.rld")
        agent.answer(call, tree.READY, 1)
        agent.tell(call, "write", b"hello\nworld\n", False)
        agent.until(lambda: agent.logs.get(call) == b"world\n")
        assert agent.tell(call, "stop", 2.0) == ""
        head = blocks.entry(blocks.FILE, b"", 0, 0, b"")
        digest = blocks.Digest()
        digest.add(blocks.check(0, head))
        ship = {"size": len(head), "bytes": len(head), "digest": digest.result(len(head)), "to": "none",
                "mode": 0o640, "cache": False}
        assert "No module" in agent.answer(agent.send(frames.SHIP, ship)), "what a command needs has come too early"
        assert agent.answer(agent.send(frames.PART, payload().parts["files"])) is None
        call = agent.send(frames.SHIP, ship)
        block = blocks.encode(0, head, blocks.check(0, head), True)
        agent.node.children[agent.machine].send(frames.BULK, frames.DATA, call, b"", block)
        assert agent.answer(call) == ["ok", ""]
        assert agent.run(shell="stat -c %a-%s none")[2] == b"640-0\n"
        assert agent.end()[2] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("child", pythons())
def test_a_relay_brings_up_a_child_of_any_python(child: str, tmp_path: Path) -> None:
    relay = pythons()[0] if child != pythons()[0] else sys.executable
    with Parent(tmp_path, relay, relay=True) as agent:
        identity = dict(agent.identity, id=1, name="child", relay=False)
        agent.send(frames.CONNECT, {
            "children": [{"id": 1, "identity": identity, "local": True, "python": child}],
            "stage0": payload().stage0, "seconds": TIMEOUT})
        agent.until(lambda: (1, tree.UP, b"") in agent.events or (1, tree.DOWN, b"") in agent.events)
        assert (1, tree.UP, b"") in agent.events, agent.events
        both = machineset.of([0, 1])
        call = agent.send(frames.RUN, {"shell": "echo {name}"}, both)
        agent.until(lambda: sum(m for m, _ in agent.events.get((call, tree.DONE, b""), [])) == both)
        assert sorted((m, v[2]) for m, v in agent.events[call, tree.DONE, b""]) == [(1, b"peer-7\n"), (2, b"child\n")]
        agent.ended = True
        call = agent.send(frames.END, {"grace": 0.5}, both)
        agent.until(lambda: sum(m for m, _ in agent.events.get((call, tree.ENDED, b""), [])) == both)
    assert list(tmp_path.iterdir()) == []


# What it costs.

def test_an_idle_agent_is_small_and_sleeps(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        agent.run(argv=["true"])
        since, before = time.monotonic(), agent.status("voluntary_ctxt_switches")
        agent.until(lambda: time.monotonic() - since > 4.5)
        assert agent.status("voluntary_ctxt_switches") - before <= 9
        assert agent.status("VmRSS") <= 14_000  # kB; 12 MB is the aim, on 3.11


# Ends.

def test_end_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        pid = escaped(agent)
        agent.run(shell="mkdir -p a/b; ln -s / a/root; touch a/b/c; chmod 500 a/b; chmod 0 a")
        agent.send(frames.RUN, {"argv": ["sleep", "401"]})
        assert agent.end(grace=0.1)[2] == []
        assert gone(pid, 0)
    assert list(tmp_path.iterdir()) == []


def test_after_the_lease_without_the_root_all_is_gone(tmp_path: Path) -> None:
    with Parent(tmp_path, lease=LEASE) as agent:
        pid = escaped(agent)
        agent._in.close()
        assert gone(pid) and agent.process.wait(TIMEOUT) == 0
        assert agent.complaint() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_hangs_is_a_root_that_is_gone(tmp_path: Path) -> None:
    with Parent(tmp_path, lease=LEASE) as agent:
        pid = escaped(agent)
        assert gone(pid) and agent.process.wait(TIMEOUT) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_ends_the_run_and_goes_at_once_leaves_nothing(tmp_path: Path) -> None:
    with Parent(tmp_path) as agent:
        pid = escaped(agent)
        agent.send(frames.END, {"grace": 0.3})
        agent._in.close()
        assert gone(pid) and agent.process.wait(TIMEOUT) == 0
        assert agent.complaint() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("welcomed", [True, False])
def test_sigterm_ends_it_tidily(tmp_path: Path, welcomed: bool) -> None:
    agent = Parent(tmp_path)
    agent.launch()
    agent.greet()
    pid = 0
    try:
        if welcomed:
            agent.until(lambda: (0, tree.UP, b"") in agent.events)
            pid = escaped(agent)
        else:
            # Its HELLO is there, so it is up; hold back the answer.
            agent.node.drop_child(agent.machine)
            agent.turn(TIMEOUT)
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(TIMEOUT) == 0 and agent.complaint() == ""
        assert not pid or gone(pid, 0)
    finally:
        agent.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


NONSENSE = {"zeros": b"\0" * 100, "ones": b"\xff" * 100, "route": frames.encode(0, frames.RUN, 999, b"\1", b"{")}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_a_parent_that_talks_nonsense_is_left(tmp_path: Path, data: bytes) -> None:
    with Parent(tmp_path) as agent:
        pid = escaped(agent)
        agent._in.write(data)
        assert agent.process.wait(TIMEOUT) == 0 and agent.complaint() == ""
        assert gone(pid, 5.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["stage 0", "offer", "hello"])
def test_a_parent_that_goes_before_the_link_is_there_leaves_nothing(tmp_path: Path, stage: str) -> None:
    agent = Parent(tmp_path)
    agent.launch()
    try:
        if stage == "offer":
            from fanout.root.payload import payload

            agent._in.write(opening(payload().stage0, None))
            os.read(agent._out.fileno(), 100)
        elif stage == "hello":
            agent.greet()
            agent.node.drop_child(agent.machine)
        agent._in.close()
        agent.process.wait(TIMEOUT)
        assert "Traceback" not in agent.complaint() or stage == "stage 0"
    finally:
        agent.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


# A folder that cannot be made.

def refusal(agent: Parent) -> str:
    """Why an agent leaves right after it was welcomed."""
    agent.ended = True
    agent.launch()
    agent.greet()
    try:
        agent.until(lambda: (0, tree.DOWN, b"") in agent.events)
        ((_, (outcome, reason)),) = agent.events[0, tree.DOWN, b""]
        assert agent.process.wait(TIMEOUT) == 0 and agent.complaint() == ""
        return f"{outcome}: {reason}"
    finally:
        agent.__exit__(None, None, None)


def test_a_folder_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "fanout-r1-0").mkdir()
    (tmp_path / "fanout-r1-0" / "precious").touch()
    assert "cannot make its folder" in (said := refusal(Parent(tmp_path))) and "File exists" in said
    assert (tmp_path / "fanout-r1-0" / "precious").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(Parent(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal(Parent(tmp_path / "file"))


def test_what_it_starts_holds_nothing_of_the_link(tmp_path: Path) -> None:
    """A program that writes to what it thinks is the agent's output does no harm, and dies with the agent."""
    with Parent(tmp_path) as agent:
        call = agent.spawn(shell="echo up; read it", ready="up")  # what is up opens and closes nothing any more
        agent.answer(call, tree.READY, 1)
        (pid,) = children(agent.process.pid)
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        ours = {os.readlink(f"/proc/self/fd/{pipe.fileno()}") for pipe in (agent._in, agent._out, agent._err)}
        assert not links & ours
        agent.process.kill()
        agent.process.wait()
        assert gone(pid) and call
    (tmp_path / "fanout-r1-0").joinpath("work").rmdir()
