"""Every measurement runs, at a size that takes a moment, and finds figures that can be true."""

import json
import math
from pathlib import Path

import pytest

from fanout.bench.__main__ import MEASUREMENTS, main
from fanout.bench.figure import Size
from tests.sshd import need_sshd

TINY = Size(machines=3, relays=1, repeats=1, seconds=0.2, lines=500, loggers=2, megabytes=1)
OVER_SSH = {"trip", "relays", "flat", "barrier", "skew", "logs", "copy", "copy-barrier", "fetch", "mitogen"}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_it_runs_and_its_figures_can_be_true(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in OVER_SSH:
        need_sshd()
    monkeypatch.setattr("fanout.bench.agents.pythons", lambda: ["python3"])
    monkeypatch.setattr("fanout.bench.choreography.ROUNDS", 2)
    figures = MEASUREMENTS[name](TINY)
    assert figures and len({figure.what for figure in figures}) == len(figures)
    for figure in figures:
        assert math.isfinite(figure.value) and figure.what, figure
        assert figure.floor is None or figure.floor >= 0, figure
        if "lost" in figure.what:
            assert figure.value == 0, figure


def test_figures_are_printed_and_written_as_json(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "payload", "--json", str(tmp_path / "figures")]) == 0
    written = json.loads((tmp_path / "figures").read_text())
    assert written["size"]["machines"] == 200 and written["machine"]
    assert all(figure["value"] > 0 for figure in written["figures"])
    assert "payload, as source" in capfd.readouterr().out
