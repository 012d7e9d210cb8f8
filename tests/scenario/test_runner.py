"""A whole run on local machines: every way it can end, and that nothing is left after any of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanout import fleets
from fanout.durations import show
from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Arrivals, Host
from fanout.fleets.local import LocalFleet
from fanout.fleets.openssh import with_environment
from fanout.scenario.observer import PHASES
from fanout.scenario.runner import RunOptions, run
from tests.patience import LIMITS
from tests.root.trees import until
from tests.scenario import play as playing
from tests.scenario.conftest import Passes
from tests.scenario.play import Play, Recorder


async def test_the_result_has_everything(passes: Passes) -> None:
    result, seen = await passes(
        """
        async with fleet.step("first"):
            await fleet.run("true")
        with pytest.raises(AssertionError):
            async with fleet.step("second"):
                assert False
        fleet.metric("t", [1, 2, 3], "s")
        fleet.metric("t", 4)
        fleet.report("half way", done=0.5)
        """,
        machines=5,
        relays=1,
    )
    told = result.as_json()
    assert told["scenario"] == "tested"
    assert told["machines"] == {"total": 5, "ok": 5}
    assert told["tree"] == {"relays": 1, "depth": 2, "width": 4}
    assert told["timings"].keys() == {"provision_s", "connect_s", "scenario_s", "teardown_s"}
    assert told["root"].keys() == {
        *("cpu_s", "peak_rss_mb", "connections", "messages_in", "messages_out", "bytes_in", "bytes_out")
    }
    assert told["root"]["connections"] == 1 and told["root"]["cpu_s"] > 0 and told["root"]["peak_rss_mb"] > 1
    assert told["metrics"]["t"]["count"] == 4 and told["metrics"]["t"]["sum"] == 10
    assert [(step["name"], step["ok"]) for step in told["steps"]] == [("first", True), ("second", False)]
    assert told["reports"] == {"received": 1}
    assert told["failures"] == [] and told["reason"] == ""
    assert [(r.name, r.seq, r.text, r.fields) for r in seen.reports] == [("root", 1, "half way", {"done": 0.5})]
    assert list(dict.fromkeys(name for name, _, _ in seen.phases)) == list(PHASES)
    for name in PHASES:
        done, total = [(done, total) for phase, done, total in seen.phases if phase == name][-1]
        assert done == total


@pytest.mark.parametrize(
    ("body", "outcome", "said"),
    [
        ("assert 1 == 2, 'sums'", "failed", "AssertionError: sums\n"),
        ("{}['key']", "error", "KeyError: 'key'\n"),
        ("import sys; sys.exit(0)", "error", "called sys.exit"),
        ("fleet['pear']", "error", "no role 'pear'"),
        ("asyncio.current_task().cancel(); await asyncio.sleep(9)", "error", "cancelled from within"),
        ("await asyncio.wait_for(asyncio.sleep(9), 0.01)", "error", "TimeoutError"),
    ],
)
async def test_a_scenario_that_raises(play: Play, body: str, outcome: str, said: str) -> None:
    result, _ = await play(f"await fleet.spawn(['sleep', '1000'])\n{body}", machines=2)
    assert result.outcome == outcome
    assert said in result.reason
    assert "tested.py, line 8" in result.reason
    assert result.machines == {"ok": 2}


async def test_a_run_that_takes_too_long_says_what_it_did(play: Play) -> None:
    for limit in LIMITS[1:]:
        result, _ = await play(
            """
            try:
                async with fleet.step("patience"):
                    await fleet.run(["sleep", "1000"], timeout="1h")
            finally:
                raise KeyError("what comes of the clean-up does not matter")
            """,
            timeout=limit,
        )
        assert result.outcome == "failed"
        assert f"the run took longer than {show(limit)}" in result.reason
        if result.steps:
            break
    assert "step 'patience'" in result.reason
    assert "running 'sleep 1000' on local-[0-2]" in result.reason


async def test_the_ttl_is_the_timeout_unless_another_is_given(play: Play) -> None:
    result, _ = await play("await asyncio.sleep(60)", "ttl='1s'")
    assert "longer than 1.0s" in result.reason


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupt_ends_a_run_tidily(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    recorder = Recorder()
    recorder.on_step = lambda name: os.kill(os.getpid(), number)
    body = """
    await fleet.spawn(["sleep", "1000"])
    async with fleet.step("interrupted"):
        await asyncio.sleep(60)
    """
    result, _ = await playing.play(playing.write(tmp_path, body), recorder)
    assert result.outcome == "interrupted"
    assert result.machines == {"ok": 3}
    assert recorder.steps == [("interrupted", False)]
    assert signal.getsignal(number) == before


async def test_machines_of_a_run_that_ends_while_they_are_connected_do_not_count_as_ok(tmp_path: Path) -> None:
    class Impatient(Recorder):
        def phase(self, name: str, done: int, total: int) -> None:
            if name == "connect" and not done:
                os.kill(os.getpid(), signal.SIGINT)

    result, _ = await playing.play(playing.write(tmp_path, "fleet.report('it ran')"), Impatient())
    assert result.outcome == "interrupted"
    assert result.machines == {"ok": 0, "unreachable": 3}


async def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    """Also when the scenario will not let go.  Agents whose root is gone end by themselves, with their lease."""

    over = tmp_path / "over"
    recorder = Recorder()
    recorder.on_step = lambda name: os.kill(os.getpid(), signal.SIGINT)
    body = f"""
    from pathlib import Path
    for name in "once", "again":
        try:
            async with fleet.step(name):
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
    while not Path({str(over)!r}).exists():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
    """
    options = RunOptions(machines=2, lease=4.0)
    try:
        result = await run(playing.write(tmp_path, body), options, [recorder])
    finally:
        over.touch()
    assert result.outcome == "interrupted"
    assert any("letting go at once" in note for note in recorder.notes)
    async with asyncio.timeout(30):
        while playing.left_of(options.run):  # noqa: ASYNC110  the agents are nobody's children any more
            await asyncio.sleep(0.05)


async def test_a_second_interrupt_leaves_no_process_that_holds_on_either(tmp_path: Path) -> None:
    """What ignores TERM, and its children, end with the agents, although nobody waits for their grace period."""
    recorder = Recorder()
    loop = asyncio.get_running_loop()

    def phase(name: str, done: int, total: int) -> None:
        if name == "tear-down" and not done:
            loop.call_later(0.2, os.kill, os.getpid(), signal.SIGINT)

    recorder.phase = phase  # type: ignore[method-assign]
    recorder.on_step = lambda name: os.kill(os.getpid(), signal.SIGINT)
    body = """
    await fleet.spawn("trap '' TERM; echo up; sleep 1000 & sleep 1000", ready="up")
    async with fleet.step("interrupted"):
        await asyncio.sleep(60)
    """
    options = RunOptions(machines=3, relays=1)
    result = await run(playing.write(tmp_path, body), options, [recorder])
    assert result.outcome == "interrupted"
    assert any("letting go at once" in note for note in recorder.notes)

    def left() -> set[int]:
        return with_environment("FANOUT_RUN", options.run)

    async with asyncio.timeout(30):
        while left() or playing.left_of(options.run):  # noqa: ASYNC110  they are nobody's children any more
            await asyncio.sleep(0.05)


async def test_a_run_that_is_cancelled_by_its_caller_is_torn_down(tmp_path: Path) -> None:
    recorder = Recorder()
    body = "await fleet.spawn(['sleep', '1000'])\nasync with fleet.step('x'):\n    await asyncio.sleep(60)"
    task = asyncio.create_task(run(playing.write(tmp_path, body), RunOptions(run="cancelled-1"), [recorder]))
    recorder.on_step = lambda name: asyncio.get_running_loop().call_soon(task.cancel) and None
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not playing.left_of("cancelled-1")
    assert recorder.phases[-1] == ("tear-down", 1, 1)


async def test_an_observer_that_fails_is_left_out_and_told_about(tmp_path: Path) -> None:
    class Broken(Recorder):
        def report(self, report: Any) -> None:
            raise OSError(28, "No space left on device")

    recorder, broken = Recorder(), Broken()
    result = await run(
        playing.write(tmp_path, "fleet.report('a')\nfleet.report('b')"), RunOptions(), [broken, recorder]
    )
    assert result.outcome == "passed"
    assert [r.text for r in recorder.reports] == ["a", "b"]
    assert recorder.warnings == ["Broken has stopped: OSError: [Errno 28] No space left on device"]
    assert not broken.results


# Fleets that are not all there.

Made = Callable[..., list["Partly"]]


class Partly(LocalFleet):
    """Local machines, of which the first `bad` have no Python."""

    bad = 1
    empty = False
    released = 0

    async def provision(self, request: Any, progress: Any) -> list[Host]:
        hosts = await super().provision(request, progress)
        missing = [replace(host, python="/nonexistent/python3") for host in hosts[: self.bad]]
        return [] if self.empty else [*missing, *hosts[self.bad :]]

    async def release(self) -> None:
        type(self).released += 1


@pytest.fixture
def partly(monkeypatch: pytest.MonkeyPatch) -> type[Partly]:
    """`--fleet partly`; each test sets what is wrong with it."""
    kind = type("Made", (Partly,), {})
    monkeypatch.setattr(sys.modules[__name__], "Made", kind)
    monkeypatch.setitem(fleets.BUILT_IN, "partly", f"{__name__}:Made")
    return kind


async def test_a_machine_that_cannot_be_connected_fails_the_run_before_the_scenario(
    play: Play, partly: type[Partly]
) -> None:
    result, seen = await play("fleet.report('it ran')", fleet="partly")
    assert result.outcome == "failed"
    assert "1 of 3 machines could not be connected:\n  local-0: " in result.reason
    assert not seen.reports and partly.released == 1
    assert [f.machine for f in result.failures] == ["local-0"]
    assert result.as_json()["machines"]["ok"] == 2


async def test_a_quorum_of_machines_is_enough(play: Play, partly: type[Partly]) -> None:
    result, _ = await play(
        "assert [m.id for m in fleet] == [1, 2]\nassert (await fleet.run('true')).ok", "quorum=0.6", fleet="partly"
    )
    assert result.outcome == "passed", result.reason
    assert [f.machine for f in result.failures] == ["local-0"]
    partly.bad = 2
    result, _ = await play("pass", "quorum=0.6", fleet="partly")
    assert result.outcome == "failed"
    assert "2 are needed (quorum 0.6)" in result.reason


async def test_without_any_machine_there_is_no_fleet(play: Play, partly: type[Partly], tmp_path: Path) -> None:
    partly.bad = 3
    with pytest.raises(FleetError, match=r"3 of 3 machines could not be connected:\n  local-\[0-2\]: ") as caught:
        await run(playing.write(tmp_path, "pass"), RunOptions(machines=3, fleet="partly"), [])
    assert caught.value.exit_code == 3
    assert partly.released == 1
    partly.empty = True
    with pytest.raises(FleetError, match="has no machines"):
        await run(playing.write(tmp_path, "pass"), RunOptions(machines=3, fleet="partly"), [])
    assert partly.released == 2


class Booting(LocalFleet):
    """Local machines, of which all but the first boot while that one is being connected, and then arrive by `how`."""

    released = 0

    async def provision(self, request: Any, progress: Any) -> list[Host]:
        assert request.heads == 1
        hosts = await super().provision(request, progress)
        self.booting = frozenset(range(1, len(hosts)))
        return [replace(host, python=f"{sys.executable}-{i}" if i in self.booting else host.python)
                for i, host in enumerate(hosts)]

    async def arrivals(self) -> AsyncIterator[Arrivals]:
        yield Arrivals([1])
        raise FleetError("1 of 3 machines were ready within 1 s")

    async def release(self) -> None:
        type(self).released += 1


@pytest.fixture
def booting(monkeypatch: pytest.MonkeyPatch) -> type[Booting]:
    monkeypatch.setitem(fleets.BUILT_IN, "booting", f"{__name__}:Booting")
    monkeypatch.setattr(Booting, "released", 0)
    return Booting


async def test_machines_that_boot_while_others_are_connected_take_part_or_are_told_of(
    booting: type[Booting], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = Recorder()

    async def arrive(self: Booting) -> AsyncIterator[Arrivals]:
        await until(lambda: ("connect", 1, 3) in seen.phases)
        yield Arrivals([], {2: "it has ended: taken back"})

    monkeypatch.setattr(booting, "arrivals", arrive)
    body = "assert [m.id for m in fleet] == [0]\nfleet.report('it ran')"
    result, _ = await playing.play(playing.write(tmp_path, body, "quorum=0.3"), seen, fleet="booting")
    assert result.outcome == "passed", result.reason
    assert [(f.machine, f.outcome, f.reason) for f in result.failures] == [
        ("local-1", "unreachable", "the fleet tells nothing of it any more"),
        ("local-2", "unreachable", "it has ended: taken back")]
    assert "1 of 3 machines are ready: they are connected while the others boot" in seen.notes
    assert booting.released == 1


async def test_a_fleet_that_says_that_too_few_come_ends_the_run(
    booting: type[Booting], tmp_path: Path
) -> None:
    seen = Recorder()
    with pytest.raises(FleetError, match="1 of 3 machines were ready"):
        await run(playing.write(tmp_path, "fleet.report('it ran')"), RunOptions(machines=3, fleet="booting"), [seen])
    assert booting.released == 1 and not seen.reports


async def test_a_run_that_takes_too_long_while_machines_boot_says_so_and_releases_them(
    play: Play, booting: type[Booting], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []

    async def arrive(self: Booting) -> AsyncIterator[Arrivals]:
        try:
            await asyncio.sleep(60)
            yield Arrivals()
        finally:
            left.append("told no more")

    monkeypatch.setattr(booting, "arrivals", arrive)
    for runs, limit in enumerate(LIMITS, 1):
        result, _ = await play("pass", fleet="booting", timeout=limit)
        assert result.outcome == "failed" and booting.released == runs
        if left:
            break
    assert "still being connected, and 2 had not booted" in result.reason and left == ["told no more"]


async def test_a_fleet_that_cannot_be_released_is_told_about(
    play: Play, partly: type[Partly], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(self: Partly) -> None:
        await asyncio.sleep(60)

    partly.bad = 0
    monkeypatch.setattr(partly, "release", stuck)
    monkeypatch.setattr(partly, "release_timeout", 0.05)
    result, seen = await play("pass", fleet="partly")
    assert result.outcome == "passed"
    assert seen.warnings == ["the fleet partly was not released within 0.05 s"]


@pytest.mark.parametrize(("lease", "relays", "told"), [(5.0, 1, True), (5.0, 0, False), (15.0, 1, False)])
async def test_a_lease_that_does_not_outlast_a_relay_that_hangs_is_told(
    passes: Passes, lease: float, relays: int, told: bool
) -> None:
    _, recorder = await passes("pass", machines=2, relays=relays, lease=lease)
    assert any("give --lease 15s or more" in warning for warning in recorder.warnings) is told


# What is wrong before anything is made.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"machines": 0}, "at least one machine"),
        ({"roles": {"peer": 3}}, "no role 'peer'"),
        ({"args": {"x": "1"}}, "no such parameter"),
        ({"name": "other"}, "no scenario 'other'; it has tested"),
        ({"fleet": "cloud"}, "there is no fleet 'cloud'"),
        ({"machines": 3, "relays": 4}, "--relays 4"),
        ({"machines": 3, "relays": 0, "depth": 2}, "contradicts"),
        ({"timeout": 0}, "more than 0"),
        ({"connect_timeout": -1}, "more than 0"),
        ({"kex": "none-such"}, "--kex none-such: there is no 'none-such'; there are .*curve25519-sha256"),
        ({"cipher": "aes128-gcm@openssh.com,rot13"}, "there is no 'rot13'; there are .*aes128-ctr"),
    ],
)
async def test_bad_options_are_told_before_anything_is_made(
    tmp_path: Path, partly: type[Partly], options: dict[str, Any], said: str
) -> None:
    recorder = Recorder()
    with pytest.raises(UsageError, match=said):
        await run(playing.write(tmp_path, "pass"), RunOptions(**{"fleet": "partly", **options}), [recorder])
    assert not recorder.phases and not partly.released


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no scenario file"):
        await run(tmp_path / "none.py", RunOptions())


async def test_parameters_and_modules_beside_it_are_there_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("ANSWER = 42")
    path = tmp_path / "tested.py"
    path.write_text(
        "from fanout import scenario\n@scenario\nasync def one(fleet, count: int, names: list[str] = ['x']):\n"
        "    from helper import ANSWER\n    assert (count, names, ANSWER) == (3, ['x'], 42)\n"
        "    assert dict(fleet.args) == {'count': 3, 'names': ['x']}\n    assert fleet.run_id == 'r-1'\n"
    )
    result = await run(path, RunOptions(args={"count": "3"}, run="r-1"))
    assert result.outcome == "passed", result.reason
