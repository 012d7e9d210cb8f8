"""Checking scenarios: all that is wrong is found at once, without a machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fanout.cli.main import main
from fanout.scenario.check import check

PROJECT = Path(__file__).parents[2]
HEAD = "from fanout import *\n"


def fanout_check(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, args)])


def test_the_examples_are_right_and_their_table_says_what_they_are() -> None:
    done = fanout_check(PROJECT / "scenarios")
    assert done.exit_code == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["scenario", "machines", "tree", "parameters"]
    told = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
    assert told["quickstart"] == "5 flat -"
    assert told["gossip"].startswith("the fleet's - share: float = 0.25, patience: str = '2m'")
    assert "without a @scenario passed over" in done.stderr


def test_every_kind_of_parameter_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        HEAD + "print('loading')\n"
        "@scenario(machines={'a': 100, 'b': 300}, ttl='2h', tags=['t'])\n"
        "async def large(fleet, need: int, size=3, *, on: bool = True, ids: list[int] = [1],"
        " who: str | None = None): ...\n"
    )
    done = fanout_check(tmp_path, "--json")
    assert done.exit_code == 0 and "loading" in done.stderr
    [one] = json.loads(done.stdout)["scenarios"]
    told = [(p["name"], p["type"], p["required"], p["default"]) for p in one.pop("parameters")]
    assert told == [
        ("need", "int", True, None), ("size", "int", False, "3"), ("on", "bool", False, "True"),
        ("ids", "list[int]", False, "[1]"), ("who", "str | None", False, "None"),
    ]  # fmt: skip
    tree = one.pop("tree")
    assert tree["relays"] > 0 and tree["depth"] == 2
    assert one == {
        "file": str(tmp_path / "s.py"), "scenario": "large", "machines": 400, "roles": {"a": 100, "b": 300},
        "ttl": 7200.0, "tags": ["t"], "build": None,
    }  # fmt: skip


WRONG = {
    "syntax.py": ("@scenario\nasync def f(fleet)\n", ["line 3 is not Python"]),
    "import.py": ("import no_such_module\n@scenario\nasync def f(fleet): ...\n", ["No module named"]),
    "exit.py": ("import sys; sys.exit(3)\n@scenario\nasync def f(fleet): ...\n", ["SystemExit: 3"]),
    "ttl.py": ("@scenario(ttl='soon')\nasync def f(fleet): ...\n", ["'soon' is not a duration"]),
    "role.py": ("@scenario(machines={'a b': 1})\nasync def f(fleet): ...\n", ["'a b' is no name for a role"]),
    "sync.py": ("@scenario\ndef f(fleet): ...\n", ["must be an `async def`"]),
    "two.py": (
        "@scenario(ttl=0)\nasync def f(fleet, a: dict, b: int = 'x', c: int = None, d: list[int] = ['x']): ...\n"
        "@scenario\nasync def g(fleet, *rest): ...\n"
        "@scenario\nasync def fine(fleet): ...\n",
        ["'a' is of a type", "default of 'b', 'x', is no int", "default of 'c', None", "default of 'd'", "ttl=0",
         "*rest cannot be given"],
    ),
}  # fmt: skip


def test_all_that_is_wrong_is_told_with_its_file(tmp_path: Path) -> None:
    for name, (text, _) in WRONG.items():
        (tmp_path / name).write_text(HEAD + text)
    (tmp_path / "helper.py").write_text("raise SystemExit('must not be imported')\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/x.py").write_text("@scenario\n")
    checks = check([tmp_path])
    for name, (_, reasons) in WRONG.items():
        told = [problem.reason for problem in checks.problems if problem.file == str(tmp_path / name)]
        assert len(told) == len(reasons), (name, told)
        for reason in reasons:
            assert any(reason in one for one in told), (name, reason, told)
    assert [one.scenario for one in checks.scenarios] == ["fine"]
    assert checks.passed_over == [str(tmp_path / "helper.py")]
    done = fanout_check(tmp_path)
    assert done.exit_code == 2
    assert done.stderr.count("error: ") == len(checks.problems) and "Traceback" not in done.stderr
    assert all(str(tmp_path / name) in done.stderr for name in WRONG)


@pytest.mark.parametrize(("name", "words"), [("no.py", "there is no scenario file"), ("plain.py", "has no scenario")])
def test_a_file_that_is_named_must_have_scenarios(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("x = 1\n")
    done = fanout_check(tmp_path / name)
    assert done.exit_code == 2 and words in done.stderr


def test_a_folder_without_any_file_is_a_mistake(tmp_path: Path) -> None:
    assert fanout_check(tmp_path).exit_code == 2
    assert fanout_check().exit_code == 2


def test_files_of_one_name_in_two_folders_have_helpers_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper.py").write_text(f"COUNT = {1 if folder == 'a' else 2}\n")
        (tmp_path / folder / "s.py").write_text(
            HEAD + "from helper import COUNT\n@scenario(machines=COUNT)\nasync def f(fleet): ...\n"
        )
    checks = check([tmp_path])
    assert [one.machines for one in checks.scenarios] == [1, 2]
    assert "helper" not in sys.modules
