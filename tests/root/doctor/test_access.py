"""Logging in: what cannot work is told before it is tried."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fanout.fleets.base import Host
from fanout.fleets.openssh import keypair
from fanout.root.doctor import access
from tests.root.doctor.findings import levels


def test_keys_that_cannot_log_in_are_told_why(tmp_path: Path) -> None:
    keypair(tmp_path / "good")
    keypair(tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "rubbish").write_text("no key\n")
    (tmp_path / "rubbish").chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked"], check=True)
    names = ("good", "locked", "none", "open", "rubbish")
    found = access.keys([Host(name, name, key=str(tmp_path / name)) for name in names], tmp_path, {})
    assert levels(found) == ["ok", "fail", "fail", "fail", "fail"]
    words = ["can be used", "has a passphrase", "cannot be read", "read by others", "no usable key"]
    assert all(word in one.text for word, one in zip(words, found, strict=True))
    assert "chmod 600" in found[3].remedy


def test_without_a_named_key_an_agent_or_a_key_of_the_user_is_needed(tmp_path: Path) -> None:
    host = [Host("a", "a")]
    assert levels(access.keys(host, tmp_path, {})) == ["warn"]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "id_ed25519"], check=True)
    [locked] = access.keys(host, tmp_path, {"SSH_AUTH_SOCK": str(tmp_path / "no agent")})
    assert locked.level == "warn" and "id_ed25519 has a passphrase" in locked.text
    keypair(tmp_path / "id_rsa")
    assert levels(access.keys(host, tmp_path, {})) == ["ok"]


def test_host_keys_that_are_not_known_are_named_with_the_command_to_add_them() -> None:
    hosts = [Host(f"n{i}", f"10.0.0.{i}", port=23) for i in range(4)]
    hosts[3] = Host("n3", "10.0.0.3", host_keys=("ssh-ed25519 A",))
    [found] = access.known(hosts, lambda host: ["line"] if host.name == "n0" else [])
    assert found.level == "warn" and found.text.endswith("n[1-2]")
    assert "ssh-keyscan -p 23 10.0.0.1" in found.remedy
    assert levels(access.known(hosts, lambda host: ["line"])) == ["ok"]


def test_many_machines_behind_one_jump_host_are_warned_of() -> None:
    hosts = [Host(f"n{i}", f"n{i}", jump="gate") for i in range(11)]
    [found] = access.jumps(hosts)
    assert found.level == "warn" and "11 machines" in found.text and "MaxStartups" in found.remedy
    assert access.jumps(hosts[:10]) == []
