"""`passes` and `play`: run the text of a scenario for real, on local machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fanout.root.outcomes import RunOutcome, RunResult
from tests.scenario import play as playing

Passes = Callable[..., Awaitable[tuple[RunResult, playing.Recorder]]]


@pytest.fixture
def play(tmp_path: Path) -> playing.Play:
    async def play(body: str, decorator: str = "", **options: Any) -> tuple[RunResult, playing.Recorder]:
        return await playing.play(playing.write(tmp_path, body, decorator), **options)

    return play


@pytest.fixture
def passes(play: playing.Play) -> Passes:
    """As `play`, for scenarios that make their own assertions."""

    async def passes(body: str, **options: Any) -> tuple[RunResult, playing.Recorder]:
        result, recorder = await play(body, **options)
        assert result.outcome is RunOutcome.PASSED, result.reason
        return result, recorder

    return passes
