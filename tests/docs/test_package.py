"""What is installed is all that is needed, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("fanout-*.whl")
    return path


def test_the_wheel_has_the_package_its_types_and_stage_0_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [about] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        entries = archive.read(about).decode()
    assert {"fanout/py.typed", "fanout/agent/stage0.py", "fanout/cli/__main__.py"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fanout"}
    assert not [name for name in names if "msgpack" in name or "test_" in name]
    assert "fanout = fanout.cli.main:main" in entries
    assert all(f"{name} = fanout.fleets." in entries for name in ("local", "hosts", "lab"))


def test_a_scenario_runs_from_what_the_wheel_holds(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = "import sys, fanout; sys.exit('installed' not in fanout.__file__)"
    environment = {
        **os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PYTHONSAFEPATH": "1",
        "XDG_STATE_HOME": str(tmp_path),
    }  # fmt: skip
    run = ["-m", "fanout.cli", "run", str(REPO / "scenarios/quickstart.py"), "--relays", "1"]
    for command in (["-c", code], run):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
