"""A file becomes a scenario, or a UsageError that says where it is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from fanout.errors import UsageError
from fanout.scenario.decorator import Scenario
from fanout.scenario.loader import beside, load

ONE = "from fanout import scenario\n@scenario\nasync def one(fleet): pass\n"


def load_text(tmp_path: Path, text: str, name: str | None = None) -> Scenario:
    path = tmp_path / "some.py"
    path.write_text(dedent(text))
    with beside(path.parent):
        return load(path, name)


def test_the_only_scenario_needs_no_name(tmp_path: Path) -> None:
    assert load_text(tmp_path, ONE).name == "one"


def test_one_of_several_is_found_by_name(tmp_path: Path) -> None:
    two = ONE + "@scenario(name='other')\nasync def two(fleet): pass\n"
    assert load_text(tmp_path, two, "other").name == "other"
    with pytest.raises(UsageError, match="several scenarios: name one of one, other"):
        load_text(tmp_path, two)
    with pytest.raises(UsageError, match="no scenario 'third'; it has one, other"):
        load_text(tmp_path, two, "third")


def test_two_of_one_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two scenarios named 'one'"):
        load_text(tmp_path, ONE + ONE)


def test_a_file_without_a_scenario_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no scenario"):
        load_text(tmp_path, "async def f(fleet): pass")


def test_an_imported_scenario_is_not_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text(ONE)
    two = "from fanout import scenario\nfrom neighbour import one\n@scenario\nasync def two(fleet): pass\n"
    assert load_text(tmp_path, two).name == "two"
    with pytest.raises(UsageError, match="has no scenario"):
        load_text(tmp_path, "from neighbour import one")


def test_modules_beside_it_are_there_and_forgotten_afterwards(tmp_path: Path) -> None:
    for content in "first", "second":
        folder = tmp_path / content
        folder.mkdir()
        (folder / "helper.py").write_text(f"NAME = {content!r}")
        text = "from helper import NAME\n" + ONE.replace("@scenario", "@scenario(name=NAME)")
        assert load_text(folder, text).name == content
    assert "helper" not in sys.modules
    assert str(tmp_path / "first") not in sys.path


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no scenario file"):
        load(tmp_path / "none.py")


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["x = 1\ndef (", "x = 1\n  y = 2", "x = 1\nprint 'hello'"])
def test_a_syntax_error_has_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"some\.py, line 2 is not Python"):
        load_text(tmp_path, text)


@pytest.mark.parametrize("data", [b"\x7fELF\x00\x00", b"\xff\xfe\x00", b"\x00"])
def test_what_is_not_even_text_is_not_python(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "some.py"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not Python"):
        load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("from fanout import scenario\n@scenario(machines=0)\nasync def f(fleet): pass", "1 or more"),
    ],
)
def test_what_raises_while_it_is_imported_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)does not load: .*{said}.*some\.py, line \d"):
        load_text(tmp_path, text)
