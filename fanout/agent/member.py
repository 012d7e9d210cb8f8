"""A member function on its machine: `member(me, *args)` in a Python process of its own.

The scenario's module is imported here from the files that travelled with it.  What it imports from fanout is
for the root; here those names are inert, so that the same file loads on a machine without fanout.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
import types

from .client import Client, Refused
from .core import codec, limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

TIMEOUT = 60.0  # s; of every wait that is given no other.  Text such as "250ms" or "2m" is a time as well

RESULT_MOST = 1_000_000  # packed bytes that a member may return


class _Inert:
    """Stands for anything that a scenario file imports from fanout: as decorator it gives the function back."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType):
            return args[0]
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __or__(self, other: Any) -> Any:  # in annotations
        return self

    __ror__ = __getitem__ = __or__

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (Exception,)


class _Inside:
    """Finds `fanout.anything` that did not travel: an inert module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith("fanout."):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> Any:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: _inert(name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: Any) -> None:
        pass


def _inert(name: str) -> _Inert:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Inert()


class Machine:
    """Another machine of the run, as a member sees it."""

    def __init__(self, id: int, name: str, role: str, address: str) -> None:
        self.id = id
        self.name = name
        self.role = role
        self.address = address

    def __repr__(self) -> str:
        return "%s (%d)" % (self.name, self.id)


class Me:
    """What a member function is given: who it is, who the others are, and how to synchronise with them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.id = int(os.environ["FANOUT_ID"])
        self.name = os.environ["FANOUT_NAME"]
        self.role = os.environ["FANOUT_ROLE"]
        self.address = os.environ["FANOUT_ADDRESS"]
        with open(os.environ["FANOUT_NETWORK"], encoding="utf-8") as file:
            self.network = [Machine(**machine) for machine in json.load(file)]
        """All machines of the run, in the order of their ids."""

    def run(self, command: Any, check: bool = True, timeout: Any = TIMEOUT, stdin: Any = None, env: Any = None,
            cwd: Any = None) -> subprocess.CompletedProcess[str]:
        """Run a command here (a list, or a string for the shell) and return it, with its output as text.

        subprocess.CalledProcessError when it fails, unless `check` is false; subprocess.TimeoutExpired.
        """
        return subprocess.run(
            command, shell=isinstance(command, str), check=check, timeout=limits.seconds(timeout), input=stdin,
            env=dict(os.environ, **env) if env else None, cwd=cwd,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)

    def spawn(self, command: Any, env: Any = None, cwd: Any = None) -> subprocess.Popen[bytes]:
        """Start a process here; it ends with the run at the latest."""
        return subprocess.Popen(
            command, shell=isinstance(command, str), cwd=cwd, env=dict(os.environ, **env) if env else None,
            stdin=subprocess.DEVNULL)

    def report(self, text: str, **fields: Any) -> None:
        """A line that always travels to the root."""
        self._client.ask("report", text, fields)

    def metric(self, name: str, value: float, unit: str = "", per: str = "") -> None:
        """A number, merged with the others' on its way.  `per`: "machine" or "role" to keep those apart."""
        label = {"": "", "machine": self.name, "role": self.role}[per]
        self._client.ask("metric", name, value, unit, label)

    def barrier(self, name: str, group: Any = None, count: int | None = None, quorum: float | None = None,
                timeout: Any = TIMEOUT) -> int:
        """Wait until all members have called it (or `count`, or the share `quorum`); returns how many had.

        `group` is a role, a list of ids, or None for everyone.  Raises SyncFailed, which names who is missing.
        """
        arrived: int = self._client.ask("barrier", name, group, count, quorum, timeout)
        return arrived

    def signal(self, name: str, value: Any = None, timeout: Any = TIMEOUT) -> int:
        """Give a signal; returns its number: 1 is the first of the run."""
        number: int = self._client.ask("signal", name, value, timeout)
        return number

    def wait(self, name: str, count: int = 1, timeout: Any = TIMEOUT) -> list[Any]:
        """Wait until a signal was given `count` times; returns their values in order."""
        values: list[Any] = self._client.ask("wait", name, 0, count, timeout)
        return values

    def publish(self, topic: str, value: Any, timeout: Any = TIMEOUT) -> int:
        """Add a value to a topic; returns its place, from 1."""
        place: int = self._client.ask("publish", topic, value, timeout)
        return place

    def collect(self, topic: str, count: int, after: int = 0, timeout: Any = TIMEOUT) -> list[Any]:
        """Wait for `count` values of a topic and return them; those from before are included."""
        values: list[Any] = self._client.ask("collect", topic, after, count, timeout)
        return values

    def subscribe(self, topic: str, timeout: Any = TIMEOUT) -> Iterator[Any]:
        """The values of a topic one by one, from the first, for ever; `timeout` is for each."""
        after = 0
        while True:
            yield self.collect(topic, 1, after, timeout)[0]
            after += 1


def _trace(error: BaseException, folder: str, origin: str) -> str:
    """The traceback without our own frames, with the file names of the root."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(folder)] or frames
    lines = ["Traceback (most recent call last):\n"] + traceback.format_list(own)
    lines += traceback.format_exception_only(type(error), error)
    return "".join(lines).replace(folder + os.sep, origin + os.sep if origin else "")


def main() -> None:
    task = codec.unpack(sys.stdin.buffer.read())
    folder, origin = task["folder"], task["origin"]
    sys.path.insert(0, folder)
    fanout = importlib.import_module("fanout")  # the one here, which is empty
    vars(fanout).update(__all__=task["public"], __getattr__=_inert, SyncFailed=Refused)
    sys.meta_path.append(_Inside())
    client = Client()
    me = Me(client)
    try:
        member: Callable[..., Any] = importlib.import_module(task["module"])  # type: ignore[assignment]
        for part in task["function"].split("."):
            member = getattr(member, part)
        result = member(me, *task["args"], **task["kwargs"])
        packed = limits.plain(result, "what %s returned" % task["function"])
        if len(packed) > RESULT_MOST:
            text = "%s returned %d bytes; %d are the most: write a file, or publish in parts"
            raise ValueError(text % (task["function"], len(packed), RESULT_MOST))
    except BaseException as error:
        sys.stderr.write(_trace(error, folder, origin))
        sys.stderr.flush()
        sys.exit(1)
    client.ask("result", packed)
