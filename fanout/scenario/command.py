"""What a scenario may give as a command, checked, and as the agents take it.  Pure.

Everything wrong is a UsageError here, before anything is sent.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fanout.agent.core.lines import LogPolicy
from fanout.errors import UsageError

Command = str | Sequence[str | os.PathLike[str]]
"""A list of words, or text for `sh -c`.  `{id}`, `{name}`, `{address}`, `{role}` are filled in at the machine."""

SHOWN = 100  # characters of a command in a message
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


Place = str | os.PathLike[str]
"""A path on the machines."""


def launch(
    command: Command, *, env: Mapping[str, str] | None, cwd: Place | None, stdin: str | bytes | None
) -> dict[str, Any]:
    """The part of a message that says what to start."""
    if not isinstance(env, Mapping | None):
        raise UsageError(f"env={env!r}: give a mapping, such as {{'PORT': '8080'}}")
    body: dict[str, Any] = {"env": dict(env or {}), "cwd": cwd if cwd is None else place(cwd, "cwd"),
                            "stdin": data(stdin)}
    cwd = body["cwd"]
    if isinstance(command, str):
        if not command.strip():
            raise UsageError("the command is empty")
        body["shell"] = command
    elif not isinstance(command, Sequence) or isinstance(command, bytes | bytearray):
        raise UsageError(f"a command is a list of words, or text for the shell, not {command!r}")
    else:
        body["argv"] = [_word(word) for word in command]
        if not body["argv"] or not body["argv"][0]:
            raise UsageError("the command is empty")
    for key, value in body["env"].items():
        if not isinstance(key, str) or not key or "=" in key or not isinstance(value, str):
            raise UsageError(f"env: {key!r}: {value!r} is no environment variable; both are text")
    for text in [body.get("shell", ""), cwd or "", *body.get("argv", ()), *body["env"], *body["env"].values()]:
        if "\0" in text:
            raise UsageError("a command, its folder and its environment cannot hold NUL characters")
    return body


def _word(word: object) -> str:
    if isinstance(word, os.PathLike):
        word = os.fspath(word)
    if not isinstance(word, str):
        raise UsageError(f"a command is a list of texts; {word!r} is none")
    return word


def place(path: Place, what: str) -> str:
    """A path on the machines, as text; UsageError, which names it as `what`, for anything else."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str):
        raise UsageError(f"{what}={path!r}: give a path, as text or pathlib's")
    return text


def data(value: str | bytes | None) -> bytes | None:
    if not isinstance(value, str | bytes | None):
        raise UsageError(f"for standard input give text or bytes, not {value!r}")
    return value.encode() if isinstance(value, str) else value


def show(command: Command) -> str:
    """For messages: as one would type it, cut."""
    text = " ".join((command if isinstance(command, str) else shlex.join(map(str, command))).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def process_name(command: Command, name: str | None) -> str:
    """The name a process gets when nothing else has it: given, or the program's."""
    if name is not None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name for a process: use letters, digits, '.', '_' and '-', at most 64")
        return name
    base = "sh" if isinstance(command, str) else Path(command[0]).name
    return (re.sub(r"[^A-Za-z0-9._-]+", "_", base).lstrip("._-") or "process")[:56]


def check_pattern(pattern: str) -> str:
    """Patterns are matched on the machine, line by line, as bytes."""
    try:
        re.compile(pattern.encode())
    except (re.error, AttributeError) as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


def check_logs(policy: str) -> str:
    if not isinstance(policy, str):
        raise UsageError(f"log policy {policy!r}: use none, file, tail:N, match:REGEX or all")
    try:
        LogPolicy(policy, re.compile)
    except re.error as error:
        raise UsageError(f"log policy {policy!r}: not a regular expression: {error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    return policy


def signal_number(value: int | str) -> int:
    """Of `15`, `"TERM"` or `"SIGTERM"`."""
    try:
        if isinstance(value, str):
            return signal.Signals["SIG" + value.upper().removeprefix("SIG")].value
        return signal.Signals(value).value
    except (KeyError, ValueError):
        raise UsageError(f"there is no signal {value!r}; name one, such as 'HUP', 'USR1' or 15") from None


def exit_text(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
