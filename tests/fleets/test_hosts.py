"""The hosts fleet: what a hosts file says is what is handed over, and a mistake is named with its line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.errors import FleetError, UsageError
from fanout.fleets.base import Host, Request
from fanout.fleets.hosts import HostsFleet, parse


def read(text: str, folder: Path = Path()) -> list[Host]:
    return parse(text, "nodes.txt", folder)


def ignore(ready: int, wanted: int) -> None:
    """A progress that nobody looks at."""


def test_every_option_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "id").touch()
    line = (
        "ann@web1.example:2222 key=id role=web relay name=w1 address=10.0.0.7 python=/opt/py jump=bob@gate:22"
    )
    assert read(line, tmp_path) == [
        Host(
            name="w1",
            address="10.0.0.7",
            role="web",
            relay=True,
            user="ann",
            port=2222,
            key=str(tmp_path / "id"),
            jump="bob@gate:22",
            python="/opt/py",
        )
    ]


def test_a_bare_host_has_defaults() -> None:
    assert read("web1") == [Host(name="web1", address="web1")]


def test_comments_blank_lines_and_line_endings_are_no_hosts() -> None:
    assert [h.name for h in read("# isn't one\n\na # it's a\r\n\tb\t#c\n  \n#d")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "user", "address", "port"),
    [
        ("[::1]", None, "::1", None),
        ("[2001:DB8::1]:22", None, "2001:db8::1", 22),
        ("ann@[::1]:2222", "ann", "::1", 2222),
        ("[fe80::1%eth0]", None, "fe80::1%eth0", None),
        ("x address=2001:db8::1", None, "2001:db8::1", None),
        ("x address=[2001:db8::1]", None, "2001:db8::1", None),
    ],
)
def test_ipv6(text: str, user: str | None, address: str, port: int | None) -> None:
    (host,) = read(text)
    assert (host.user, host.address, host.port) == (user, address, port)


def test_a_folded_line_stands_for_several_and_its_options_for_each() -> None:
    hosts = read("ann@n[08-10]:22 role=db relay")
    assert [h.name for h in hosts] == ["n08", "n09", "n10"]
    assert all((h.user, h.port, h.role, h.relay) == ("ann", 22, "db", True) for h in hosts)


def test_names_and_addresses_fold_along() -> None:
    hosts = read("n[1-3] name=peer-[01-03] address=10.0.0.[11-13]")
    assert [(h.name, h.address) for h in hosts] == [
        ("peer-01", "10.0.0.11"),
        ("peer-02", "10.0.0.12"),
        ("peer-03", "10.0.0.13"),
    ]


def test_one_address_with_several_ports_is_several_hosts_by_name() -> None:
    hosts = read("box:2201 name=a\nbox:2202 name=b")
    assert [(h.name, h.address, h.port) for h in hosts] == [("a", "box", 2201), ("b", "box", 2202)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-oProxyCommand=x", "is not [user@]host[:port]"),
        ("../etc", "is not [user@]host[:port]"),
        ("a;b", "is not [user@]host[:port]"),
        ("a@b@c", "is not [user@]host[:port]"),
        ("@a", "not a user's name"),
        ("-l@a", "not a user's name"),
        ("a:", "from 1 to 65535"),
        ("a:0", "from 1 to 65535"),
        ("a:65536", "from 1 to 65535"),
        ("a:ssh", "from 1 to 65535"),
        ("::1", "write IPv6 in brackets"),
        ("[::x]", "not an IPv6 address"),
        ("[fe80::1%a;b]", "not the name of a network interface"),
        ("a$(id)@b", "not a user's name"),
        ("n[1-", "never closed"),
        ("n[3-1]", "runs backwards"),
        ("a colour=red", "unknown option 'colour'; known are key= role= relay name="),
        ("a relay=yes", "relay takes no value"),
        ("a role", "write role=VALUE"),
        ("a role=", "write role=VALUE"),
        ("a role=x role=y", "role is given twice"),
        ("a role=a/b", "role=a/b is not possible"),
        ("a name=../x", "name=../x is not possible"),
        ("a name=-x", "name=-x is not possible"),
        ("a address=-x", "address=-x is not possible"),
        ("a python=-c", "python=-c is not possible"),
        ("a jump=-x", "is not [user@]host[:port]"),
        ("a key=missing", "key=missing: there is no file"),
        ('a name="x', "quotation"),
        ("n[1-3] name=x[1-2]", "name=x[1-2] is 2, for 3 hosts"),
        ("n[1-3] address=x", "address=x is 1, for 3 hosts"),
        ("first", "'first' is already on line 1"),
        ("n[1-2] name=x,x", "for 2 hosts"),
        ("ann@n,bob@n", "'n' is twice on this line"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(line: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(f"first\n# a comment\n{line}\n", tmp_path)
    assert str(error.value).startswith("nodes.txt, line 3: ")
    assert what in str(error.value)


@settings(deadline=None)
@given(st.text("ab1[]-:@=# '\"\n,relayname", max_size=40))
def test_any_text_is_hosts_or_a_usage_error(text: str) -> None:
    try:
        hosts = read(text)
    except UsageError as error:
        assert "nodes.txt" in str(error)
    else:
        assert len({h.name for h in hosts}) == len(hosts) > 0


def test_a_file_without_hosts_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"nodes\.txt names no host"):
        read("# nothing\n")


def test_a_file_is_read_and_its_keys_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "id").touch()
    (tmp_path / "nodes").write_text("\ufeffa key=id\nb\n", encoding="utf-8")
    hosts = HostsFleet(str(tmp_path / "nodes")).hosts
    assert [(h.name, h.key) for h in hosts] == [("a", str(tmp_path / "id")), ("b", None)]


def test_a_file_that_exists_wins_over_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nodes").write_text("a\n")
    (tmp_path / "folder").mkdir()
    assert [h.name for h in HostsFleet("nodes").hosts] == ["a"]
    assert [h.name for h in HostsFleet("folder").hosts] == ["folder"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert [h.name for h in HostsFleet("-").hosts] == ["a", "b"]


def test_folded_names_with_users_and_ports() -> None:
    hosts = HostsFleet("root@node[1-2]:2222,db[1-3]!db2").hosts
    assert [(h.name, h.user, h.port) for h in hosts] == [
        ("node1", "root", 2222),
        ("node2", "root", 2222),
        ("db1", None, None),
        ("db3", None, None),
    ]


def test_names_too_long_for_a_path_are_names() -> None:
    assert len(HostsFleet(",".join(f"machine{i}x" for i in range(1000))).hosts) == 1000


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("", "which?"),
        (" ", "names no host"),
        ("missing.txt", "missing.txt cannot be read: No such file"),
        ("./missing", "./missing cannot be read: No such file"),
        ("/", "/ cannot be read: Is a directory"),
        ("node[1-", "never closed"),
        ("a,ann@a", "'a' is given twice"),
        ("a b:x", "from 1 to 65535"),
    ],
)
def test_a_bad_spec_is_refused_at_once(
    spec: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        HostsFleet(spec)
    assert what in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nodes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        HostsFleet(str(tmp_path / "nodes"))
    monkeypatch.setattr("fanout.fleets.hosts.MAX_BYTES", 2)
    with pytest.raises(UsageError, match="larger than"):
        HostsFleet(str(tmp_path / "nodes"))


async def test_without_a_number_every_host_is_taken() -> None:
    seen: list[tuple[int, int]] = []
    fleet = HostsFleet("n[1-5]")
    hosts = await fleet.provision(Request("r", None), lambda ready, wanted: seen.append((ready, wanted)))
    assert [h.name for h in hosts] == ["n1", "n2", "n3", "n4", "n5"]
    assert seen[-1] == (5, 5)
    assert fleet.relay_key is None
    await fleet.release()
    await fleet.release()


async def test_too_few_hosts_are_an_error_that_says_how_many() -> None:
    with pytest.raises(FleetError, match=r"7 machines are wanted and the fleet has 5: add 2"):
        await HostsFleet("n[1-5]").provision(Request("r", 7), ignore)
