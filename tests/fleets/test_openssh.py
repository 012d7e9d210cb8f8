"""The sshd of our own on loopback: real, for the current user only, and gone without a trace."""

import os
import subprocess
from pathlib import Path

import pytest

from fanout.errors import FleetError
from fanout.fleets import openssh
from fanout.fleets.openssh import LoopbackSshd
from tests.patience import eventually
from tests.sshd import need_sshd
from tests.sshd_client import ssh

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.0.1", "127.250.3.9"])
def test_it_answers_on_every_loopback_address(sshd: LoopbackSshd, tmp_path: Path, address: str) -> None:
    done = ssh(tmp_path, address, sshd.port, sshd.user, sshd.key, sshd.host_keys, "id -u")
    assert (done.stdout.strip(), done.stderr) == (str(os.getuid()), "")


def test_its_known_hosts_text_is_what_openssh_wants(sshd: LoopbackSshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts)
    found = subprocess.run(
        ["ssh-keygen", "-F", f"[127.1.0.7]:{sshd.port}", "-f", str(known)], capture_output=True, check=False
    )
    assert found.returncode == 0


def test_another_key_is_refused(sshd: LoopbackSshd, tmp_path: Path) -> None:
    openssh.keypair(tmp_path / "other")
    done = ssh(tmp_path, "127.0.0.1", sshd.port, sshd.user, tmp_path / "other", sshd.host_keys, "true")
    assert "Permission denied" in done.stderr


def test_stop_ends_what_was_started_through_it(tmp_path: Path) -> None:
    need_sshd()
    with LoopbackSshd() as server:
        folder = server.folder
        command = "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $!"
        done = ssh(tmp_path, "127.0.0.1", server.port, server.user, server.key, server.host_keys, command)
        sleeper = int(done.stdout)
        eventually(lambda: sleeper in server.processes())  # a program that is being loaded shows no environment
    assert openssh.wait_gone([sleeper], 0.0) == []
    assert not folder.exists()


def test_stop_is_idempotent_and_right_before_start() -> None:
    need_sshd()
    server = LoopbackSshd()
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_options_win_over_the_defaults_whatever_their_case() -> None:
    text = openssh.sshd_config({"maxstartups": "1:1:1"}, {"MaxStartups": "10:30:100", "MaxSessions": "10"})
    assert text == "maxstartups 1:1:1\nMaxSessions 10\n"


def test_what_sshd_says_about_a_bad_option_is_told_and_nothing_stays() -> None:
    need_sshd()
    server = LoopbackSshd({"NoSuchOption": "1"})
    with pytest.raises(FleetError, match="NoSuchOption"):
        server.start()
    assert not server.folder.name


def test_a_missing_program_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh.shutil, "which", lambda *_, **__: None)
    with pytest.raises(FleetError, match="apt install openssh-server"):
        LoopbackSshd().start()
