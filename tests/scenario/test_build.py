"""`build=git(...)`: built once from real repositories, on every machine before the scenario starts; or why not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fanout.errors import UsageError
from fanout.root.outcomes import RunResult
from fanout.scenario import builder, workshop
from fanout.scenario.build import git
from fanout.scenario.builder import Builder, BuildFailed
from fanout.scenario.check import check
from tests.agent.parent import gone
from tests.root.trees import until
from tests.scenario import play as playing
from tests.scenario.play import Play, Recorder
from tests.sshd import LoopbackSshd, home_of

BUILD = """echo compiling; mkdir -p out/data; cp version out/data
printf '#!/bin/sh\\necho %s\\n' $(cat version) > out/node; chmod +x out/node"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/fanout/builds"


def commands(folder: Path, *lines: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    for line in lines:
        subprocess.run(["git", *author, *line.split()], cwd=folder, check=True, capture_output=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two branches, an annotated tag, and an older commit."""
    folder = tmp_path / "re po"
    folder.mkdir()
    (folder / "version").write_text("one\n")
    commands(folder, "init -q", "add .", "commit -qm one", "tag -am v1 v1", "checkout -qb side")
    (folder / "version").write_text("two\n")
    commands(folder, "commit -qam two", "checkout -q main")
    return folder


def left(cache: Path) -> list[Path]:
    return list(cache.glob(".work-*"))


async def made(url: object, ref: str, command: str, outputs: list[str], **options: object) -> dict[str, Path]:
    """Straight from the builder, without machines."""
    build = git(str(url), ref, command, outputs, **options)  # type: ignore[arg-type]
    return await Builder(build, ref, LOGGED.append, SAID.append).made()


LOGGED: list[bytes] = []
SAID: list[str] = []


@pytest.fixture(autouse=True)
def heard() -> None:
    LOGGED.clear()
    SAID.clear()


async def play_build(play: Play, body: str, how: str, **options: object) -> tuple[RunResult, Recorder]:
    return await play(body, f"build=git({how})", **options)


async def test_every_machine_has_the_outputs_when_the_scenario_starts(play: Play, tmp_path: Path, cache: Path) -> None:
    os.symlink(repository_of(tmp_path), tmp_path / "link")
    body = """
        assert (await fleet.run([fleet.build["node"]])).stdout == "two\\n"
        assert (await fleet.run("cat " + fleet.build["data"] + "/version")).stdout == "two\\n"
        with pytest.raises(UsageError, match="no output 'other'; there is node, data"):
            fleet.build["other"]
    """
    how = f'{str(tmp_path / "link")!r}, "side", {BUILD!r}, ["out/node", "out/data"]'
    result, seen = await play_build(play, body, how)
    assert result.outcome == "passed", result.reason
    assert b"compiling" in seen.logs["root", "build"] and result.timings["build_s"] > 0
    result, seen = await play_build(play, body, how, machines=1)
    assert result.outcome == "passed", result.reason
    assert ("root", "build") not in seen.logs or b"compiling" not in seen.logs["root", "build"]
    assert any("in the cache" in note for note in seen.notes) and left(cache) == []


def repository_of(folder: Path) -> Path:
    """As the fixture, where a body needs its path in its text."""
    made = folder / "repository"
    made.mkdir()
    (made / "version").write_text("one\n")
    commands(made, "init -q", "add .", "commit -qm one", "checkout -qb side")
    (made / "version").write_text("two\n")
    commands(made, "commit -qam two")
    return made


@pytest.mark.parametrize(("ref", "want"), [("main", "one"), ("HEAD", "one"), ("side", "two"), ("v1", "one")])
async def test_a_branch_and_a_tag_are_what_they_are_now(repository: Path, ref: str, want: str) -> None:
    found = await made(repository, ref, "cp version out", ["out"])
    assert found["out"].read_text() == f"{want}\n"
    (repository / "version").write_text("three\n")
    commands(repository, "commit -qam three")
    found = await made(repository, ref, "cp version out", ["out"])
    assert found["out"].read_text() == ("three\n" if ref in ("main", "HEAD") else f"{want}\n")


async def test_a_commit_that_no_branch_is_at_any_more_is_found_and_needs_nobody_once_built(
        repository: Path, tmp_path: Path) -> None:
    old = commands(repository)
    (repository / "version").write_text("three\n")
    commands(repository, "commit -qam three")
    url = f"file://{str(repository).replace(' ', '%20')}"
    found = await made(url, old, "cp version out", ["out"])
    assert found["out"].read_text() == "one\n"
    repository.rename(tmp_path / "away")
    assert await made(url, old, "cp version out", ["out"]) == found


async def test_another_command_or_other_outputs_are_another_build(repository: Path) -> None:
    first = await made(repository, "main", "cp version a; cp version b", ["a"])
    assert (await made(repository, "main", "cp version a; cp version b", ["b"]))["b"].parent != first["a"].parent
    assert (await made(repository, "main", "echo x > a", ["a"]))["a"].read_text() == "x\n"


async def test_what_was_changed_in_the_cache_is_built_again(repository: Path) -> None:
    found = await made(repository, "main", "cp version out", ["out"])
    found["out"].write_text("bad\n")
    assert (await made(repository, "main", "cp version out", ["out"]))["out"].read_text() == "one\n"


async def test_two_that_build_the_same_at_once_both_get_it(repository: Path, cache: Path) -> None:
    count = f"'{repository}/count'"
    together = f"cp version out; echo >> {count}; until [ $(wc -l < {count}) = 6 ]; do sleep 0.01; done"
    found = await asyncio.gather(*[made(repository, "main", together, ["out"]) for _ in range(6)])
    assert {one["out"].read_text() for one in found} == {"one\n"} and left(cache) == []


async def test_old_builds_go_when_there_are_many(
        repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "KEPT", 2)
    for number in range(4):
        await made(repository, "main", f"echo {number} > out", ["out"])
        for path in cache.iterdir():
            os.utime(path, (time.time() - 7200,) * 2)
    assert len(list(cache.iterdir())) == 3, "two, and the last"


# Failures.


async def test_a_build_that_fails_is_the_runs_outcome_with_its_last_words_and_costs_no_machine(
        play: Play, tmp_path: Path, cache: Path) -> None:
    how = f'{str(repository_of(tmp_path))!r}, "main", "echo no such header >&2; exit 3", "out"'
    result, seen = await play_build(play, "pass", how)
    assert result.outcome == "failed"
    assert "`echo no such header >&2; exit 3` failed with exit code 3:\n  no such header" in result.reason
    assert not [phase for phase, _, _ in seen.phases if phase == "provision"]
    assert b"no such header" in seen.logs["root", "build"] and left(cache) == []


@pytest.mark.parametrize(
    ("ref", "command", "options", "words"),
    [
        ("nowhere", "true", {}, "has no branch or tag 'nowhere'"),
        ("0" * 40, "true", {}, "0" * 40),
        ("main", "true", {}, "has not made out"),
        ("main", "sleep 1000", {"timeout": "500ms"}, "did not end within 500ms"),
        ("main", "kill -9 $$", {}, "was ended by signal 9"),
    ],
)
async def test_each_failure_says_what_is_wrong(
        repository: Path, cache: Path, ref: str, command: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        await made(repository, ref, command, ["out"], **options)
    assert words in str(caught.value) and left(cache) == []


async def test_no_repository_and_no_git_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildFailed, match="does not appear to be a git repository"):
        await made(tmp_path / "nothing", "main", "true", ["out"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="install git"):
        await made(tmp_path, "main", "true", ["out"])


async def test_what_a_build_leaves_in_the_background_does_not_hold_it_up_and_is_ended(
        repository: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    await made(repository, "main", f"sleep 1000 & echo $! > '{pid}'; cp version out", ["out"])
    assert await asyncio.to_thread(gone, int(pid.read_text()))


# What can be meant.


@pytest.mark.parametrize("url", [
    "ext::sh -c id", "ext::id", "fd::17", "-oProxyCommand=id", "--upload-pack=id", "ssh://-oProxyCommand=id/x",
    "git://example.org/x", "http://example.org/x", "https://token@example.org/x", "", 7,
])  # fmt: skip
def test_addresses_that_run_commands_or_can_be_read_or_changed_on_the_way_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="url="):
        git(url, "main", "make", "out")


@pytest.mark.parametrize(
    "url", ["https://example.org/x.git", "ssh://git@example.org:22/x", "git@example.org:a/b", "../x", "a b"])
def test_usual_addresses_are_taken(url: str) -> None:
    assert git(url, "main", "make", "out").url == url


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=id", "a b", "a..b", "main:other", "", "a^", "+main:x", "x@{1}"])
def test_what_is_no_branch_is_refused_also_when_it_comes_from_the_command_line(ref: str) -> None:
    with pytest.raises(UsageError, match="no branch, tag or commit"):
        git("x", ref, "make", "out")
    with pytest.raises(UsageError, match="no branch, tag or commit"):
        git("x", "{branch}", "make", "out").filled({"branch": ref})


@pytest.mark.parametrize("outputs", [[], "/etc/passwd", "../x", "a/../../x", ".", ["a/x", "b/x"], "{id}"])
def test_outputs_are_inside_and_distinct(outputs: list[str]) -> None:
    with pytest.raises(UsageError, match="outputs="):
        git("x", "main", "make", outputs)


async def test_a_parameter_of_the_scenario_can_be_the_branch(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text(f"""
from fanout import git, scenario
@scenario(machines=1, build=git({str(repository_of(tmp_path))!r}, "{{branch}}", "cp version out", "out"))
async def s(fleet, branch: str = "main"):
    assert (await fleet.run(["cat", fleet.build["out"]])).stdout == "two\\n"
""")
    result, _ = await playing.play(path, machines=None, args={"branch": "side"})
    assert result.outcome == "passed", result.reason
    result, _ = await playing.play(path, machines=None)
    assert result.outcome == "failed" and "== " in result.reason


def test_check_sees_it_without_a_network(tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text("""
from fanout import git, scenario
@scenario(build=git("https://no.such.host.invalid/x", "{branch}", "make", "out"))
async def good(fleet, branch: str = "main"): ...
@scenario(build=git("https://no.such.host.invalid/x", "{brunch}", "make", "out"))
async def bad(fleet, branch: str = "main"): ...
""")
    checks = check([path])
    found = [(one.scenario, one.build) for one in checks.scenarios]
    assert found == [("good", "{branch} of https://no.such.host.invalid/x")]
    assert [(one.scenario, "no parameter 'brunch'" in one.reason) for one in checks.problems] == [("bad", True)]


async def test_a_run_that_is_cancelled_while_it_builds_leaves_nothing(
        repository: Path, tmp_path: Path, cache: Path) -> None:
    pid = tmp_path / "pid"
    building = asyncio.ensure_future(
        made(repository, "main", f"echo $$ > '{pid}.new'; mv '{pid}.new' '{pid}'; sleep 1000", ["out"]))
    await until(pid.exists)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert await asyncio.to_thread(gone, int(pid.read_text())) and left(cache) == []


async def test_a_build_counts_in_the_time_of_the_run(play: Play, tmp_path: Path, cache: Path) -> None:
    how = f'{str(repository_of(tmp_path))!r}, "main", "sleep 1000", "out"'
    result, _ = await play_build(play, "pass", how, timeout=0.5)
    assert result.outcome == "failed" and "it was building main of " in result.reason and left(cache) == []


# On a machine.


async def play_there(play: Play, folder: Path, body: str, how: str, **options: object) -> tuple[RunResult, Recorder]:
    """`how`: what is given to `git` behind the repository and the branch."""
    repository = folder / "repository" if (folder / "repository").exists() else repository_of(folder)
    return await play_build(play, body, f'{str(repository)!r}, "side", {how}, where="machine"', **options)


async def test_one_machine_builds_and_all_have_it(play: Play, tmp_path: Path, cache: Path) -> None:
    body = """
        assert (await fleet.run([fleet.build["node"]])).stdout == "two\\n"
        assert (await fleet.run("cat " + fleet.build["data"] + "/version")).stdout == "two\\n"
        assert (await fleet[0].run("cat " + fleet.build["braces"])).stdout == "{" "id}\\n"
        work, left = (await fleet[0].run("pwd; ls")).stdout.splitlines()
        assert (await fleet.run("cat " + fleet.build["where"])).stdout.startswith(work + "/") and left == "build"
    """
    command = f"{BUILD}; pwd > out/where; echo '{{id}}' > out/braces; git log --format=%s | grep two"
    how = f'{command!r}, ["out/node", "out/data", "out/where", "out/braces"]'
    result, seen = await play_there(play, tmp_path, body, how)
    assert result.outcome == "passed", result.reason
    assert [key for key, said in seen.logs.items() if b"compiling" in said] == [("local-0", "build")]
    result, seen = await play_there(play, tmp_path, "pass", how)
    assert result.outcome == "passed", result.reason
    assert any("in the cache" in note for note in seen.notes) and ("local-0", "build") not in seen.logs
    assert left(cache) == []


async def test_what_a_machine_says_of_its_platform_is_another_build_and_never_the_roots(
        play: Play, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("echo one", "true", "echo one"):
        monkeypatch.setattr(workshop, "PLATFORM", platform)
        await play_there(play, tmp_path, "pass", '"cp version out", "out"', machines=1)
    await made(tmp_path / "repository", "side", "cp version out", ["out"])
    assert len(list(cache.iterdir())) == 3


async def test_a_machine_needs_neither_git_nor_the_repository(
        play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository_of(tmp_path)
    environment = {**builder._environment()}
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "cp", "mv", "rm", "uname"):
        (tools / tool).symlink_to(shutil.which(tool))  # type: ignore[arg-type]
    monkeypatch.setattr(shutil, "which", lambda name: str(tools / name))  # the root has it, by its own environment
    monkeypatch.setattr(builder, "_environment", lambda: environment)
    monkeypatch.setenv("PATH", str(tools))
    away = tmp_path / "away"
    command = f"! git --version && mv '{tmp_path / 'repository'}' '{away}' && cp version out"
    result, _ = await play_there(
        play, tmp_path, 'assert (await fleet.run(["cat", fleet.build["out"]])).stdout == "two\\n"',
        f'{command!r}, "out"')
    assert result.outcome == "passed", result.reason


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ('"echo no such header >&2; exit 3", "out"', "ended (exit 3):\n  no such header"),
        ('"true", "out"', "has not made out"),
        ('"sleep 1000", "out", timeout="2s"', "did not end within 2.0s"),
        ('"mkdir out; ln -s /etc out/etc", "out"', "leads out"),
        ('"kill -9 $PPID", "out"', "local-0"),  # the agent: the machine is lost
    ],
)
async def test_a_build_that_fails_on_a_machine_says_why(
        play: Play, tmp_path: Path, cache: Path, how: str, words: str) -> None:
    result, _ = await play_there(play, tmp_path, "pass", how, machines=2)
    assert result.outcome == "failed" and "the build of side of " in result.reason, result.reason
    assert words in result.reason and left(cache) == [] and list(cache.iterdir()) == []


@pytest.mark.parametrize(("lost", "quorum", "builders"), [(1, 0.5, 2), (3, 0.2, 3), (1, 1.0, 1), (2, 0.7, 2)])
async def test_where_the_building_machine_is_lost_the_next_one_builds_within_the_quorum_and_a_bound(
    play: Play, tmp_path: Path, cache: Path, lost: int, quorum: float, builders: int
) -> None:
    command = f"[ $FANOUT_ID -ge {lost} ] || kill -9 $PPID; cp version out"
    repository = repository_of(tmp_path)
    path = playing.write(
        tmp_path, 'assert (await fleet.run(["cat", fleet.build["out"]])).stdout == "two\\n"',
        f'quorum={quorum}, build=git({str(repository)!r}, "side", {command!r}, "out", where="machine")')
    result, seen = await playing.play(path, machines=4)
    tried = [note.partition(" on ")[2].partition(":")[0] for note in seen.notes if command in note]
    assert tried == [f"local-{i}" for i in range(builders)]
    told = [note for note in seen.notes if "was lost while it built: the next machine builds" in note]
    assert len(told) == builders - 1 and left(cache) == []
    if builders > lost:
        assert result.outcome == "passed", result.reason
    else:
        assert result.outcome == "failed" and f"local-{builders - 1}" in result.reason, result.reason


async def test_a_branch_that_is_not_there_costs_no_machine(play: Play, tmp_path: Path) -> None:
    how = f'{str(repository_of(tmp_path))!r}, "nowhere", "true", "out", where="machine"'
    result, seen = await play_build(play, "pass", how)
    assert result.outcome == "failed" and "no branch or tag 'nowhere'" in result.reason
    assert not [phase for phase, _, _ in seen.phases if phase == "provision"]


async def test_a_repository_that_cannot_be_sent_says_what_else_there_is(play: Play, tmp_path: Path) -> None:
    repository = repository_of(tmp_path)
    (repository / "link").symlink_to("/etc")
    commands(repository, "add .", "commit -qm link")
    result, _ = await play_there(play, tmp_path, "pass", '"true", "out"', machines=1)
    assert result.outcome == "failed" and "leads out" in result.reason and "where='root'" in result.reason


async def test_what_a_build_leaves_in_the_background_of_a_machine_is_ended(play: Play, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = f"assert not Path('/proc', Path({str(pid)!r}).read_text().strip()).exists()"
    command = f"setsid sleep 1000 & echo $! > '{pid}'; cp version out"
    result, _ = await play_there(
        play, tmp_path, f"from pathlib import Path\n{body}", f'{command!r}, "out"', machines=1)
    assert result.outcome == "passed", result.reason


async def test_a_build_on_a_machine_counts_in_the_time_of_the_run_and_is_named(play: Play, tmp_path: Path) -> None:
    result, _ = await play_there(play, tmp_path, "pass", '"sleep 1000", "out"', machines=1, timeout=5.0)
    assert result.outcome == "failed" and "it was building side of " in result.reason and "local-0" in result.reason


@pytest.mark.sshd
async def test_a_host_builds_for_others_over_ssh(
        sshd: LoopbackSshd, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = home_of(tmp_path, sshd)
    repository_of(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    result, seen = await play_there(
        play, tmp_path, 'assert (await fleet.run([fleet.build["node"]])).stdout == "two\\n"', f'{BUILD!r}, "out/node"',
        machines=None, fleet=f"hosts:{hosts}", relays=0)
    assert result.outcome == "passed", result.reason
    assert seen.logs["n1", "build"] == b"compiling\n"


@pytest.mark.parametrize("how", ['where="moon"', 'where=None'])
def test_check_knows_where_a_build_can_be(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s.py"
    path.write_text(f"""
from fanout import git, scenario
@scenario(build=git("x", "main", "make", "out", {how}))
async def s(fleet): pass
""")
    assert ["write 'root' or 'machine'" in one.reason for one in check([path]).problems] == [True]


def test_outputs_on_a_machine_are_no_patterns() -> None:
    with pytest.raises(UsageError, match="without"):
        git("x", "main", "make", "out/*", where="machine")
    assert git("x", "main", "make", "out", where="machine").where == "machine"
