"""An agent where the kernel does not list processes, nor ends any with their agent: macOS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.agent import launch
from fanout.agent.core import frames
from tests import elsewhere
from tests.agent.parent import Parent, gone

LEFT = """(trap "" TERM; while :; do sleep 0.05; done) >&2 & echo $!; """  # in the group of a program that ends


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Parent]:
    folder = tmp_path / "f"
    folder.mkdir()
    with Parent(folder, elsewhere.python(tmp_path)) as agent:
        yield agent


def test_it_works_and_the_end_of_the_run_ends_all_that_is_in_the_groups_of_its_programs(agent: Parent) -> None:
    ended = int(agent.run(shell=LEFT)[2])
    call = agent.spawn(shell="echo $$; exec sleep 400", logs="all")
    agent.until(lambda: b"\n" in agent.logs.get(call, b""))
    agent.send(frames.RUN, {"argv": ["sleep", "401"]})
    assert agent.end(grace=0.1)[2] == []
    assert gone(ended, 0) and gone(int(agent.logs[call]), 0)
    assert list(agent.folder.iterdir()) == []


def test_stop_reaches_what_a_program_has_left_in_its_group(agent: Parent) -> None:
    call = agent.spawn(shell=LEFT + "exec sleep 402", logs="all")
    agent.until(lambda: b"\n" in agent.logs.get(call, b""))
    assert agent.tell(call, "stop", 0.1) == ""
    assert gone(int(agent.logs[call]), 0)


def test_a_group_s_number_that_is_a_process_again_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "403"], process_group=0) as other:
        try:
            monkeypatch.setattr(launch, "_left", {other.pid})
            assert other.pid not in launch.groups()
        finally:
            other.kill()
