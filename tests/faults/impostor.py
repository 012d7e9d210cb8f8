"""What answers in the place of an agent, and does harm: `python -m tests.faults.impostor KIND BUILD`.

It greets as stage 0 does for an agent that is there already, says HELLO, and then breaks the protocol in one way.
"""

from __future__ import annotations

import contextlib
import os
import sys

from fanout.agent.core import codec, frames, machineset, merge
from fanout.agent.core.node import DONE

VICTIM = machineset.single(0)
OWN = 3  # the machine that the impostor stands for


def say(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def events(number: int, machines: int, value: bytes = b"\xc0") -> bytes:
    body = codec.pack([[merge.key(7, DONE), value, machineset.pack(machines)]])
    return frames.encode(frames.CONTROL, frames.EVENTS, number, b"", body)


def logs(number: int, source: int, payload: bytes) -> bytes:
    return frames.encode(frames.BULK, frames.LOGS, number, b"", frames.record(source, payload))


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


FLOOD = "more than its window"
HARM = {
    "garbage": lambda: [bytes(range(256)) * 64],
    "a frame beyond its size": lambda: [frames.HEADER.pack(1 << 31, frames.CONTROL, frames.EVENTS, 0, 1)],
    "a class that is none": lambda: [frames.HEADER.pack(8, 9, frames.EVENTS, 0, 1)],
    "a command": lambda: [frames.encode(
        frames.CONTROL, frames.RUN, 1, machineset.pack(VICTIM), codec.pack({"shell": "touch /tmp/harm"}))],
    "an event of another machine": lambda: [events(1, VICTIM)],
    "a log of another machine": lambda: [logs(1, 0, b"never said")],
    "a frame twice": lambda: [events(1, machineset.single(OWN)), events(1, machineset.single(OWN))],
    FLOOD: lambda: (logs(i + 1, OWN, bytes(60_000)) for i in range(100)),
    "depth without end": lambda: [frames.encode(frames.CONTROL, frames.EVENTS, 1, b"", nested(100_000))],
}


def main(kind: str, build: str) -> None:
    say(b"\nfanout-stage0 00 3.11 attached\n")
    build = "another" if kind == "another build" else build
    say(frames.encode(frames.CONTROL, frames.HELLO, 0, b"", codec.pack([build, {}])))
    heard = b""
    begin = kind.encode() if kind == FLOOD else b"lease"  # a command of the test's; or the WELCOME
    while begin not in heard:
        piece = os.read(0, 65536)
        if not piece:
            return
        heard += piece
    for data in HARM[kind]():
        say(data)
    while os.read(0, 65536):
        pass


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main(*sys.argv[1:3])
