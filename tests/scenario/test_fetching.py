"""`fetch` and `collect`: what comes home is what was there; what is left out is said, by name and with the reason."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fanout.root.outcomes import RunOutcome
from tests.scenario.conftest import Passes
from tests.scenario.play import Play

HEAD = """\
import hashlib
from pathlib import Path
keep = lambda name: Path({path!r}) / name
"""

TREE: list[dict[str, int]] = [{"machines": 3, "relays": 0}, {"machines": 7, "relays": 2, "depth": 3}]


@pytest.fixture
def fetches(passes: Passes, tmp_path: Path) -> Passes:
    """As `passes`, for a run whose folder is `keep`'s."""

    async def fetches(body: str, **options: Any):  # type: ignore[no-untyped-def]
        machines = tmp_path / "machines"
        head = HEAD.format(path=str(machines))
        return await passes(head + dedent(body), place=lambda name: machines / name, **options)

    return fetches


@pytest.mark.parametrize("shape", TREE)
async def test_files_come_from_every_machine_with_their_bytes_and_mode(fetches: Passes, shape) -> None:
    await fetches("""
        await fleet.run("mkdir -p out/sub/deep && cd out && printf 'of {name}' > a.txt && chmod 750 a.txt &&"
                        " seq 200000 > sub/numbers && head -c 3000000 /dev/urandom > sub/noise && : > sub/deep/none"
                        " && ln -s ../a.txt sub/link && mkdir empty && touch '.hidden' sub/\\"o'dd\\n\\"")
        fetched = await fleet.fetch("out")
        assert fetched.machines == fleet and not fetched.left_out, fetched.left_out
        for machine in fleet:
            top = keep(machine.name) / "files" / "out"
            assert (top / "a.txt").read_text() == f"of {machine.name}"
            assert (top / "a.txt").stat().st_mode & 0o777 == 0o750
            assert (top / "sub/numbers").read_text() == "".join(f"{i}\\n" for i in range(1, 200_001))
            assert (top / "sub/deep/none").read_bytes() == b"" and (top / "empty").is_dir()
            assert (top / "sub/link").readlink() == Path("../a.txt") and (top / ".hidden").exists()
            assert (top / "sub/o'dd\\n").exists() and len(fetched[machine]) == 7
            sums = (await machine.run("sha256sum < out/sub/noise")).stdout.split()[0]
            assert hashlib.sha256((top / "sub/noise").read_bytes()).hexdigest() == sums
    """, **shape)


async def test_a_pattern_names_files_as_a_shell_would(fetches: Passes) -> None:
    await fetches("""
        await fleet.run("mkdir -p d/a d/b/c d/.h && touch d/1.log d/a/2.log d/b/3.txt d/b/c/4.log d/.h/5.log d/6x.log"
                        " && ln -s a d/l && printf x > d/b/real && ln -s b/real d/current")

        async def names(pattern, machine=fleet[0], **options):
            fetched = await machine.fetch(pattern, into=f"n{len(list(keep('').glob('*/*')))}", **options)
            return [str(path).split("/n", 1)[1].split("/", 1)[1] for path in sorted(fetched[machine])]

        assert await names("d/*.log") == ["1.log", "6x.log"]
        assert await names("d/[0-3]*.log") == ["1.log"]
        assert await names("d/*/*.log") == ["a/2.log", "l/2.log"]
        assert await names("d/**/*.log") == ["1.log", "6x.log", "a/2.log", "b/c/4.log"]
        assert await names("d/b/**") == ["3.txt", "c/4.log", "real"]
        assert await names("d/{id}.log") == []
        assert await names("d/{id}.log", fleet[1]) == ["1.log"]
        assert await names("./d//a") == ["a/2.log"]
        fetched = await fleet[0].fetch("d/current", into="current")
        assert [path.read_text() for path in fetched[fleet[0]]] == ["x"] and not fetched[fleet[0]][0].is_symlink()
    """, machines=2)


async def test_what_cannot_be_brought_is_said_by_name_and_the_rest_comes(fetches: Passes) -> None:
    _, seen = await fetches("""
        await fleet.run("mkdir out && cd out && mkfifo pipe && ln -s /etc/passwd away && ln -s /etc/group beyond"
                        " && echo x > good && echo y > Good"
                        " && ln -s ../../../../x up && python3 -c 'import socket;"
                        " socket.socket(socket.AF_UNIX).bind(\\"sock\\")'")
        fetched = await fleet.fetch("out")
        said = "; ".join(what for _, what in fetched.left_out)
        for what in ("out/pipe: it is a named pipe", "out/sock: it is a socket", "out/away -> /etc/passwd",
                     "out/beyond -> /etc/group", "out/up -> ../../../../x"):
            assert what in said, said
        assert said.count("it is a link that leads out") == 1, "many links are one reason"
        assert all(group == fleet for group, _ in fetched.left_out)
        for machine in fleet:
            assert sorted(path.name.casefold() for path in fetched[machine]) == ["good", "good~2"]
        assert not (await fleet[0].fetch("out/nothing-like-it")).files
    """, machines=2)
    assert any("local-[0-1]" in warning and "named pipe" in warning for warning in seen.warnings)


async def test_a_file_that_changes_while_it_is_read_comes_as_it_was_read_and_that_is_said(fetches: Passes) -> None:
    await fetches("""
        import os
        big = (await fleet[1].run("head -c 20000000 /dev/urandom > big; echo $PWD/big")).stdout.strip()
        await fleet[0].run("head -c 20000000 /dev/urandom > big")
        fetching = asyncio.ensure_future(fleet.fetch("big"))
        while not any(path.stat().st_size for path in keep("local-1").glob("files/.fanout-*")):
            await asyncio.sleep(0)
        os.truncate(big, 19_000_000)
        fetched = await fetching
        assert [(group.names, "big: it was written to while it was read" in what)
                for group, what in fetched.left_out] == [(["local-1"], True)], fetched.left_out
        assert fetched[fleet[0]][0].stat().st_size == 20_000_000
        assert fetched[fleet[1]][0].stat().st_size <= 20_000_000
    """, machines=2)


async def test_ten_thousand_small_files_and_one_with_holes(fetches: Passes) -> None:
    await fetches("""
        create = "[open(str(i), 'x').close() for i in range(10000)]"
        await fleet[1].run(f'mkdir many && cd many && python3 -c "{create}"'
                           " && truncate -s 4G sparse && printf end >> sparse")
        fetched = await fleet[1].fetch("many", cap="1MB")
        assert len(fetched[fleet[1]]) == 10_001 and not fetched.left_out, fetched.left_out
        sparse = keep("local-1") / "files/many/sparse"
        assert sparse.stat().st_size == (4 << 30) + 3 and sparse.stat().st_blocks < 1000
        with sparse.open("rb") as file:
            file.seek(4 << 30)
            assert file.read() == b"end"
    """, machines=2, relays=1)


async def test_what_is_beyond_a_cap_is_counted_and_the_rest_comes(fetches: Passes) -> None:
    await fetches("""
        await fleet.run("mkdir out && head -c 900000 /dev/urandom > out/large && echo small > out/small")
        fetched = await fleet.fetch("out", cap="100KB")
        assert {path.name for path in fetched[fleet[2]]} == {"small"}
        assert [(group, what) for group, what in fetched.left_out] == [
            (fleet, "not brought: out/large (900000 bytes): it is beyond the cap of this machine")]
        fetched = await fleet.fetch("out", into="total", total="2MB")
        brought = [path for paths in fetched.files.values() for path in paths if path.name == "large"]
        assert len(brought) == 2 and sum(path.stat().st_size for path in brought) == 1_800_000
        assert sum("large" in what for _, what in fetched.left_out) == 1 and fetched.bytes < 2 << 20
        assert not list(keep("").rglob(".fanout-*"))
    """, machines=3)


async def test_a_relay_that_dies_in_the_middle_costs_nobody_else_a_byte(fetches: Passes) -> None:
    await fetches("""
        import os, signal
        await fleet.run("head -c 12000000 /dev/urandom > big")
        pid = int((await fleet[0].run("echo $PPID")).stdout)
        fleet.may_lose(fleet[0])
        fetching = asyncio.ensure_future(fleet.fetch("big"))
        while not any(path.stat().st_size for path in keep("").glob("*/files/.fanout-*")):
            await asyncio.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(FetchFailed, match="1 of 6 machines") as failed:
            await fetching
        others = fleet[1:]
        assert failed.value.fetched.machines - fleet[0] == others
        sums = await others.run("sha256sum < big")
        for machine in others:
            (path,) = failed.value.fetched[machine]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[machine].stdout.split()[0]
    """, machines=6, relays=2)


async def test_control_goes_before_files(fetches: Passes) -> None:
    await fetches("""
        import time
        await fleet.run("head -c 30000000 /dev/urandom > big")
        fetching = asyncio.ensure_future(fleet.fetch("big"))
        taken = []
        while not fetching.done():
            began = time.monotonic()
            await fleet.run("true")
            taken.append(time.monotonic() - began)
        await fetching
        assert len(taken) > 1 and sorted(taken)[len(taken) // 2] < 5, taken
    """, machines=4, relays=1)


async def test_on_failure_files_come_only_when_the_run_fails(play: Play, tmp_path: Path) -> None:
    body = """
        await fleet.run("echo why > core")
        await fleet.fetch("core", when="on_failure")
        assert {}
    """
    for holds in (True, False):
        keep = (tmp_path / str(holds)).joinpath
        result, _ = await play(body.format(holds), machines=2, place=keep)
        assert result.outcome is (RunOutcome.PASSED if holds else RunOutcome.FAILED)
    assert not (tmp_path / "True").exists()
    assert (tmp_path / "False/local-1/files/core").read_text() == "why\n"


async def test_collected_logs_come_at_the_end_those_of_killed_processes_too(play: Play, tmp_path: Path) -> None:
    result, seen = await play("""
        noisy = "trap 'echo bye; exit 0' TERM; seq 100000; echo ready; while :; do sleep 0.05; done"
        await fleet.spawn(noisy, name="noisy", ready="ready", collect="always")
        killed = await fleet.spawn("echo before; sleep 1000", name="killed", ready="before", collect="always")
        await killed.kill()
        await fleet.spawn("echo quiet; sleep 1000", name="quiet", ready="quiet", collect="on_failure")
        bad = await fleet[0].spawn("echo bad; sleep 0.1; exit 3", name="bad", ready="bad", collect="on_failure")
        await bad.wait()
        await fleet.spawn("for i in 1 2 3; do seq 20000; done; echo end; sleep 1000", name="capped", ready="end",
                          cap="64KB", collect="always")
    """, machines=3, relays=1, place=lambda name: tmp_path / name)
    assert result.outcome is RunOutcome.PASSED, result.reason
    assert not seen.warnings
    for machine in ("local-0", "local-1", "local-2"):
        folder = tmp_path / machine / "collected"
        noise = (folder / "noisy.log").read_text().splitlines()
        assert noise[:100_001] == [*map(str, range(1, 100_001)), "ready"]
        assert noise[-1] == "bye"
        assert (folder / "killed.log").read_text() == "before\n"
        assert (folder / "capped.log").read_text().endswith("20000\nend\n")
        names = ["noisy", "killed", "capped"] + (["bad"] if machine == "local-0" else [])
        assert {path.name for path in folder.iterdir()} == {f"{n}.{kind}" for n in names for kind in ("log", "times")}


async def test_logs_that_do_not_come_in_time_are_counted_and_said(
        play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.scenario.collecting.COLLECT", 0.0)
    result, _ = await play("""
        await fleet.spawn("head -c 9000000 /dev/urandom; echo; echo ready; sleep 1000", name="big", ready="ready",
                          collect="always")
    """, machines=1, place=tmp_path.joinpath)
    assert result.outcome is RunOutcome.PASSED
    said = "\n".join(result.problems)
    assert re.search(r"local-0: \d{7} bytes of reports and logs did not reach the root in time", said), said
    assert not list(tmp_path.rglob("*.log"))
    assert not list(tmp_path.rglob(".fanout-*"))


@pytest.mark.parametrize(("text", "why"), [
    ('fleet.fetch("x", into="../x")', "into="),
    ('fleet.fetch("/")', "name files"),
    ('fleet.fetch("x", when="sometimes")', "when='sometimes'"),
    ('fleet.spawn("x", collect="yes")', "collect='yes'"),
    ('fleet.spawn("x", collect="always", logs="none")', "no file to collect"),
    ('fleet.fetch("x")', "keeps no folder"),
])  # fmt: skip
async def test_what_cannot_be_meant_is_said(play: Play, text: str, why: str) -> None:
    result, _ = await play(f"await {text}", machines=1)
    assert result.outcome is RunOutcome.ERROR
    assert why in result.reason
