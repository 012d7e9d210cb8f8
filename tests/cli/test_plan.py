"""`fanout plan`: the tree, what it costs, and whose constants that is by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fanout.cli.main import main
from fanout.root import constants
from fanout.root.model import DEFAULT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def plan(*words: str) -> str:
    done = CliRunner().invoke(main, ["plan", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_tree_stands_beside_flat() -> None:
    text = plan("-n", "5000")
    assert "root - 8 relays - up to 25 relays each - up to 24 leaves each" in text
    assert text.splitlines()[4].split() == ["tree", "flat"]
    assert "Constants: built in" in text


def test_few_machines_are_flat_and_stand_alone() -> None:
    text = plan("-n", "20")
    assert "the root reaches each itself" in text and text.splitlines()[1].split() == ["flat"]


def test_a_measured_fleet_is_planned_by_its_own_constants() -> None:
    constants.keep("lab", replace(DEFAULT, here_direct=0.03, here_relayed=0.09, here_cores=2))
    assert json.loads(plan("-n", "100", "--fleet", "lab", "--json"))["tree"]["relays"] == 0
    assert json.loads(plan("-n", "100", "--json"))["tree"]["relays"] > 0
    assert "measured on lab" in plan("-n", "100", "--fleet", "lab")


def test_a_tree_that_is_given_is_taken() -> None:
    tree = json.loads(plan("-n", "500", "--relays", "8", "--json"))["tree"]
    assert (tree["fans"], tree["connections"]) == ([8, 62], 8)


def test_what_a_file_takes_and_the_tree_that_is_fast_for_it() -> None:
    text = plan("-n", "40", "--ship", "100MB")
    assert "root - 1 relay - up to 3 relays each" in text
    assert text.split("the files on every machine")[1].split()[:4] == ["4.2", "s", "168", "s"]
    assert "the files" not in plan("-n", "40")
    done = CliRunner().invoke(main, ["plan", "-n", "5", "--ship", "much"])
    assert done.exit_code == 2 and "is not a number of bytes" in done.output


def test_a_contradiction_is_named() -> None:
    done = CliRunner().invoke(main, ["plan", "-n", "5", "--relays", "9"])
    assert done.exit_code == 2 and "--relays 9" in done.output
