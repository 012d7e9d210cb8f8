"""A scenario that lets nothing else run is told so, with the remedy."""

from __future__ import annotations

import pytest

from fanout.scenario import blocking
from tests.scenario.conftest import Passes


async def test_a_call_that_blocks_is_warned_of(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "LONG", 1.0)
    _, seen = await passes("import time; time.sleep(2); await fleet.run('true')", machines=1, lease=20.0)
    assert any(
        "a call of the scenario blocks (time.sleep" in told and "hear nothing for 20s (--lease) end" in told
        for told in seen.warnings
    )
