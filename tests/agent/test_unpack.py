"""What is shipped is put in place whole or not at all, and nothing in it leads out of its place."""

import os
from pathlib import Path

import pytest

from fanout.agent.core import blocks
from fanout.agent.core.blocks import FILE, FOLDER, LINK
from fanout.agent.unpack import Unpacker


def entry(kind: int, name: str, mode: int, size: int, link: str) -> bytes:
    return blocks.entry(kind, os.fsencode(name), mode, size, os.fsencode(link))


TOP = entry(FOLDER, "", 0o755, 0, "")


def file(name: str, content: bytes, mode: int = 0o644) -> bytes:
    return entry(FILE, name, mode, len(content), "") + content


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_folder_is_put_in_place_whatever_the_pieces(tmp_path: Path, step: int) -> None:
    to = tmp_path / "deep" / "there"
    to.mkdir(parents=True)
    (to / "old").touch()
    stream = (TOP + entry(FOLDER, "sub", 0o500, 0, "") + file("sub/a", b"A" * 50, 0o755) + file("empty", b"")
              + entry(LINK, "link", 0, 0, "sub/../sub/a") + file("odd \udcff\n", b"odd"))
    unpacker = Unpacker(str(to), 0, "x")
    for at in range(0, len(stream), step):
        unpacker.feed(stream[at : at + step])
        while not unpacker.work(0.0):
            pass
    assert (to / "old").exists(), "it must not be seen before it is complete"
    unpacker.finish()
    assert sorted(os.listdir(os.fsencode(to))) == [b"empty", b"link", b"odd \xff\n", b"sub"]
    assert (to / "link").read_bytes() == b"A" * 50
    assert [oct((to / name).stat().st_mode & 0o777) for name in ("sub", "sub/a")] == ["0o500", "0o755"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["there"]


@pytest.mark.parametrize("bad", [
    file("/etc/x", b"x"), file("../x", b"x"), file("a/../../x", b"x"), file("nowhere/x", b"x"), file("a//b", b"x"),
    entry(LINK, "l", 0, 0, "/etc"), entry(LINK, "l", 0, 0, "../x"), entry(LINK, "", 0, 0, "/etc"),
    entry(LINK, "l", 0, 0, ".") + entry(LINK, "l/m", 0, 0, "x"), entry(LINK, "l", 0, 0, ".") + file("l", b"x"),
    entry(7, "x", 0, 0, ""), (1 << 30).to_bytes(4, "big"),
])
def test_what_leads_out_is_refused_and_leaves_nothing(tmp_path: Path, bad: bytes) -> None:
    unpacker = Unpacker(str(tmp_path / "to"), 0, "x")
    with pytest.raises((ValueError, OSError)):
        unpacker.feed(TOP + bad)
        unpacker.work(60.0)
        unpacker.finish()
    unpacker.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["there/x", "there/x/y/z", "link/x"])
def test_what_stands_in_the_way_of_its_folder_is_named(tmp_path: Path, to: str) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError) as caught:
        Unpacker(str(tmp_path / to), 0, "x")
    assert caught.value.strerror == f"{tmp_path / to.split('/')[0]} is not a folder"


def test_zeros_are_holes(tmp_path: Path) -> None:
    unpacker = Unpacker(str(tmp_path / "to"), 0o600, "x")
    unpacker.feed(entry(FILE, "", 0, (1 << 30) + 3, ""))
    assert unpacker.work(60.0)
    unpacker.skip(1 << 30)
    unpacker.feed(b"end")
    assert unpacker.work(60.0)
    unpacker.finish()
    state = (tmp_path / "to").stat()
    assert state.st_size == (1 << 30) + 3 and state.st_blocks * 512 < 1 << 20
    assert oct(state.st_mode & 0o777) == "0o600"


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    unpacker = Unpacker(str(tmp_path / "to"), 0o600, "x")
    with pytest.raises(OSError, match="directory"):
        unpacker.feed(file("", b"x"))
        unpacker.work(60.0)
        unpacker.finish()
    unpacker.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["to"]
