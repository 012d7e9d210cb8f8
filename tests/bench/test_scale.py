"""The scale study: a small one from the command line to table and plots."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fanout.bench.scale import main


def test_it_prints_a_table_and_draws_plots(
        tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.bench.scale.TREES", ((20, 1), (20, 2), (40, 2), (5000, 3)))
    figures = tmp_path / "figures.json"
    assert main(["--most", "100", "--json", str(figures), "--plots", str(tmp_path)]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == ["20", "20", "40"]
    for plot in tmp_path.glob("*.svg"):
        assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")
    found = json.loads(figures.read_text())
    assert [one["n"] for one in found] == [20, 20, 40] and all(one["node_bytes"] >= 0 for one in found)
