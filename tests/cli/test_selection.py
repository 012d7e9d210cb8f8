"""Which machines a command line chooses."""

from pathlib import Path
from typing import Any

import pytest

from fanout.cli.selection import chosen
from fanout.errors import UsageError

DEFAULTS: dict[str, Any] = {"names": (), "fleet": None, "exclude": (), "roles": (), "user": None}


def test_names_files_exclusions_and_groups_choose_the_machines(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("a[1-3] role=db\nroot@b1:2222\n")
    got = chosen({**DEFAULTS, "names": (f"@{file}", "c[1-2]"), "exclude": ("a2,c1",), "user": "me"})
    assert [(host.name, host.user) for host in got] == [("a1", "me"), ("a3", "me"), ("b1", "root"), ("c2", "me")]
    databases = chosen({**DEFAULTS, "fleet": f"hosts:{file}", "roles": ("db",)})
    assert [host.name for host in databases] == ["a1", "a2", "a3"]
    for wrong in ({}, {"names": ("a1",), "exclude": ("a1",)}, {"names": (f"@{file}",), "roles": ("web",)}):
        with pytest.raises(UsageError):
            chosen({**DEFAULTS, **wrong})
