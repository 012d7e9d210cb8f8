"""`run` on real machines of this one: folded results, and failures that say what happened where."""

from __future__ import annotations

from tests.scenario.conftest import Passes
from tests.scenario.play import Play


async def test_equal_answers_are_one(passes: Passes) -> None:
    _, seen = await passes(
        """
        answers = await fleet.run(["echo", "hi"])
        assert answers.ok and answers.stdout == "hi\\n" and answers.code == 0 and not answers.failed
        assert len(answers) == 1 and answers.groups[0].machines == fleet
        assert repr(answers) == "<Results exit 0, same output: local-[0-2]>"
        fleet.show(answers, "what they said")
        fleet.show(answers[fleet[1]])
        """
    )
    assert seen.shown == [("what they said", [("local-[0-2]", "hi")]), ("", [("local-[0-2]", "hi")])]


async def test_braces_are_each_machines_own(passes: Passes) -> None:
    await passes(
        """
        answers = await fleet.run(["echo", "{id} {name} {address} {role} {other}"])
        assert str(answers) == "exit 0, 3 different outputs: local-[0-2]"
        for m in fleet:
            assert answers[m].stdout == f"{m.id} {m.name} {m.address} {m.role} {{other}}\\n"
        with pytest.raises(UsageError, match="outputs differ"):
            answers.stdout
        assert (await fleet["a"].run("echo $FANOUT_ROLE")).stdout == "a\\n"
        """,
        decorator="machines={'a': 2, 'b': 1}",
        machines=None,
    )


async def test_a_failure_names_machines_command_code_and_last_words(play: Play) -> None:
    result, _ = await play(
        """
        await fleet.run('echo trying; test $FANOUT_ID = 0 || { echo "no luck here" >&2; exit 7; }')
        """
    )
    assert result.outcome == "failed"
    assert "failed on 2 of 3 machines" in result.reason
    assert "exit 7: local-[1-2]" in result.reason
    assert "no luck here" in result.reason
    assert "tested.py, line" in result.reason
    assert [(f.machine, f.outcome, f.reason) for f in result.failures] == [
        ("local-1", "failed", "exit 7"),
        ("local-2", "failed", "exit 7"),
    ]
    assert result.as_json()["machines"] == {"total": 3, "ok": 1, "failed": 2}


async def test_without_check_a_failure_is_a_result(passes: Passes) -> None:
    await passes(
        """
        one = await fleet[0].run("exit 3", check=False)
        assert (one.ok, one.code, one.status) == (False, 3, "exit 3")
        one = await fleet[0].run("kill -9 $$", check=False)
        assert (one.ok, one.code, one.status) == (False, -9, "killed by SIGKILL")
        some = await fleet.run("exit $FANOUT_ID", check=False)
        assert not some.ok and some.failed == fleet[1:]
        with pytest.raises(CommandFailed) as caught:
            await fleet.run("exit $FANOUT_ID")
        assert caught.value.results[fleet[2]].code == 2
        """
    )


async def test_a_command_that_is_not_found_is_told(play: Play) -> None:
    result, _ = await play('await fleet.run(["no-such-program"])')
    assert result.outcome == "failed"
    assert "exit 127: local-[0-2]" in result.reason
    assert "no-such-program: No such file" in result.reason


async def test_a_command_that_takes_too_long_is_killed_and_told(passes: Passes) -> None:
    await passes(
        """
        from tests.patience import LIMITS
        for limit in LIMITS:
            one = await fleet[0].run("echo before; sleep 100", timeout=limit, check=False)
            assert one.outcome is Outcome.TIMED_OUT
            if one.stdout:
                break
        assert one.stdout == "before\\n"
        with pytest.raises(CommandFailed, match="timed out: killed after 300ms: local-0"):
            await fleet[0].run("sleep 100", timeout=0.3)
        """
    )


async def test_bytes_and_environment_and_folders_are_kept_exactly(passes: Passes) -> None:
    await passes(
        """
        odd = bytes(range(256)) * 300
        one = await fleet[0].run("cat", stdin=odd)
        assert one.stdout_bytes == odd and "\\ufffd" in one.stdout
        assert (await fleet.run("cat")).stdout == ""
        there = await fleet[0].run('echo "$X"; pwd', env={"X": "{name}!"}, cwd="/")
        assert there.stdout == "local-0!\\n/\\n"
        await fleet.run("echo {id} > kept")
        assert (await fleet[2].run("cat kept")).stdout == "2\\n"
        """
    )


async def test_output_has_a_cap_and_what_is_cut_is_counted(passes: Passes) -> None:
    _, seen = await passes(
        """
        answers = await fleet.run("head -c 5000 /dev/zero", capture="4KB")
        assert len(answers.groups[0].stdout_bytes) == 4096 and answers.groups[0].cut == 904
        fleet.show(answers)
        with pytest.raises(UsageError, match="at most"):
            await fleet.run("true", capture="2MB")
        with pytest.raises(UsageError, match="too large"):
            await fleet.run("cat", stdin=b"x" * (4 << 20))
        """
    )
    assert "904 bytes of output are cut" in seen.shown[0][1][0][1]


async def test_bad_options_are_told_before_anything_is_sent(passes: Passes) -> None:
    await passes(
        """
        bad = [
            lambda: fleet.run("true", timeout="soon"),
            lambda: fleet.run("true", timeout=0),
            lambda: fleet.run("true", capture="much"),
            lambda: fleet.run([]),
            lambda: fleet.spawn("true", logs="loud"),
            lambda: fleet.spawn("true", logs="match:("),
            lambda: fleet.spawn("true", ready="("),
            lambda: fleet.spawn("true", name="a/b"),
            lambda: fleet.spawn("true", ready_timeout="x"),
            lambda: fleet.spawn("true", cap="x"),
            lambda: fleet[:0].run("true"),
            lambda: fleet[:0].spawn("true"),
        ]
        sent = fleet._context.session.statistics()["messages_out"]
        number = fleet._context.session._number
        for each in bad:
            with pytest.raises(UsageError):
                await each()
        assert fleet._context.session._number == number
        """
    )


async def test_groups_are_taken_apart_and_joined(passes: Passes) -> None:
    await passes(
        """
        assert len(fleet) == 6 and [m.id for m in fleet] == list(range(6))
        assert str(fleet["peer"]) == "local-[1-5]" and fleet["boot"][0] is fleet[0]
        assert fleet[-1].name == "local-5" and str(fleet[2:4]) == "local-[2-3]"
        assert fleet.where(lambda m: m.id % 2) == fleet[1::2]
        assert fleet[:2] | fleet[5] == fleet.where(lambda m: m.id in (0, 1, 5))
        assert fleet - fleet["peer"] == fleet["boot"] and fleet[:3] & fleet[2:] == fleet[2:3]
        assert fleet[1] in fleet["peer"] and fleet[0] not in fleet["peer"]
        assert fleet.named("local-3") is fleet[3] and fleet[3].up and fleet.up == fleet
        assert fleet[0].address != fleet[1].address
        for ask, said in [
            (lambda: fleet["pear"], "no role 'pear'.*boot, peer"),
            (lambda: fleet["local-1"], "use .named"),
            (lambda: fleet[6], "no machine 6 in this group of 6: 0 to 5"),
            (lambda: fleet[:0][0], "it is empty"),
            (lambda: fleet.named("x"), "no machine 'x'.*local-"),
            (lambda: fleet[None], "position, slice or role"),
            (lambda: fleet | "x", "no group and no machine"),
        ]:
            with pytest.raises(UsageError, match=said):
                ask()
        """,
        decorator="machines={'boot': 1, 'peer': 5}",
        machines=None,
    )


async def test_a_command_does_not_wait_for_a_machine_that_is_lost(play: Play) -> None:
    result, seen = await play(
        """
        answers = await fleet.run('test $FANOUT_ID != 1 || { rm -r "$FANOUT_FOLDER"; kill -9 $PPID; }', check=False)
        assert answers.failed == fleet[1:2] and answers[fleet[1]].outcome is Outcome.LOST
        assert fleet.up == fleet - fleet[1] and not fleet[1].up
        with pytest.raises(CommandFailed, match="(?s)1 of 3 machines.*lost: .*local-1"):
            await fleet.run("true")
        assert (await fleet.up.run("echo fine")).stdout == "fine\\n"
        """
    )
    assert result.outcome == "failed"
    assert "1 of 3 machines were lost while the scenario ran:\n  local-1: lost" in result.reason
    assert [(f.machine, f.outcome) for f in result.failures] == [("local-1", "lost")]
    assert result.as_json()["machines"] == {"total": 3, "ok": 2, "lost": 1}
    assert any("local-1: lost" in warning for warning in seen.warnings)


async def test_a_relative_folder_is_where_commands_start_and_one_that_is_not_there_is_named(passes: Passes) -> None:
    await passes(
        """
        await fleet.run("mkdir -p data/{id}; pwd > data/{id}/above")
        assert (await fleet.run("test $(cat above) = $(cd ../..; pwd)", cwd="data/{id}")).ok
        assert (await fleet[0].run('test "$(pwd)" = "$(cd ~; pwd)"', cwd="~")).ok
        gone = await fleet[0].run("true", cwd="gone", check=False)
        assert gone.code == 127 and "cannot start in /" in gone.stderr and "/gone: No such file" in gone.stderr
        with pytest.raises(ProcessFailed, match="cannot start in /.*/gone: No such file"):
            await fleet[0].spawn("true", cwd="gone")
        """
    )
