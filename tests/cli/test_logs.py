"""`fanout logs`: of a run that is over from its folder; of one that goes on, from its machines."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.agent.core import frames
from fanout.fleets.base import Host
from fanout.report.folder import RunFolder
from fanout.root.outcomes import Report
from tests.faults.test_limits import FAKETIME, wrapper
from tests.root.trees import outputs, session, until
from tests.root.trees import run as command

SCENARIO = """\
from fanout import scenario

@scenario(machines=3)
async def s(fleet):
    body = "echo old $FANOUT_ID; echo begun; while read line; do echo got $line; fanout report heard; done; sleep 1000"
    p = await fleet.spawn(body, name="quiet", ready="begun", logs="file")
    silent = await fleet.spawn("echo nothing; sleep 1000", name="silent", logs="none")
    fleet.report("ready")
    await fleet.wait("go", timeout="60s")
    await p.write("hello\\n")
    await p.wait_log("got hello", since="start")
    late = await fleet[1].spawn("echo started late; sleep 1000", name="late", ready="late")
    await fleet.wait("go", 2, timeout="60s")
"""


def logs(*words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fanout.cli", "logs", *words], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment}, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with RunFolder("r1", scenario="s.py", fleet="local", path=tmp_path / "run") as folder:
        for number in range(3):
            folder.log(f"m-{number}", "p", b"same\n\x1b[31mline\n", 100.0 - number)
        folder.log("m-0", "q", b"other\n", 50.0)
        folder.report(Report(0, "m-0", 1, 7000.0, "two\nlines", {"block": 3}, 99.5))
    return tmp_path / "run"


def test_lines_name_machine_and_process_and_json_and_folding_tell_the_same(run: Path) -> None:
    assert logs(str(run), "--grep", "same|other").stdout.splitlines() == [
        "m-0:q: other", "m-2:p: same", "m-1:p: same", "m-0:p: same"]
    assert logs(str(run), "m-[1-2]:p", "-N").stdout == "same\n\x1b[31mline\n" * 2, "to a pipe bytes go exactly"
    record = json.loads(logs(str(run), "m-0:q", "--json").stdout)
    assert record == {"time": 50.0, "machine": "m-0", "process": "q", "text": "other"}
    assert logs(str(run), ":p", "-b", "--grep", "same").stdout == "m-[0-2] (3): same\n"


def test_reports_stand_among_the_lines_unless_a_process_is_named(run: Path) -> None:
    assert logs(str(run), "m-0").stdout.splitlines() == [
        "m-0:q: other", "[m-0] two", "[m-0] lines", "m-0:p: same", "m-0:p: \x1b[31mline"]
    assert "[m-0]" not in logs(str(run), "m-0:p").stdout
    record = json.loads(logs(str(run), "--reports", "--json").stdout)
    assert record == {"time": 99.5, "machine": "m-0", "process": None, "text": "two\nlines", "fields": {"block": 3}}
    logs(str(run), "m-1", "--reports", code=2)


@pytest.mark.skipif(FAKETIME is None and "CI" not in os.environ, reason="needs faketime")
async def test_lines_and_reports_come_in_the_order_of_time_whatever_the_machines_clocks_say(tmp_path: Path) -> None:
    """One after the other prints and reports, on machines whose clocks are hours apart, also behind a relay."""
    hosts: list[Host] = []
    for number, off in enumerate(("+0", "-7200", "+7200", "+3600", "-3600")):
        folder = tmp_path / off
        folder.mkdir()
        python = wrapper(folder, f"export LD_PRELOAD={FAKETIME} FAKETIME={off}; exec")
        hosts.append(Host(f"m-{number}", "127.0.0.1", local=True, python=python))
    order = [3, 0, 4, 2, 1] * 3
    heard: list[bytes] = []
    said: list[str] = []
    with RunFolder("r1", scenario="s.py", fleet="local", path=tmp_path / "run") as run:
        async with session(hosts, [None, 0, 0, 1, None], folder=str(tmp_path)) as up:
            clocks = outputs(await command(up, up.up, argv=["date", "+%s"]))
            assert int(clocks[2]) - int(clocks[1]) > 14_000, "they do not differ"

            def report(one: Report) -> None:
                run.report(one)
                said.append(one.text)

            def log(machine: int, _: int, data: bytes, when: float) -> None:
                run.log(f"m-{machine}", "p", data, when)
                heard.append(data)

            up.on_report, up.on_log = report, log
            shell = 'while read line; do echo $line; read heard; fanout report "$line"; done'
            call = up.call(frames.SPAWN, up.up, {"shell": shell, "name": "p", "logs": "all"})
            for count, machine in enumerate(order, 1):
                for data, came in (b"line %d\n" % (count - 1), heard), (b"heard\n", said):  # a busy agent may lag
                    up.call(frames.PROCESS, 1 << machine, [call.number, "write", data, False])
                    await until(lambda came=came, count=count: len(came) == count)
                await asyncio.sleep(0.05)  # further apart than what machines may be wrong by about the root's clock
    shown = logs(str(tmp_path / "run")).stdout.splitlines()
    assert shown == [
        text for number, machine in enumerate(order)
        for text in (f"m-{machine}:p: line {number}", f"[m-{machine}] line {number}")]


def test_the_last_run_is_found_by_that_name(run: Path, tmp_path: Path) -> None:
    known = tmp_path / "state/fanout/runs"
    shutil.copytree(run, known / "run")
    assert logs("last", "m-0:q", XDG_STATE_HOME=str(tmp_path / "state")).stdout == "m-0:q: other\n"


@pytest.mark.parametrize(("words", "code", "why"), [
    (["nowhere"], 2, "there is no run 'nowhere'"), ([".", "m-0"], 2, "not the folder of a run"),
    (["RUN", "m-0:x"], 2, "there are m-0:p, m-0:q"), (["RUN", "--grep", "("], 2, "--grep"),
    (["RUN", "--grep", "never"], 1, ""), (["RUN", "-f", "--fold"], 2, "-f"),
])  # fmt: skip
def test_what_is_not_there_is_said(run: Path, words: list[str], code: int, why: str) -> None:
    assert why in logs(*[str(run) if word == "RUN" else word for word in words], code=code).stderr


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Path]:
    """A run that waits for a signal; the path of its folder is longer than that of a socket may be."""
    (tmp_path / "s.py").write_text(SCENARIO)
    path = tmp_path / ("long" * 25) / "run"
    command = [sys.executable, "-m", "fanout.cli", "run", "s.py", "--run-dir", str(path)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as play:
        assert play.stdout is not None
        for line in play.stdout:
            if "ready" in line:
                break
        yield path
        play.terminate()
        play.communicate(timeout=60)


def test_any_process_is_followed_while_the_run_goes_on(going: Path) -> None:
    assert (going / "live").stat().st_mode & 0o777 == 0o600
    command = [sys.executable, "-m", "fanout.cli", "logs", str(going), "-f"]
    seen: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None and following.stderr is not None

        def read(count: int) -> set[str]:
            seen.update(following.stdout.readline().rstrip("\n") for _ in range(count))  # type: ignore[union-attr]
            return seen

        wanted = {f"local-{i}:quiet: {text}" for i in range(3) for text in (f"old {i}", "begun")} | {"[root] ready"}
        assert read(7) == wanted
        signal(going)
        wanted |= {f"local-{i}:quiet: got hello" for i in range(3)} | {"local-1:late: started late"}
        wanted |= {f"[local-{i}] heard" for i in range(3)}
        assert read(7) == wanted
        signal(going)
        rest, said = following.communicate(timeout=60)
        assert rest == ""
        assert following.returncode == 0
    assert said.count("nothing is kept of what it prints") == 3
    assert not (going / "live").exists()


def signal(run: Path) -> None:
    """From one of its machines, as a program there would."""
    name = json.loads((run / "run.json").read_text())["run"]
    (folder,) = Path(os.environ.get("TMPDIR", "/tmp")).glob(f"fanout-{name}-0")
    subprocess.run([folder / "bin" / "fanout", "signal", "go"], env={**os.environ, "FANOUT_FOLDER": str(folder)},
                   timeout=30, check=True)
