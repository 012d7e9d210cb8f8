"""The exec fleet: what its program is told, what becomes of what it says, and that `down` has the last word."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fanout.durations import show
from fanout.errors import FleetError, UsageError
from fanout.fleets import program, script
from fanout.fleets.base import Host, Request
from fanout.fleets.hosts import parse
from fanout.fleets.script import ScriptFleet
from fanout.scenario.runner import RunOptions, run
from tests.agent.parent import gone
from tests.patience import LIMITS
from tests.scenario.play import Recorder, play, write
from tests.sshd import need_isolation, need_sshd

PROJECT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIzGLxgFvaFeHkkBJRvWTMnnFJbq0oQFqOwqCw3GQyqk"

Make = Callable[..., ScriptFleet]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A fleet of a program whose `up` is this text of a shell; its `down` keeps what it was given."""
    monkeypatch.chdir(tmp_path)

    def made(up: str, down: str = "", options: str = "") -> ScriptFleet:
        path = tmp_path / "a fleet, $(made) by hand"
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = up ]; then\n{up}\nexit\nfi\ncat > down.tmp; mv down.tmp down\n{down or ":"}\n'
        )
        path.chmod(0o755)
        return ScriptFleet(f"./{path.name}{options}")

    return made


async def provision(fleet: ScriptFleet, machines: int | None = None, **roles: int) -> list[Host]:
    return await fleet.provision(Request("r1", machines, roles, relays=2), lambda done, total: None)


async def test_it_is_told_what_is_wanted_and_its_hosts_are_taken(make: Make) -> None:
    record = {
        "address": "10.0.0.7", "name": "seven", "user": "me", "port": 2222, "role": "db", "relay": True,
        "host_keys": [f"{KEY} a comment"], "jump": None,
    }  # fmt: skip
    keep = 'cat > asked; echo "$2 $FANOUT_REQUEST" > told'
    fleet = make(f"{keep}; echo 'root@n[1-2]:23'; echo; echo '{json.dumps(record)}'")
    try:
        hosts = await provision(fleet, 3, db=1)
    finally:
        await fleet.release()
    asked = {"run": "r1", "machines": 3, "roles": {"db": 1}, "relays": 2, "ttl": None}
    assert json.loads(Path("asked").read_text()) == asked
    number, _, told = Path("told").read_text().partition(" ")
    assert number == "3" and json.loads(told) == asked
    assert hosts == [
        Host("n1", "n1", user="root", port=23),
        Host("n2", "n2", user="root", port=23),
        Host("seven", "10.0.0.7", role="db", relay=True, user="me", port=2222, host_keys=(KEY,)),
    ]
    assert Path("down").read_text() == f"root@n[1-2]:23\n\n{json.dumps(record)}\n"


async def test_without_a_number_it_decides_itself(make: Make) -> None:
    fleet = make('cat > asked; [ "$2" = 0 ] && echo a b; echo n1; echo n2')
    with pytest.raises(FleetError, match="line 1: unknown option 'b'"):
        await provision(fleet)
    await fleet.release()
    assert json.loads(Path("asked").read_text())["machines"] is None
    assert Path("down").read_text() == "a b\nn1\nn2\n"


async def test_more_than_asked_for_are_left_alone_and_removed(make: Make) -> None:
    fleet = make("echo 'n[1-5]'")
    assert len(await provision(fleet, 3)) == 3
    await fleet.release()
    assert Path("down").read_text() == "n[1-5]\n"


@pytest.mark.parametrize(
    ("up", "words"),
    [
        ("echo n1; echo oh >&2; echo no >&2; exit 3", r"by hand up failed with exit code 3:\n  oh\n  no$"),
        ("echo n1; exit 3", "failed with exit code 3 and said nothing$"),
        ("echo n1; kill -9 $$", "was ended by signal 9"),
        ("echo n1", "2 machines are wanted and the fleet has 1"),
        ("echo n1; echo '{\"address\": 5}'", "up printed, line 2: address is text, not 5"),
        ("echo n1; echo -e", r"up printed, line 2: '-e'"),
        ("echo n1; printf '\\377'", "is not UTF-8"),
        ("echo n1; yes 1234567 | head -c 20000000", "printed more than 16 MiB"),
    ],
)
async def test_what_goes_wrong_is_told_and_down_is_called_all_the_same(up: str, words: str, make: Make) -> None:
    fleet = make(up)
    with pytest.raises(FleetError, match=words):
        await provision(fleet, 2)
    assert not Path("down").exists()
    await fleet.release()
    assert Path("down").read_bytes().startswith(b"n1\n")


async def test_its_stderr_is_told_line_by_line_as_it_comes(make: Make) -> None:
    os.mkfifo("go")
    fleet = make("echo one >&2; read -r _ < go; printf 'two\\n\\n%5000d' 3 >&2; echo n1", "echo bye >&2")
    said: list[str] = []
    first = asyncio.Event()

    def say(text: str) -> None:
        said.append(text.removeprefix("a fleet, $(made) by hand: "))
        first.set()

    fleet.say = say
    task = asyncio.ensure_future(provision(fleet, 1))
    await asyncio.wait_for(first.wait(), 20.0)
    assert said == ["one"]
    await asyncio.to_thread(Path("go").write_text, "\n")
    await task
    assert said[1] == "two" and "".join(said[2:]).endswith("3") and max(map(len, said)) <= program.LINE
    await fleet.release()
    assert said[-1] == "bye"


async def test_a_program_that_takes_too_long_is_ended_with_its_group(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "GRACE", 0.2)
    deaf = "sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done'"
    for limit in LIMITS:
        fleet = make(f"trap '' TERM; echo n1; {deaf}", options=f",timeout={limit}")
        with pytest.raises(FleetError, match=rf"did not end within {show(limit)}.*timeout="):
            await provision(fleet, 1)
        await fleet.release()
        if Path("pid").exists():
            break
    assert gone(int(Path("pid").read_text()))
    assert Path("down").read_text() == "n1\n"


async def test_an_up_that_outlived_its_fanout_is_ended_before_down(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "GRACE", 0.2)
    deaf = "trap '' TERM; echo $$ > pid.tmp; mv pid.tmp pid; while :; do sleep 0.1; done"
    dead = make(deaf)
    noted: list[Any] = []
    dead.record = noted.append
    task = asyncio.ensure_future(provision(dead, 3))
    async with asyncio.timeout(20):
        while not Path("pid").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await ScriptFleet.reclaim("r1", noted[-1], lambda line: None)
    assert gone(int(Path("pid").read_text())) and Path("down").read_text() == ""
    with pytest.raises(FleetError, match="signal"):
        await task


async def test_an_up_that_is_interrupted_gets_to_tidy_up_first(make: Make) -> None:
    fleet = make("trap 'echo n2; exit 1' TERM; echo n1; touch under-way; while :; do sleep 0.1; done")
    task = asyncio.ensure_future(provision(fleet, 3))
    async with asyncio.timeout(20):
        while not Path("under-way").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fleet.release()
    assert Path("down").read_text() == "n1\nn2\n"


async def test_what_up_leaves_in_the_background_is_not_waited_for(make: Make) -> None:
    fleet = make("echo n1; sleep 300 & echo $! > pid", "kill $(cat pid)")
    assert len(await provision(fleet, 1)) == 1
    pid = int(Path("pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    await fleet.release()
    assert gone(pid)


async def test_a_down_that_fails_says_what_is_left_and_may_be_tried_again(make: Make) -> None:
    fleet = make("echo n1", "[ -e again ] || { touch again; echo no rights >&2; exit 4; }")
    await provision(fleet, 1)
    with pytest.raises(FleetError, match=r"down failed with exit code 4:\n  no rights\n.*still be there.*: n1$"):
        await fleet.release()
    await fleet.release()


async def test_who_stops_waiting_for_down_does_not_stop_it(make: Make) -> None:
    os.mkfifo("go")
    fleet = make("echo n1", "echo down >> downs; read -r _ < go; echo removed >> downs")
    await provision(fleet, 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fleet.release(), 0.2)
    again = asyncio.ensure_future(fleet.release())
    await asyncio.to_thread(Path("go").write_text, "\n")
    await again
    assert Path("downs").read_text() == "down\nremoved\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [("", "which program"), ("./none", "there is no file"), ("./plain", r"not executable: chmod \+x"),
     ("./plain,timeout=soon", "not a duration"), ("./plain,timeout=0", "more than 0")],
)  # fmt: skip
def test_a_bad_spec_is_a_usage_error(spec: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").touch()
    with pytest.raises(UsageError, match=words):
        ScriptFleet(spec)


async def test_a_file_that_is_no_program_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("echo n1\n")
    (tmp_path / "p").chmod(0o755)
    fleet = ScriptFleet(str(tmp_path / "p"))
    with pytest.raises(FleetError, match="#!/bin/sh"):
        await provision(fleet, 1)
    await fleet.release()


# In a run.

LOCAL = "echo '127.0.0.1 name=n1'; echo making >&2"


async def test_a_run_shows_what_it_says_and_a_failure_still_ends_with_down(make: Make, tmp_path: Path) -> None:
    make(f"{LOCAL}; exit 9", "echo gone >&2")
    recorder = Recorder()
    with pytest.raises(FleetError, match="exit code 9"):
        await play(write(tmp_path, "pass"), recorder, fleet="exec:./a fleet, $(made) by hand", machines=1)
    assert [note.partition(": ")[2] for note in recorder.notes] == ["making", "gone"]
    assert Path("down").read_text() == "127.0.0.1 name=n1\n"


async def test_a_run_that_is_interrupted_while_machines_are_made_ends_with_down(make: Make, tmp_path: Path) -> None:
    make(f"{LOCAL}; while :; do sleep 0.1; done")
    recorder = Recorder()
    recorder.note = lambda text: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[method-assign]
    options = RunOptions(fleet="exec:./a fleet, $(made) by hand", machines=1)
    result = await run(write(tmp_path, "pass"), options, [recorder])
    assert result.outcome == "interrupted"
    assert Path("down").read_text() == "127.0.0.1 name=n1\n"


# The examples.

@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH with this `fanout` in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "fanout"
    command.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{PROJECT}" "{sys.executable}" -m fanout.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


async def test_the_static_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pool").write_text("# our pool\n\nn1\nroot@n2:23\n n3 # spare\n")
    monkeypatch.setenv("POOL", str(tmp_path / "pool"))
    for machines, names in (2, ["n1", "n2"]), (None, ["n1", "n2", "n3"]):
        fleet = ScriptFleet(f"{PROJECT}/bootstrap/static-pool.sh")
        assert [host.name for host in await provision(fleet, machines)] == names
        await fleet.release()
    monkeypatch.setenv("POOL", "/none")
    with pytest.raises(FleetError, match="cannot read /none: write a host a line"):
        await provision(fleet, 1)
    await fleet.release()


TERRAFORM = f"""#!/bin/sh
echo "$@" >> calls
case "$*" in
*apply*) echo "Apply complete!" ;;
*output*) echo '[{{"address": "10.0.0.1", "name": "a", "host_keys": ["{KEY}"], "role": null}},'
          echo '{{"address": "10.0.0.2"}}]' ;;
esac
"""


async def test_terraform_output(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path / "terraform").write_text(TERRAFORM)
    (path / "terraform").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    fleet = ScriptFleet(f"{PROJECT}/bootstrap/terraform-output.sh,timeout=1m")
    assert await provision(fleet, 2) == [Host("a", "10.0.0.1", host_keys=(KEY,)), Host("10.0.0.2", "10.0.0.2")]
    await fleet.release()
    calls = [line.split()[1] for line in Path("calls").read_text().splitlines()]
    assert calls == ["init", "apply", "output", "destroy"] and "machines=2" in Path("calls").read_text()


@pytest.mark.lab
@pytest.mark.skipif(not shutil.which("seq"), reason="no coreutils")
async def test_a_whole_run_on_a_lab_that_a_program_makes(path: Path, tmp_path: Path) -> None:
    need_sshd()
    need_isolation()
    body = """
        names = await fleet.run("echo {name} $(hostname)")
        fleet.report(" ".join(sorted(one.stdout.strip() for one in names)))
    """
    fleet = f"exec:{PROJECT}/bootstrap/lab.sh"
    result, seen = await play(write(tmp_path, body), fleet=fleet, machines=2)
    assert result.outcome == "passed", result.reason
    assert [report.text for report in seen.reports] == ["lab-001 lab-001 lab-002 lab-002"]
    assert seen.notes[-1].endswith("2 hosts removed") and not seen.warnings


def test_all_examples_are_programs() -> None:
    for name in ("static-pool.sh", "terraform-output.sh", "lab.sh"):
        assert os.access(PROJECT / "bootstrap" / name, os.X_OK)


# The lines that programs write.

@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not a JSON object"), ('{"address": "a", "x": 1}', "unknown field 'x'"), ("{}", 'no "address"'),
        ('{"address": "-e"}', "address=-e"), ('{"address": "a", "port": true}', "port is a number"),
        ('{"address": "a", "port": 70000}', "65535"), ('{"address": "a", "name": "../x"}', "name="),
        ('{"address": "a", "user": "-l"}', "not a user's name"), ('{"address": "a", "jump": "-J x"}', "not"),
        ('{"address": "a", "host_keys": ["x"]}', "a type and base64"), ('{"address": "a", "role": ""}', "role="),
        ('{"address": "a", "python": ""}', "python="), ('a host_key=x', "a type and base64"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"^hosts, line 2: .*{words}"):
        parse(f"n1\n{line}", "hosts", Path())


def test_a_host_key_may_stand_in_a_hosts_file() -> None:
    [host] = parse(f'n1 host_key="{KEY}"  # from its console', "hosts", Path())
    assert host.host_keys == (KEY,)
