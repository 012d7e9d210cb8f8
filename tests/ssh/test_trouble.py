"""What can go wrong with a machine over SSH has the same word and remedy at the root's connections and a relay's."""

import os
import re
import sys
from pathlib import Path

import pytest

from fanout.fleets.base import Host
from fanout.fleets.openssh import LoopbackSshd, keypair
from fanout.root.outcomes import Outcome
from tests.root.trees import left, outputs, run, session, through, until
from tests.sshd import need_sshd

pytestmark = pytest.mark.sshd

CLOSED_PORT = 1
PYENV = Path.home() / ".pyenv/versions"


def troubles(sshd: LoopbackSshd, folder: Path) -> list[tuple[dict[str, object], Outcome, str]]:
    """What is wrong with a host, the outcome it must have, and words of the reason."""
    keypair(folder / "stranger")
    keypair(folder / "other")
    other = (folder / "other.pub").read_text().strip()
    found: list[tuple[dict[str, object], Outcome, str]] = [
        ({"port": CLOSED_PORT}, Outcome.UNREACHABLE, "is sshd running?"),
        ({"user": "nobody", "key": str(folder / "stranger")}, Outcome.AUTH_FAILED, "authorized_keys"),
        ({"host_keys": (other,)}, Outcome.HOST_KEY, "ssh-key"),
        ({"host_keys": ()}, Outcome.HOST_KEY, "known_hosts"),
        ({"python": "/no/such/python3"}, Outcome.NO_PYTHON, "install Python 3.8 or newer"),
        ({"python": "sh -c 'echo no luck >&2; exit 3' #"}, Outcome.FAILED, "no luck"),
        ({"address": "no-such-host.invalid"}, Outcome.UNREACHABLE, "resolve"),
    ]
    old = sorted(PYENV.glob("3.[67].*/bin/python3"))[:1]
    return found + [({"python": str(path)}, Outcome.NO_PYTHON, "3.8 or newer is needed") for path in old]


@pytest.mark.parametrize("relay", [False, True], ids=["at the root", "at a relay"])
async def test_each_trouble_has_its_outcome_and_remedy_and_harms_no_other(
        relay: bool, sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wrong = troubles(sshd, tmp_path)
    good = through(sshd, len(wrong) + 2)
    bad = [Host(**{**host.__dict__, **change}) for host, (change, _, _) in zip(good[1:], wrong, strict=False)]
    hosts = [good[0], *bad, good[-1]]
    parents = [None, *([0 if relay else None] * (len(hosts) - 1))]
    work = tmp_path / "work"
    work.mkdir()
    async with session(hosts, parents, relay_key=sshd.key.read_text(), folder=str(work), connect_timeout=5.0) as up:
        for machine, (change, outcome, words) in enumerate(wrong, 1):
            got, reason = up.down[machine]
            assert (got, words in reason) == (outcome, True), (change, got, reason)
            assert ("--relays 0 tries it from here" in reason) == (relay and outcome is Outcome.UNREACHABLE)
        assert set(outputs(await run(up, up.up, argv=["true"]))) == {0, len(hosts) - 1}
    assert up.problems == [] and left(work) == []
    await until(lambda: not sshd.processes())


async def test_what_no_relay_may_log_in_to_the_root_reaches_itself_and_says_so(
        sshd: LoopbackSshd, tmp_path: Path) -> None:
    parents = [None, 0, 0, 1, 1, 2, 2]
    async with session(through(sshd, 7), parents, relay_key=None, folder=str(tmp_path)) as up:
        assert up.up == 0b1111111 and up.topology.parents == [None] * 7
        (note,) = up.unaided_notes()
        assert note.startswith("host-[1-6]: reached from here, not by a relay: the login was refused")
        assert "--forward-agent" in note
        assert set(outputs(await run(up, up.up, argv=["true"]))) == set(range(7))
    assert up.problems == [] and left(tmp_path) == []


async def test_where_relays_have_no_ssh_the_root_reaches_all_itself_and_soon(tmp_path: Path) -> None:
    need_sshd()
    with LoopbackSshd({"SetEnv": f"PATH={tmp_path}/nothing"}) as server:
        hosts, key = through(server, 3, python=os.path.realpath(sys.executable)), server.key.read_text()
        async with session(hosts, [None, 0, 1], relay_key=key, folder=str(tmp_path), connect_timeout=60.0) as up:
            assert up.up == 0b111 and up.topology.parents == [None] * 3
            assert [note.partition(": ")[2] for note in up.unaided_notes()] == [
                "reached from here, not by a relay: its relay cannot start ssh: No such file or directory"]
        assert up.problems == [] and left(tmp_path) == []


async def test_below_relays_that_cannot_be_reached_each_machine_has_its_own_reason_and_soon(
        sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hosts = through(sshd, 4, host_keys=())
    async with session(hosts, [None, 0, 0, 1], folder=str(tmp_path), connect_timeout=30.0) as up:
        assert {machine: outcome for machine, (outcome, _) in up.down.items()} == dict.fromkeys(
            range(4), Outcome.HOST_KEY)
        assert len({reason for _, reason in up.down.values()}) == 1, "equal reasons read the same, and fold"
    assert left(tmp_path) == []


async def test_a_login_shell_that_talks_does_no_harm(tmp_path: Path) -> None:
    need_sshd()
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\necho "Welcome to the machine."; echo "Have a nice day." >&2\n'
                     'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
    shell.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    with LoopbackSshd({"ForceCommand": str(shell)}) as server:
        key = server.key.read_text()
        async with session(through(server, 3), [None, 0, 1], relay_key=key, folder=str(work)) as up:
            assert up.down == {} and len(outputs(await run(up, up.up, argv=["true"]))) == 3
        assert up.problems == [] and left(work) == []
        await until(lambda: not server.processes())


async def test_a_login_shell_that_never_ends_is_unreachable_with_what_it_said(tmp_path: Path) -> None:
    need_sshd()
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\n"
                     'case $SSH_CONNECTION in *127.1.0.1*) exec /bin/sh -c "$SSH_ORIGINAL_COMMAND";; esac\n'
                     "echo This account is closed.; exec sleep 600\n")
    shell.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    with LoopbackSshd({"ForceCommand": str(shell)}) as server:
        async with session(through(server, 3), [None, 0, None], relay_key=server.key.read_text(), folder=str(work),
                           connect_timeout=4.0) as up:
            for machine in (1, 2):
                outcome, reason = up.down[machine]
                assert outcome is Outcome.UNREACHABLE and "This account is closed" in reason, reason
            assert up.up == 1
        assert up.problems == [] and left(work) == []


async def test_machines_that_do_not_answer_do_not_hold_up_those_behind_them(
        sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from fanout.root import links as module

    monkeypatch.setattr(module, "ATTEMPT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        hosts = through(sshd, 4)
        hosts[:2] = [Host(**{**host.__dict__, "port": silent.getsockname()[1]}) for host in hosts[:2]]
        hosts[0] = Host(**{**hosts[0].__dict__, "address": "127.0.0.1"})
        hosts[1] = Host(**{**hosts[1].__dict__, "address": "127.0.0.1"})
        async with session(hosts, [None] * 4, folder=str(tmp_path), connect_timeout=4.0, handshakes=2) as up:
            assert up.up == 0b1100
            for machine in (0, 1):  # each was tried several times, of which one takes 0.5 s at most
                outcome, reason = up.down[machine]
                assert outcome is Outcome.UNREACHABLE
                assert re.fullmatch("it does not answer( within|: tried for [1-3] of) 4 s .--connect-timeout.", reason)
    assert left(tmp_path) == []
    await until(lambda: not sshd.processes())
