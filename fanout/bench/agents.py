"""What one agent costs its machine: to send, to start, to keep, and each call of the helper."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fanout.agent.core import codec, frames, machineset
from fanout.agent.core.bootstrap import Bootstrap, opening, stub
from fanout.bench.figure import Figure, Size, median
from fanout.root.payload import payload

PATIENCE = 30.0  # s for an agent to say anything
BARE = "python3 -I -S -c pass"


def pythons() -> list[str]:
    """One interpreter for each version from 3.8 on: of pyenv, of the system, and the one that runs this."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {sys.version_info[:2]: str(Path(sys.executable).resolve())}
    for path in (*pyenv.glob("versions/*/bin/python3.*"), *Path("/usr/bin").glob("python3.*")):
        match = re.fullmatch(r"python3\.(\d+)", path.name)
        if match and int(match[1]) >= 8:
            found.setdefault((3, int(match[1])), str(path))
    return [path for _, path in sorted(found.items())]


class Agent:
    """An agent started by hand, over pipes, with this process as its parent."""

    def __init__(self, python: str, folder: str, as_code: bool) -> None:
        parts = payload()
        self._process = subprocess.Popen(
            [python, "-I", "-S", "-c", stub(parts.stage0)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        self._decoder = frames.Decoder()
        self._frames: list[Any] = []
        self._in.write(opening(parts.stage0, None))
        bootstrap, rest = Bootstrap(), None
        while rest is None:
            rest = bootstrap.feed(self._read())
        self.compiled = as_code and bootstrap.magic in parts.codes
        self._in.write(parts.offer(bootstrap.magic if as_code else "", False))
        self._frames += self._decoder.feed(rest)
        self._until(frames.HELLO)
        identity = {"id": 0, "name": "m", "role": "", "address": "a", "run": "bench", "lease": 600.0,
                    "relay": False, "folder": folder}
        self._in.write(frames.encode(0, frames.WELCOME, 0, b"", codec.pack(identity)))
        self.ping()

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._out], [], [], PATIENCE)
        data = os.read(self._out.fileno(), 1 << 16) if ready else b""
        if not data:
            raise RuntimeError(f"the agent under {self._process.args!r} says nothing, or has ended")
        return data

    def _until(self, kind: int) -> Any:
        while True:
            for at, frame in enumerate(self._frames):
                if frame[1] == kind:
                    return self._frames.pop(at)
            self._frames += self._decoder.feed(self._read())

    def ping(self) -> None:
        """Answered when all before has been done."""
        self._in.write(frames.encode(0, frames.PING, 0, b"", codec.pack([time.monotonic(), 1, 0.0])))
        self._until(frames.PONG)

    def run(self, call: int, **spec: Any) -> Any:
        self._in.write(frames.encode(0, frames.RUN, call, machineset.pack(1), codec.pack(spec)))
        return codec.unpack(codec.unpack(self._until(frames.EVENTS)[4])[0][1])

    def end(self) -> float:
        """Kill it; returns the CPU seconds that it took."""
        self._process.kill()
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = status
        self._in.close()
        self._out.close()
        return usage.ru_utime + usage.ru_stime


def cpu_of(argv: Sequence[str]) -> float:
    """CPU seconds of one short program."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, process.returncode, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def _bare(python: str, repeats: int) -> float:
    return median([cpu_of([python, "-I", "-S", "-c", "pass"]) for _ in range(repeats)])


def measure_payload(size: Size) -> list[Figure]:
    parts = payload()
    stage0 = len(parts.stage0)
    code = max(map(len, parts.codes.values()))
    return [
        Figure("payload, as source", (len(parts.source) + stage0) / 1024, "KB", 40.0),
        Figure("payload, compiled for the root's Python", (code + stage0) / 1024, "KB"),
    ]


def measure_start(size: Size) -> list[Figure]:
    """CPU from `python3 -I -S -c pass` to an agent that has been welcomed and has made its folder."""
    figures = []
    for python in pythons():
        bare = _bare(python, size.repeats)
        for as_code in (True, False):
            taken = []
            for _ in range(size.repeats):
                with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
                    agent = Agent(python, folder, as_code)
                    taken.append(agent.end())
            if as_code and not agent.compiled:
                continue
            name = "compiled" if agent.compiled else "source"
            what = f"start of an agent, {Path(python).name}, {name}: CPU beyond a bare Python"
            figures.append(Figure(what, (median(taken) - bare) * 1e3, "ms", 30.0, bare * 1e3, BARE))
    return figures


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def measure_idle(size: Size) -> list[Figure]:
    """Memory, and how often it wakes while the parent does what parents do: a ping every two seconds."""
    python = sys.executable
    bare = subprocess.Popen([python, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        agent = Agent(python, folder, True)
        try:
            started = _status(agent.pid, "VmRSS") / 1024
            agent.run(1, argv=["/bin/true"])
            used = _status(agent.pid, "VmRSS") / 1024
            before, began = _status(agent.pid, "voluntary_ctxt_switches"), time.monotonic()
            while time.monotonic() < began + size.seconds:
                time.sleep(min(2.0, size.seconds))
                agent.ping()
            wakes = (_status(agent.pid, "voluntary_ctxt_switches") - before) / (time.monotonic() - began)
            floor = _status(bare.pid, "VmRSS") / 1024
        finally:
            agent.end()
            bare.kill()
            bare.communicate()
    floor_is = "a bare Python that waits"
    return [
        Figure("memory of an agent", started, "MB", 12.0, floor, floor_is),
        Figure("memory of an agent after a command", used, "MB", 12.0, floor, floor_is),
        Figure("wake-ups of an idle agent, a second", wakes, "", 1.0),
    ]


def measure_helper(size: Size) -> list[Figure]:
    """CPU of `fanout report`, with the shell that starts it."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        agent = Agent(sys.executable, folder, True)
        try:
            script = "for i in $(seq %d); do %s; done; times"
            costs = []
            for call, command in enumerate((f"'{sys.executable}' -I -S -c pass", "fanout report x"), 1):
                outcome, _, out, err, _ = agent.run(call, shell=script % (size.repeats, command))
                if outcome != "ok":
                    raise RuntimeError(f"the helper failed: {err.decode()}")
                children = out.decode().splitlines()[-1]
                costs.append(sum(_minutes(word) for word in children.split()) / size.repeats * 1e3)
        finally:
            agent.end()
    return [Figure("a call of the helper: CPU", costs[1], "ms", 30.0, costs[0], BARE)]


def _minutes(text: str) -> float:
    """Seconds of what the shell's `times` prints: 0m1.25s."""
    minutes, _, seconds = text.partition("m")
    return int(minutes) * 60 + float(seconds.rstrip("s"))
