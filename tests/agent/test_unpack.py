"""A shipped folder is unpacked whole or not at all, and nothing in it leads out of it."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from fanout.agent import unpack


def archive(path: Path, members: list[tuple[str, bytes, str]]) -> str:
    """(type, name, link or content)"""
    with tarfile.open(path, "w") as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                tar.addfile(member)
    return str(path)


@pytest.mark.parametrize("name, kind, text", [
    ("/etc/x", tarfile.REGTYPE, "x"),
    ("../x", tarfile.REGTYPE, "x"),
    ("a/../../x", tarfile.REGTYPE, "x"),
    ("link", tarfile.SYMTYPE, "/etc/passwd"),
    ("a/link", tarfile.SYMTYPE, "../../x"),
    ("hard", tarfile.LNKTYPE, "a"),
    ("device", tarfile.CHRTYPE, ""),
])
def test_what_leads_out_is_refused_and_what_was_there_stays(tmp_path: Path, name: str, kind: bytes, text: str) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "old").write_text("old")
    path = archive(tmp_path / "a.tar", [("good", tarfile.REGTYPE, "good"), (name, kind, text)])
    with pytest.raises(ValueError, match=r"leads out|no file"):
        list(unpack.steps(path, str(to)))
    assert os.listdir(to) == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "to"]


def test_files_links_and_modes_arrive_and_replace_what_was_there(tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "old").write_text("old")
    path = archive(tmp_path / "a.tar", [
        ("d", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, "hi"), ("d/l", tarfile.SYMTYPE, "f")])
    list(unpack.steps(path, str(to)))
    assert (to / "d" / "l").read_text() == "hi"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "to"]
    assert not (to / "old").exists()
