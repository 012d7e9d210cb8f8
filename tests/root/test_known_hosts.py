"""known_hosts: the lines chosen for a host are those that OpenSSH itself would use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
from pathlib import Path

import pytest

from fanout.root.known_hosts import KnownHosts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"


def hashed(name: str, salt: bytes = b"0123456789abcdefghij") -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("names", "host", "port", "applies"),
    [
        ("a", "a", 22, True),
        ("a", "b", 22, False),
        ("a", "A", 22, True),
        ("A", "a", 22, True),
        ("a,b", "b", 22, True),
        ("a*", "abc", 22, True),
        ("a?", "abc", 22, False),
        ("a.c", "abc", 22, False),
        ("*,!b", "b", 22, False),
        ("!b,*", "c", 22, True),
        ("!b", "c", 22, False),
        ("!b*,*", "bc", 22, False),
        ("[a]:2222", "a", 2222, True),
        ("[a]:2222", "a", 22, False),
        ("[a]:2222", "a", 2223, False),
        ("[*]:2222", "a", 2222, True),
        ("[a]:*", "a", 2222, True),
        ("*", "a", 2222, True),
        ("a", "a", 2222, True),
        ("::1", "::1", 22, True),
        ("[::1]:2222", "::1", 2222, True),
        (hashed("a"), "a", 22, True),
        (hashed("a"), "A", 22, True),
        (hashed("a"), "b", 22, False),
        (hashed("[a]:2222"), "a", 2222, True),
        (hashed("a"), "a", 2222, True),
        (hashed("a", b"x" * 80), "a", 22, True),
    ],
)
def test_a_line_applies_as_in_openssh(names: str, host: str, port: int, applies: bool) -> None:
    name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
    expected = [f"{name} {KEY}"] if applies else []
    assert KnownHosts(f"{names} {KEY} a comment").lines_for(host, port) == expected


def test_markers_are_kept_and_lines_are_in_order() -> None:
    text = f"@revoked * {KEY}R\na {KEY}1\n@cert-authority *.net,a {KEY}C\n{hashed('a')} {KEY}2\n"
    assert KnownHosts(text).lines_for("a") == [
        f"@revoked a {KEY}R",
        f"a {KEY}1",
        f"@cert-authority a {KEY}C",
        f"a {KEY}2",
    ]


def test_a_hashed_line_is_found_again_and_again() -> None:
    known = KnownHosts(f"{hashed('b')} {KEY}1\n{hashed('a')} {KEY}2\n{hashed('a', b'other')} {KEY}3\n")
    for _ in range(2):
        assert known.lines_for("a") == [f"a {KEY}2", f"a {KEY}3"]
        assert known.lines_for("b") == [f"b {KEY}1"]


def test_a_key_for_the_port_wins_over_one_for_the_name() -> None:
    known = KnownHosts(f"a {KEY}1\n[a]:2222 {KEY}2\n")
    assert known.lines_for("a", 2222) == [f"[a]:2222 {KEY}2"]
    assert known.lines_for("a", 2223) == [f"[a]:2223 {KEY}1"]


def test_a_key_revoked_for_the_name_is_revoked_for_the_port() -> None:
    known = KnownHosts(f"@revoked a {KEY}R\n[a]:2222 {KEY}2\n")
    assert known.lines_for("a", 2222) == [f"@revoked [a]:2222 {KEY}R", f"[a]:2222 {KEY}2"]


def test_a_revoked_key_for_the_port_does_not_hide_the_key_for_the_name() -> None:
    known = KnownHosts(f"@revoked [a]:2222 {KEY}R\na {KEY}1\n")
    assert known.lines_for("a", 2222) == [f"@revoked [a]:2222 {KEY}R", f"[a]:2222 {KEY}1"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment with words",
        "#a ssh-rsa AAAA",
        "a",
        "a ssh-rsa",
        "@revoked",
        f"@unknown a {KEY}",
        f"|1|x|y {KEY}",
        f"|1|only {KEY}",
        f"{hashed('a').replace('|1|', '|2|')} {KEY}",
    ],
)
def test_what_cannot_be_read_applies_to_nobody(line: str) -> None:
    assert KnownHosts(f"{line}\na {KEY}").lines_for("a") == [f"a {KEY}"]


@pytest.mark.parametrize("host", ["", "a b", "a\n", "*", "a,b", "|1|x|y", "!a"])
def test_a_host_cannot_smuggle_a_pattern_to_relays(host: str) -> None:
    with pytest.raises(ValueError, match="not a host"):
        KnownHosts(f"a {KEY}").lines_for(host)


def test_hashing_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    keygen = shutil.which("ssh-keygen")
    assert keygen, "ssh-keygen is needed: install openssh-client"
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, timeout=30)
    key = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    file = tmp_path / "known_hosts"
    file.write_text(f"a,[b]:2222 {key}\nc {key}\n")
    subprocess.run([keygen, "-q", "-H", "-f", file], check=True, timeout=30, capture_output=True)
    text = file.read_text()
    assert text.count("|1|") == 3
    known = KnownHosts(text)
    assert known.lines_for("a") == [f"a {key}"]
    assert known.lines_for("b", 2222) == [f"[b]:2222 {key}"]
    assert known.lines_for("b") == []
