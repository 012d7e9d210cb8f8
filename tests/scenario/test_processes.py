"""`spawn` and what can be done with a process, on real machines of this one."""

from __future__ import annotations

from tests.scenario.conftest import Passes
from tests.scenario.play import Play


async def test_a_process_is_ready_stops_and_starts_again(passes: Passes) -> None:
    await passes(
        """
        loop = "trap 'exit 0' TERM; echo start >> starts; echo listening on {id}; while :; do sleep 0.02; done"
        servers = await fleet.spawn(loop, name="server", ready=r"listening on (\\d+)")
        assert {m.id: groups for m, groups in servers.ready.items()} == {0: ["0"], 1: ["1"], 2: ["2"]}
        assert servers.running == fleet and servers[1].running and servers[fleet[1]].ready == ["1"]
        await servers[1:].stop()
        assert servers.running == fleet[:1]
        ended = await servers[1:].wait()
        assert ended.ok and ended.code == 0
        await servers[1:].start()
        await servers[2].stop()
        await servers[2].start()
        assert servers.running == fleet
        counts = await fleet.run("wc -l < starts")
        assert [int(counts[m].stdout) for m in fleet] == [1, 2, 3]
        with pytest.raises(ProcessFailed, match=r"running already on local-\\[0-2\\]: stop it"):
            await servers.start()
        """
    )


async def test_a_process_that_cannot_be_started_is_told(play: Play) -> None:
    result, _ = await play('await fleet.spawn(["no-such-program", "x"])')
    assert result.outcome == "failed"
    assert "no-such-program x" in result.reason
    assert "cannot start no-such-program: No such file or directory: local-[0-2]" in result.reason


async def test_a_process_that_ends_before_it_is_ready_is_told_with_its_last_lines(passes: Passes) -> None:
    await passes(
        """
        with pytest.raises(ProcessFailed) as caught:
            await fleet.spawn("test {id} = 0 && echo ready || { echo oh no; exit 3; }; cat", ready="^ready")
        said = str(caught.value)
        assert "is not ready on local-[1-2]" in said
        assert "ended (exit 3) before it was ready: local-[1-2]" in said and "oh no" in said
        with pytest.raises(ProcessFailed, match=r"ended \\(exit 0\\) before it was ready"):
            await fleet.spawn("true", ready="never")
        """
    )


async def test_one_that_is_not_ready_in_time_is_told_with_its_last_lines(passes: Passes) -> None:
    await passes(
        """
        from tests.patience import LIMITS
        for limit in LIMITS:
            with pytest.raises(Timeout, match=r"not ready within .*: local-\\[0-2\\]") as caught:
                await fleet.spawn("echo still trying; exec cat", ready="^ready", ready_timeout=limit)
            if "still trying" in str(caught.value):
                break
        else:
            raise caught.value
        """
    )


async def test_exit_codes_are_folded(passes: Passes) -> None:
    await passes(
        """
        processes = await fleet.spawn("echo last words; exit $(({id} / 2 * 5))")
        ended = await processes.wait()
        assert str(ended) == "exit 0, same output: local-[0-1]\\nexit 5: local-2"
        assert ended[fleet[2]].code == 5 and "last words" in ended[fleet[2]].stderr
        """
    )


async def test_kill_is_a_crash(passes: Passes) -> None:
    await passes(
        """
        process = await fleet[0].spawn(["sleep", "1000"])
        await process.kill()
        assert not process.running
        assert (await process.wait()).status == "killed by SIGKILL"
        await process.kill()
        await process.start()
        assert process.running
        """
    )


async def test_a_wait_for_the_end_has_a_deadline(passes: Passes) -> None:
    await passes(
        """
        process = await fleet.spawn("echo busy; exec sleep 1000", ready="busy")
        with pytest.raises(Timeout, match="(?s)did not end within 200ms.*still running: local-.*busy"):
            await process.wait("200ms")
        """
    )


async def test_standard_input_and_logs(passes: Passes) -> None:
    result, seen = await passes(
        """
        cats = await fleet.spawn(["cat"], name="cat", logs="all")
        await cats.write("one\\n")
        await cats[0].write(b"\\xff\\n")
        await cats.write("", eof=True)
        assert (await cats.wait()).ok
        with pytest.raises(ProcessFailed, match="is not running, and takes no standard input"):
            await cats.write("more")
        await (await fleet[0].spawn(["cat"], name="cat", logs="match:b", stdin="abc\\nxyz\\n")).wait()
        """
    )
    assert seen.logs == {
        ("local-0", "cat"): b"one\n\xff\n",
        ("local-1", "cat"): b"one\n",
        ("local-2", "cat"): b"one\n",
        ("local-0", "cat-2"): b"abc\n",
    }
    assert result.logs == {"bytes_forwarded": 18, "bytes_dropped": 0}


async def test_lines_are_waited_for(passes: Passes) -> None:
    await passes(
        """
        cats = await fleet.spawn(["cat"])
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(cats.wait_log(r"head is (\\d+)", since="start"))
            await cats.write("head is 7\\n")
        found = waiting.result()
        assert found.machines == fleet and len(found.times) == 3 and not found.missing
        assert (found[fleet[1]].line, found[fleet[1]].groups) == ("head is 7", ["7"])

        await cats[0].write("only me\\n")
        some = await cats.wait_log("only me", since="start", quorum=0.3)
        assert some.machines == fleet[:1] and some.missing == fleet[1:]

        with pytest.raises(Timeout) as caught:
            await cats.wait_log("only me", "2s", since="start")
        assert "on 1 of 3 machines, 3 are needed" in str(caught.value)
        assert "not within 2.0s: local-[1-2]" in str(caught.value) and "head is 7" in str(caught.value)
        with pytest.raises(Timeout):
            await cats[0].wait_log("only me", "100ms")
        """
    )


async def test_a_line_that_cannot_come_any_more_is_not_waited_for(passes: Passes) -> None:
    await passes(
        """
        cats = await fleet.spawn(["cat"])
        waiting = asyncio.create_task(cats.wait_log("never", "10m"))
        await asyncio.sleep(0)
        await cats[0].write("", eof=True)
        with pytest.raises(ProcessFailed, match=r"(?s)ended \\(exit 0\\) without printing it: local-0"):
            await waiting
        with pytest.raises(UsageError, match="since"):
            await cats.wait_log("x", since="then")
        with pytest.raises(UsageError, match="quorum"):
            await cats.wait_log("x", quorum=2)
        with pytest.raises(UsageError, match="not a regular expression"):
            await cats.wait_log("(")
        """
    )


async def test_signals_reach_it(passes: Passes) -> None:
    await passes(
        """
        process = await fleet[0].spawn("trap 'echo got it' USR1; echo up; while :; do sleep 0.02; done", ready="up")
        await process.signal("USR1")
        assert (await process.wait_log("got it", since="start")).line == "got it"
        with pytest.raises(UsageError, match="no signal"):
            await process.signal("NOPE")
        """
    )


async def test_processes_are_taken_by_machine_group_role_and_position(passes: Passes) -> None:
    await passes(
        """
        some = await fleet["b"].spawn(["cat"])
        assert len(some) == 2 and some.machines == fleet["b"]
        assert some[0].machine is some[fleet[1]].machine is fleet[1]
        assert some[fleet[1:2]].machines == some[:1].machines == fleet[1:2] and some["b"].machines == some.machines
        assert [process.machine for process in some] == list(fleet["b"])
        assert repr(some) == "<Processes cat: local-[1-2]>"
        with pytest.raises(UsageError, match="was not spawned on local-0"):
            some[fleet[0]]
        """,
        decorator="machines={'a': 1, 'b': 2}",
        machines=None,
    )


async def test_what_still_runs_at_the_end_is_stopped(passes: Passes) -> None:
    """Even when it has left its session, and ignores TERM; the check for leftovers sees to it."""
    await passes(
        """
        await fleet.spawn("trap '' TERM; (setsid sleep 1000 &); echo up; while :; do sleep 0.02; done", ready="up")
        """
    )


async def test_processes_of_a_lost_machine_are_told_as_lost(play: Play) -> None:
    result, _ = await play(
        """
        fleet.may_lose(fleet[1])
        cats = await fleet.spawn(["cat"])
        waiting = asyncio.create_task(cats.wait_log("never", "10m"))
        await fleet[1].run('rm -r "$FANOUT_FOLDER"; kill -9 $PPID', check=False)
        with pytest.raises(ProcessFailed, match="(?s)0 of 3 machines.*lost: .*: local-1"):
            await waiting
        assert cats.running == fleet - fleet[1]
        ended = asyncio.create_task(cats.wait())
        await cats.stop()
        assert (await ended)[fleet[1]].outcome is Outcome.LOST
        with pytest.raises(ProcessFailed, match="(?s)lost: .*: local-1"):
            await cats.start()
        """
    )
    assert result.outcome == "passed", result.reason
    assert [(f.machine, f.outcome) for f in result.failures] == [("local-1", "lost")]


async def test_an_end_that_the_scenario_did_not_see_is_told_after_it(passes: Passes) -> None:
    result, seen = await passes(
        """
        crashes = "echo up; read line; echo no space left; exit $line"
        unseen = await fleet.spawn(crashes, name="node", ready="up")
        await unseen[:2].write("3\\n")
        await unseen[2].write("0\\n")
        waited = await fleet.spawn(crashes, name="waited", ready="up")
        await waited.write("4\\n")
        assert not (await waited.wait()).ok
        told = await fleet[0].spawn(crashes, name="told", ready="up")
        await told.write("5\\n")
        with pytest.raises(ProcessFailed, match="exit 5"):
            await told.wait_log("never")
        killed = await fleet.spawn(crashes, name="killed", ready="up")
        await killed.kill()
        again = await fleet.spawn(crashes, name="again", ready="up")
        await again.kill()
        await again.start()
        while len(unseen.running):
            await asyncio.sleep(0.01)
        """
    )
    [problem] = result.problems
    assert problem.startswith("local-[0-1]: node (echo up; ") and seen.warnings == [problem]
    assert "ended by itself (exit 3), and the scenario did not look; its last line: no space left" in problem
