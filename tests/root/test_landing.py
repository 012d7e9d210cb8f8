"""Whatever a machine calls its files, nothing is written outside its folder, and nothing replaces anything else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core.parcels import whole_sum
from fanout.root.landing import Landing, Names, Refused, parts, stays_inside

NAME = st.sampled_from(
    [b"a", b"A", b"b", b"..", b".", b"", b"\xc3\xa4", b"a\xcc\x88", b"\xff", b"x" * 300, b"s", b"~2"])
PATH = st.lists(NAME, max_size=4).map(b"/".join)


def put(landing: Landing, path: bytes, data: bytes = b"data") -> Path:
    landing.open(path, 0o644, len(data))
    landing.write(0, data)
    return landing.shut(whole_sum(data))


@given(st.binary(max_size=50) | PATH)
def test_a_path_has_only_names_that_stay_below(path: bytes) -> None:
    try:
        names = parts(path)
    except Refused:
        return
    assert b"/".join(names) == path
    assert not set(names) & {b"", b".", b".."}


@given(st.lists(PATH, max_size=12))
def test_two_paths_never_get_the_same_name_even_where_case_is_ignored(paths: list[bytes]) -> None:
    names, given_out = Names(), []
    for path in paths:
        try:
            given_out.append(names.other(path))
        except Refused:
            continue
    alike = [tuple(os.fsdecode(name).casefold() for name in place) for place in given_out]
    assert len(set(alike)) == len(alike)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(["file", "link", "folder"]), PATH, PATH), max_size=10))
def test_nothing_is_written_or_leads_outside_whatever_is_sent(sent: list[tuple[str, bytes, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        outside = Path(base) / "a"  # a name that links may well hit upon
        outside.mkdir()
        top = Path(base) / "top" / "machine"
        for _ in range(2):  # the second time over the links of the first
            landing = Landing(top)
            for kind, path, target in sent:
                try:
                    if kind == "file":
                        put(landing, path)
                    elif kind == "folder":
                        landing.make(path)
                    else:
                        landing.link(path, target)
                except (Refused, OSError):
                    landing.give_up()
            list(landing.links())
            landing.close()
        assert sorted(os.listdir(base)) in (["a"], ["a", "top"])
        assert not os.listdir(outside)
        assert set(os.listdir(Path(base) / "top") if top.exists() else []) <= {"machine"}
        for folder, folders, files in os.walk(top):
            for name in folders + files:
                assert not name.startswith(".fanout-")
                real = os.path.realpath(os.path.join(folder, name))
                assert (real + "/").startswith(str(top) + "/"), real


@pytest.mark.parametrize(("depth", "target", "inside"), [
    (0, b"x", True), (0, b"..", False), (1, b"../x", True), (1, b"../../x", False), (0, b"/etc", False),
    (5, b"s/../..", False), (3, b"./../../a", True), (0, b"", False),
])  # fmt: skip
def test_a_link_may_only_lead_below(depth: int, target: bytes, inside: bool) -> None:
    assert stays_inside(depth, target) is inside


def test_names_that_differ_by_case_or_by_their_bytes_alone_get_a_number() -> None:
    names = Names()
    assert [names.other(path) for path in (b"Log", b"log", b"LOG", b"\xc3\xa4", b"a\xcc\x88")] == [
        (b"Log",), (b"log~2",), (b"LOG~3",), (b"\xc3\xa4",), (b"a\xcc\x88~2",)]
    assert names.other(b"D/x") == (b"D", b"x")
    assert names.other(b"d/x") == (b"d~2", b"x")
    for path in (b"Log", b"Log/below", b"D"):
        with pytest.raises(Refused):
            names.other(path)


def test_a_link_that_was_there_before_is_not_gone_through(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "d").symlink_to(tmp_path / "out")
    (tmp_path / "top" / "f").symlink_to(tmp_path / "out" / "f")
    landing = Landing(tmp_path / "top")
    with pytest.raises(OSError, match="Not a directory"):
        put(landing, b"d/x")
    landing.give_up()
    put(landing, b"f")
    landing.close()
    assert not os.listdir(tmp_path / "out")
    assert (tmp_path / "top" / "f").read_bytes() == b"data"


def test_what_arrives_damaged_or_beyond_its_size_is_not_there(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.open(b"damaged", 0o600, 4)
    landing.write(0, b"dada")
    with pytest.raises(Refused, match="its hash is wrong"):
        landing.shut(whole_sum(b"data"))
    landing.give_up()
    landing.open(b"long", 0o600, 4)
    with pytest.raises(Refused, match="beyond its size"):
        landing.write(2, b"data")
    landing.give_up()
    with pytest.raises(Refused, match="claims"):
        landing.open(b"huge", 0o600, 1 << 60)
    landing.close()
    assert os.listdir(tmp_path) == []


def test_rights_are_kept_but_for_those_that_give_others_power(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.open(b"tool", 0o6711, 0)
    landing.write(0, b"")
    assert landing.shut(whole_sum(b"")).stat().st_mode & 0o7777 == 0o711
    landing.close()
