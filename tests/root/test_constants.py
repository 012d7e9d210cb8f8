"""Measured constants: kept for each fleet, and never a reason to fail."""

from dataclasses import replace
from pathlib import Path

import pytest

from fanout.root import constants
from fanout.root.model import DEFAULT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_each_fleet_has_its_own() -> None:
    assert constants.measured("lab") is None and constants.of("lab") is DEFAULT
    lab, hosts = replace(DEFAULT, dial=1.5), replace(DEFAULT, here_cores=7)
    constants.keep("lab", lab)
    constants.keep("hosts:nodes.txt", hosts)
    assert (constants.of("lab"), constants.of("hosts:nodes.txt"), constants.of("local")) == (lab, hosts, DEFAULT)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lab": 3}', '{"lab": {"dial": "x"}}', '{"lab": {"dial": null}}'])
def test_a_damaged_file_is_as_none(text: str) -> None:
    constants.path().parent.mkdir()
    constants.path().write_text(text)
    assert constants.of("lab") is DEFAULT


def test_what_another_version_wrote_is_passed_over() -> None:
    constants.path().parent.mkdir()
    constants.path().write_text('{"lab": {"dial": 2, "unknown": 4}}')
    assert constants.of("lab") == replace(DEFAULT, dial=2.0)
