"""The hosts fleet: machines that exist, from a hosts file, standard input, or folded names.

A hosts file has one entry a line; `#` begins a comment:

    [user@]host[:port] [key=PATH] [role=NAME] [relay] [name=NAME] [address=ADDR] [python=PATH] [jump=HOST]
                       [host_key="TYPE BASE64"]

The host may be folded (`node[1-40]`), and stands for several then; `name` and `address` fold along with it.
An IPv6 address is in brackets.  `key` is relative to the hosts file.  Values with spaces are quoted.  Without
`host_key` the user's known_hosts decides.

A line may also be a JSON object, as programs write them; nothing in it is folded, and only `address` is needed:

    {"address": "10.0.0.1", "name": "db-1", "user": "root", "port": 22, "role": "db", "relay": true,
     "host_keys": ["ssh-ed25519 AAAA..."], "key": "id", "python": "python3", "jump": "gate"}      (on one line)

Nothing is looked up or connected to here: a bad line is an error before anything is made.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from fanout import names
from fanout.errors import UsageError
from fanout.fleets import roles
from fanout.fleets.base import Fleet, Host, Progress, Request
from fanout.fleets.hostkey import whole

MAX_BYTES = 16 << 20
"""Largest hosts file that is read."""
SUFFIXES = (".txt", ".hosts", ".list", ".conf", ".cfg", ".ini")
"""A spec that ends so means a file, also when there is none."""
OPTIONS = ("key", "role", "relay", "name", "address", "python", "jump", "host_key")
FIELDS: dict[str, tuple[type, str]] = {
    "address": (str, "text"), "name": (str, "text"), "user": (str, "text"), "port": (int, "a number"),
    "role": (str, "text"), "relay": (bool, "true or false"), "host_keys": (list, "a list of keys"),
    "key": (str, "text"), "python": (str, "text"), "jump": (str, "text"),
}  # fmt: skip
"""What a JSON object may have, and as what."""

# A name becomes a folder and an argument of ssh: it begins with neither a dot nor a dash, and has no slash.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\\-]{0,99}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_IPV6 = re.compile(r"(?:(?P<user>[^@\[\]]*)@)?\[(?P<host>[^\[\]]*:[^\[\]]*)\](?::(?P<port>.*))?")
_PLAIN = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>[^@:]*)(?::(?P<port>[^@:]*))?")
_HOST_KEY = re.compile(r"([a-z0-9][a-z0-9@.-]{2,60} [A-Za-z0-9+/]{16,}={0,2})(?: .*)?")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
"""In folded names: a slash within is that of a step."""
_COMMENT = re.compile(r"(?:^|\s)#.*")
_WORD = re.compile(r"[^ \t\r\n]+")
_QUOTING = re.compile(r"['\"\\]")  # only then is shlex asked, which takes half the time of a line


class HostsFleet(Fleet):
    """`hosts:FILE`, `hosts:-` for standard input, or `hosts:NAMES`, such as `hosts:root@node[1-40],db[1-3]`.

    A file that exists is always read; otherwise a text with a slash or a suffix of SUFFIXES is a missing
    file, and any other is names.  `hosts` holds all machines, in order, with unique names.
    """

    name: ClassVar[str] = "hosts"

    def __init__(self, spec: str) -> None:
        self.hosts = _from_spec(spec)

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        """The hosts that `roles.choose` takes for the request; these are reached only later."""
        chosen = roles.choose(self.hosts, request.machines, request.roles)
        progress(len(chosen), len(chosen))
        return chosen


def parse(text: str, source: str, folder: Path) -> list[Host]:
    """The hosts of a hosts file; `source` is its name in errors, `folder` what `key` is relative to.

    UsageError, with the line, for the first thing that is wrong.
    """
    hosts: list[Host] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            for host in _line(line, folder):
                if host.name in lines:
                    first = lines[host.name]
                    where = "twice on this line" if first == number else f"already on line {first}"
                    raise UsageError(f"{host.name!r} is {where}: write it once, or give one of them name=")
                lines[host.name] = number
                hosts.append(host)
                if len(hosts) > names.MAX_NAMES:
                    raise UsageError(f"this makes more than {names.MAX_NAMES:,} hosts")
        except UsageError as error:
            raise UsageError(f"{source}, line {number}: {error}") from None
    if not hosts:
        raise UsageError(f"{source} names no host: write one a line, as [user@]host[:port]")
    return hosts


def _from_spec(spec: str) -> list[Host]:
    if not spec:
        raise UsageError("--fleet hosts: which? Write hosts:FILE, hosts:- or names as in hosts:node[1-40]")
    if spec == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        return parse(_decode(data, "standard input"), "standard input", Path())
    path = Path(spec).expanduser()
    meant_as_file = "/" in _BRACKETS.sub("", spec) or spec.startswith("~") or path.suffix in SUFFIXES
    try:
        if meant_as_file or (path.exists() and not path.is_dir()):
            with path.open("rb") as file:
                return parse(_decode(file.read(MAX_BYTES + 1), spec), spec, path.parent)
    except OSError as error:
        # Folded names can be too long for a path, which is no mistake.
        if meant_as_file:
            raise UsageError(f"the hosts file {spec} cannot be read: {error.strerror}") from None
    hosts = from_names(spec)
    if not hosts:
        raise UsageError(f"--fleet hosts:{spec} names no host")
    return hosts


def from_names(spec: str) -> list[Host]:
    """The machines that folded names, each with its user@ and :port, stand for; none where nothing is left."""
    hosts: dict[str, Host] = {}
    for target in _targets(spec):
        if target.host in hosts:
            raise UsageError(f"{target.host!r} is given twice: in a hosts file, name= can tell the two apart")
        hosts[target.host] = Host(target.host, target.host, user=target.user, port=target.port)
    return list(hosts.values())


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise UsageError(f"{source} is larger than {MAX_BYTES >> 20} MiB: is it a hosts file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{source} is not UTF-8 text: is it a hosts file?") from None


@dataclass(frozen=True)
class _Target:
    """What `[user@]host[:port]` says."""

    user: str | None
    host: str
    port: int | None


def _targets(text: str) -> list[_Target]:
    """Every target that a text, possibly folded, stands for."""
    if _IPV6.fullmatch(text):
        return [_target(text)]
    return [_target(each) for each in names.expand(text)]


def _target(text: str) -> _Target:
    match = _IPV6.fullmatch(text)
    if match:
        host = _ipv6(match["host"])
    else:
        if text.rpartition("@")[2].count(":") > 1:
            raise UsageError(f"{text!r} has several colons: write IPv6 in brackets, as in [::1]:22")
        match = _PLAIN.fullmatch(text)
        if not match or not _NAME.fullmatch(match["host"]):
            raise UsageError(f"{text!r} is not [user@]host[:port] with a host of letters, digits and ._-")
        host = match["host"]
    user, port = match["user"], match["port"]
    if port is not None and not re.fullmatch(r"[0-9]{1,5}", port):
        raise UsageError(f"{text!r}: a port is a number from 1 to 65535, not {port!r}")
    try:
        _check_login(user, int(port) if port else None)
    except UsageError as error:
        raise UsageError(f"{text!r}: {error}") from None
    return _Target(user, host, int(port) if port else None)


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise UsageError(f"[{text}] is not an IPv6 address") from None
    if address.scope_id is not None and not _ZONE.fullmatch(address.scope_id):
        raise UsageError(f"[{text}]: {address.scope_id!r} is not the name of a network interface")
    return str(address)


def _line(line: str, folder: Path) -> Iterator[Host]:
    if line.lstrip().startswith("{"):
        yield _record(line, folder)
    else:
        yield from _entry(_COMMENT.sub("", line), folder)


def _record(line: str, folder: Path) -> Host:
    """The host that a JSON object describes; a null is as good as nothing."""
    try:
        given: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"this is not a JSON object on one line: {error}") from None
    given = {field: value for field, value in given.items() if value is not None}
    for field, value in given.items():
        if field not in FIELDS:
            raise UsageError(f"unknown field {field!r}; known are {', '.join(FIELDS)}")
        kind, words = FIELDS[field]
        if type(value) is not kind:
            raise UsageError(f"{field} is {words}, not {json.dumps(value)[:100]}")
    if "address" not in given:
        raise UsageError('this has no "address"')
    address = _address(given["address"])
    if "name" in given:
        _check_name(given["name"])
    _check_login(given.get("user"), given.get("port"))
    _check_options(given)
    return Host(
        name=given.get("name", address),
        address=address,
        role=given.get("role"),
        relay=given.get("relay", False),
        user=given.get("user"),
        port=given.get("port"),
        key=_key(given["key"], folder) if "key" in given else None,
        jump=given.get("jump"),
        host_keys=tuple(_host_key(str(key)) for key in given.get("host_keys", ())),
        python=given.get("python", "python3"),
    )


def _entry(line: str, folder: Path) -> Iterator[Host]:
    """The hosts of one line, none if it is blank."""
    words = _WORD.findall(line)
    if _QUOTING.search(line):
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"{error}".lower() + ": a quotation ends on the line it begins") from None
    if not words:
        return
    options = _options(words[1:])
    targets = _targets(words[0])
    as_names = _one_each("name", options, targets)
    addresses = _one_each("address", options, targets)
    for target, name, address in zip(targets, as_names, addresses, strict=True):
        if "name" in options:
            _check_name(name)
        yield Host(
            name=name,
            address=_address(address) if "address" in options else address,
            role=options.get("role"),
            relay="relay" in options,
            user=target.user,
            port=target.port,
            key=_key(options["key"], folder) if "key" in options else None,
            jump=options.get("jump"),
            host_keys=(_host_key(options["host_key"]),) if "host_key" in options else (),
            python=options.get("python", "python3"),
        )


def _options(words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if option not in OPTIONS:
            known = " ".join(each if each == "relay" else f"{each}=" for each in OPTIONS)
            raise UsageError(f"unknown option {option!r}; known are {known}")
        if option in options:
            raise UsageError(f"{option} is given twice")
        if option == "relay" and equals:
            raise UsageError(f"relay takes no value: write relay, not {word}")
        if option != "relay" and not value:
            raise UsageError(f"{option} needs a value: write {option}=VALUE")
        options[option] = value
    _check_options(options)
    return options


def _check_options(options: Mapping[str, Any]) -> None:
    if "role" in options and not _ROLE.fullmatch(options["role"]):
        _bad("role", options["role"], "letters, digits and _- and begins with a letter")
    if "python" in options and (not options["python"] or options["python"].startswith("-")):
        _bad("python", options["python"], "a program or the path of one")
    if "jump" in options:
        _target(options["jump"])


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        _bad("name", name, "letters, digits and ._- and begins with none of .-")


def _check_login(user: str | None, port: int | None) -> None:
    if user is not None and not _USER.fullmatch(user):
        raise UsageError(f"{user!r} is not a user's name")
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"a port is a number from 1 to 65535, not {port}")


def _host_key(text: str) -> str:
    """`TYPE BASE64`, without the comment that may follow."""
    match = _HOST_KEY.fullmatch(text.strip())
    if not match:
        _bad("host_key", text[:100], 'a type and base64, as in "ssh-ed25519 AAAA..."')
    if not whole(match[1]):
        raise UsageError(f"host_key={text[:100]} is cut, or not of that type: copy it again, as ssh-keyscan shows it")
    return match[1]


def _one_each(option: str, options: dict[str, str], targets: list[_Target]) -> list[str]:
    """A folded option as one value a host, the host itself without the option."""
    if option not in options:
        return [target.host for target in targets]
    text = options[option]
    values = [text] if _IPV6.fullmatch(text) else names.expand(text)
    if len(values) != len(targets):
        raise UsageError(
            f"{option}={text} is {len(values)}, for {len(targets)} hosts: it must be one for each"
        )
    return values


def _address(text: str) -> str:
    """An address given by itself: a host name, IPv4, or IPv6 with brackets or without."""
    if ":" in text:
        return _ipv6(text.removeprefix("[").removesuffix("]"))
    if not _NAME.fullmatch(text):
        _bad("address", text, "a host name or an IP address")
    return text


def _key(text: str, folder: Path) -> str:
    path = folder / Path(text).expanduser()
    if not path.is_file():
        raise UsageError(f"key={text}: there is no file {path}")
    return str(path)


def _bad(option: str, value: str, right: str) -> NoReturn:
    raise UsageError(f"{option}={value} is not possible: it has {right}")
