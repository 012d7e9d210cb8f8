"""What an agent reads for `fetch` and packs is what lands at the root; whatever the tree, the pieces and the losses."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, frames, machineset, parcels
from fanout.agent.fetching import Reader
from fanout.agent.streams import Stream, Streams
from fanout.root.call import Call
from fanout.root.fetching import Fetch, told
from tests.agent.core.network import Network
from tests.agent.core.test_node import random_tree

CAP = 1 << 20


class Taken:
    """The part of a session that a fetch sees."""

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}
        self.asked: list[Any] = []

    def call(self, kind: int, targets: int, body: Any) -> Call:
        self.asked.append(body)
        return Call(len(self.asked), targets, kind)

    def forget(self, call: Call) -> None:
        pass


class Alone:
    """An agent's node whose way up always has room: what it sends goes to `sink`."""

    def __init__(self, sink: Any) -> None:
        self.node = self
        self._sink = sink

    def room(self, cls: int) -> int:
        return 1 << 20

    def record(self, kind: int, payload: bytes) -> None:
        self._sink(payload)


def records(work: Path, pattern: str, cap: int = CAP) -> list[bytes]:
    """What an agent sends."""
    found: list[bytes] = []
    stream = Stream(Alone(found.append), 1, Reader(str(work), pattern, cap).entries())  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        while True:
            stream.step()
    return found


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: bytes of files, targets of links, None for folders."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else
        path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def grow(folder: Path, random: Random, depth: int = 3) -> None:
    for name in random.sample(["a", "b", "ß", "with space", "new\nline", "-x", "*"], random.randrange(1, 5)):
        path = folder / name
        what = random.random()
        if what < 0.3 and depth:
            path.mkdir()
            grow(path, random, depth - 1)
        elif what < 0.4:
            path.symlink_to(random.choice(["a", "nowhere/b", "./-x"]))
        elif what < 0.6:
            with path.open("wb") as file:
                file.seek(random.choice([0, 5, 40_000, 300_000]))
                file.write(random.randbytes(random.choice([0, 1, 5000])))
        else:
            sizes = random.choice([0, 1, 32 << 10, 70_000]), random.choice([0, 70_000])
            path.write_bytes(random.randbytes(sizes[0]) + bytes(sizes[1]))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1 << 30))
def test_every_machine_s_files_arrive_whole_over_any_tree_with_any_losses(seed: int) -> None:
    random = Random(seed)
    net = Network(seed, chunk=random.choice([None, 3000]))
    parents = random_tree(random, most=12)
    net.build(parents)
    with tempfile.TemporaryDirectory() as base:
        there, here = Path(base) / "there", Path(base) / "here"
        fetch = Fetch(Taken(), lambda machine: here / str(machine), CAP * 4, CAP * 100)  # type: ignore[arg-type]
        fetch.begin(net.everyone, "tree")
        machines = machineset.members(net.everyone)
        for machine in machines:
            (there / str(machine) / "tree").mkdir(parents=True)
            grow(there / str(machine) / "tree", random)
            net.record(machine, frames.LOGS, records(there / str(machine), "tree", CAP * 4))
        for _ in range(random.randrange(4)):  # links break, and what was on its way with them; the root is the next way
            net.run(within=random.random() * 0.2)
            machine = random.choice(machines)
            net.cut(machine)
            net.run(within=random.random() * 0.1)
            net.connect(net.root, machine, 0, below(machine, parents))
        assert net.run(lambda: all(over(net, machine) for machine in machines), within=120.0)
        for machine in machines:
            known = 0
            for payload in net.records.get((frames.LOGS, machine), []):
                _, offset, piece, _ = codec.unpack(payload)  # as the session takes each byte once
                assert offset <= known
                fetch._take(machine, piece[known - offset :])
                known = max(known, offset + len(piece))
            intake = fetch.intakes[machine]
            assert intake.over, intake.failed
            assert contents(here / str(machine)) == contents(there / str(machine)), list(told(intake))
        fetch.close()


def below(machine: int, parents: list[int | None]) -> int:
    found = machineset.single(machine)
    for child, parent in enumerate(parents):
        if parent == machine:
            found |= below(child, parents)
    return found


def over(net: Network, machine: int) -> bool:
    host = net.hosts[machine]
    return not host.outbox.get(frames.LOGS) and not host.buffered()


def take(work: Path, here: Path, pattern: str = "*", cap: int = CAP, total: int = CAP * 100) -> Fetch:
    fetch = Fetch(Taken(), lambda machine: here, CAP, total)  # type: ignore[arg-type]
    fetch.begin(1, pattern)
    for payload in records(work, pattern, cap):
        fetch._take(0, codec.unpack(payload)[2])
    return fetch


def test_a_file_that_changes_while_it_is_read_is_said(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "shrinks").write_bytes(os.urandom(200_000))
    entries = list(Reader(str(work), "shrinks", CAP).entries())
    assert entries[-2][-1] == ""
    reading = Reader(str(work), "shrinks", CAP).entries()
    next(reading)
    os.truncate(work / "shrinks", 50_000)
    assert "written to while it was read" in list(reading)[-2][-1]


def test_elsewhere_a_file_system_is_not_believed_that_data_is_a_hole(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, here = tmp_path / "work", tmp_path / "here"
    work.mkdir()
    (work / "sparse").write_bytes(b"data")
    os.truncate(work / "sparse", 1 << 20)
    content = (work / "sparse").read_bytes()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "lseek", lambda *_: pytest.fail("it was asked"))
    take(work, here)
    assert (here / "sparse").read_bytes() == content


def test_what_may_not_be_read_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's refusal is played."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "open").write_text("x")
    scan, opened = os.scandir, os.open

    def refuse(path: Any, *rest: Any, do: Any = None, **options: Any) -> Any:
        if os.path.basename(path) in (b"closed", b"secret"):
            raise PermissionError(13, "Permission denied")
        return do(path, *rest, **options)

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path, do=scan))
    monkeypatch.setattr(os, "open", lambda *rest, **options: refuse(*rest, do=opened, **options))
    found = {entry[1]: entry for entry in Reader(str(tmp_path), "*", CAP).entries() if len(entry) > 1}
    assert found[b"secret"][2] == found[b"closed"][2] == "Permission denied"
    assert found[b"open"][3] == b"x"


def test_a_machine_that_lies_costs_only_itself(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "large").write_bytes(os.urandom(CAP + 1))
    fetch = take(work, tmp_path / "here", cap=CAP * 2)  # it sends more than it was told it may
    assert "more than it may" in fetch.intakes[0].failed
    assert fetch.open_yet() == 0
    fetch.close()
    assert not list((tmp_path / "here").glob("*"))


def test_a_file_that_was_begun_within_the_total_is_completed_and_the_rest_counted(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in "abc":
        (work / name).write_bytes(os.urandom(100_000))
    fetch = take(work, tmp_path / "here", total=250_000)
    (left,) = fetch.intakes[0].left.items()
    assert left[0] == "it is beyond the cap of all machines together"
    assert (left[1].files, left[1].bytes, len(fetch.intakes[0].files)) == (1, 100_000, 2)
    assert fetch._session.asked[1:] == [{"what": "full", "call": 1}]  # type: ignore[attr-defined]
    assert fetch.intakes[0].over


def test_streams_take_turns() -> None:
    """A long fetch does not keep a log that is followed from its turn."""
    order: list[int] = []
    streams = Streams(Alone(lambda payload: order.append(codec.unpack(payload)[0])))  # type: ignore[arg-type]
    for call in (1, 2):
        streams._begin(call, ([parcels.TEXT, bytes(parcels.BLOCK)] for _ in range(9)))
    room = iter([1 << 20, 0] * 6)
    streams.agent.room = lambda cls: next(room)  # type: ignore[attr-defined]
    for _ in range(6):
        streams.pump()
    assert order == [1, 2, 1, 2, 1, 2]
