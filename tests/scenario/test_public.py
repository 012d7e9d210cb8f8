"""`import fanout` is almost free, and `fanout.scenario` is the decorator whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

import fanout


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_every_public_name_is_there() -> None:
    for name in fanout.__all__:
        assert getattr(fanout, name) is not None
    assert not hasattr(fanout, "nothing_of_that_name")


def test_importing_fanout_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import fanout; print(sorted(set(sys.modules) - before))"
    assert python(code).strip() == "['fanout']"


def test_the_decorator_works_before_and_after_the_package_is_imported() -> None:
    use = "from fanout import scenario\n@scenario(machines=3)\nasync def f(fleet): pass\nprint(f.machines)\n"
    assert python(use + "import fanout.scenario.runner\n" + use) == "3\n3\n"
    assert python("import fanout.scenario.group\n" + use) == "3\n"
