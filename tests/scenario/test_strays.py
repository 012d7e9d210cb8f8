"""What a scenario lost sight of does not let its run pass: coroutines not awaited, tasks that nobody waited for."""

from __future__ import annotations

import warnings

import pytest

from fanout.root.outcomes import RunOutcome
from tests.scenario.conftest import Passes
from tests.scenario.play import Play


async def test_a_verb_that_is_not_awaited_is_an_error_that_names_its_line(play: Play) -> None:
    result, seen = await play("fleet.run('true')\nawait fleet.run('true')", machines=1)
    assert result.outcome is RunOutcome.ERROR
    assert "Group.run was never awaited, so nothing of it has run" in result.reason
    assert "tested.py, line 7: fleet.run('true')" in result.reason
    assert [told.partition(",")[0] for told in seen.warnings] == ["Group.run was never awaited"]


async def test_what_was_not_awaited_is_told_beside_the_error_that_came_of_it(
    play: Play, recwarn: pytest.WarningsRecorder
) -> None:
    result, seen = await play("answer = fleet.run('true')\nprint(answer.stdout)", machines=1)
    assert "AttributeError" in result.reason
    assert [told.partition(",")[0] for told in seen.warnings] == ["Group.run was never awaited"]
    assert not recwarn.list, "nor does Python say it once more, with a line of ours"


@pytest.mark.parametrize("kept", ["pass", "del task"])
@pytest.mark.parametrize(
    ("fails", "outcome", "said"),
    [
        ("fleet.run('exit 3')", "failed", "exit 3: local-0"),
        ("asyncio.wait_for(asyncio.sleep(9), 0)", "error", "TimeoutError"),
    ],
)
async def test_a_task_that_fails_unseen_fails_the_run(
    play: Play, kept: str, fails: str, outcome: str, said: str
) -> None:
    result, seen = await play(
        f"""
        done = asyncio.Event()
        task = asyncio.create_task({fails})
        task.add_done_callback(lambda _: done.set())
        {kept}
        await done.wait()
        """,
        machines=1,
    )
    assert result.outcome == outcome
    assert said in result.reason and "in a task that nobody waited for" in result.reason
    assert len(seen.warnings) == 1 and "a task that nobody waits for has failed: " in seen.warnings[0]


async def test_failures_that_the_scenario_has_seen_are_its_own_affair(passes: Passes) -> None:
    _, seen = await passes(
        """
        both = fleet.run("exit 3"), fleet.run("exit 4")
        assert len(await asyncio.gather(*both, return_exceptions=True)) == 2
        task = asyncio.create_task(fleet.run("exit 5"))
        await asyncio.wait({task})
        assert task.exception() is not None
        """,
        machines=1,
    )
    assert not seen.warnings


async def test_tasks_that_still_run_at_the_end_are_cancelled_and_told(passes: Passes) -> None:
    _, seen = await passes(
        """
        async def watch():
            try:
                await asyncio.sleep(1000)
            finally:
                print("watch has ended")
        asyncio.create_task(watch())
        asyncio.create_task(fleet.run("sleep 1000", timeout="1h"))
        await fleet.run("true")
        """,
        machines=1,
    )
    [first, second] = seen.notes
    assert first.startswith("Group.run still ran in a task") and "watch still ran in a task" in second
    assert not seen.warnings


async def test_other_warnings_of_a_scenario_stay_what_they_are(passes: Passes) -> None:
    before = warnings.showwarning
    with pytest.warns(UserWarning, match="mine"):
        await passes("import warnings; warnings.warn('mine')", machines=1)
    assert warnings.showwarning is before
