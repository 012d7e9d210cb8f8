"""Barriers, signals and topics: every story of `stories/` goes as told, and no order, merging, loss or repetition
changes what a flat counter says.

A story is a script: lines with a command, and below each what was answered, marked with `=>`.  After a change
that is meant, `UPDATE_STORIES=1 pytest tests/root/test_sync.py` tells them anew; read the difference.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, machineset
from fanout.agent.core.merge import split_sync, sync_extra
from fanout.root.sync import ANSWER_MOST, TOPIC_VALUES, Answer, Sync

STORIES = Path(__file__).with_name("stories")


def bits(text: str) -> int:
    """Of `0,2,5-7`."""
    found = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= machineset.of(range(int(first), int(last or first) + 1))
    return found


def show(machines: int) -> str:
    return ",".join(map(str, machineset.members(machines)))


class Teller:
    """Does what the lines of a story say."""

    def __init__(self) -> None:
        self.sync = Sync(0, lambda machines: "m" + show(machines))
        self.now = 0.0
        self.said: list[str] = []

    def line(self, line: str) -> list[str]:
        self.said = []
        who, *words = shlex.split(line)
        if who == "machines":
            self.sync = Sync(bits(words[0]), lambda machines: "m" + show(machines))
        elif who == "wait":
            self.now += float(words[0].rstrip("s"))
            self.sync.tick(self.now)
        elif who == "lost":
            self.sync.lose(bits(words[0]))
        elif who == "back":
            self.sync.regain(bits(words[0]))
        elif who == "call":
            (self.sync.call_over if words[2] == "over" else self.sync.call_begun)(int(words[0]), bits(words[1]))
        elif who == "root":
            self._root(*words)
        else:
            self._machines(bits(who), *words)
        for machines, key, (ok, value) in self.sync.answers:
            op = codec.unpack(split_sync(key)[1])
            self.said.append(f"{show(machines)}: {op[0]} {op[1]}: {'' if ok else 'no: '}{value}")
        self.sync.answers = []
        return sorted(self.said)

    def _options(self, words: tuple[str, ...]) -> dict[str, Any]:
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _root(self, kind: str, name: str, *words: str) -> None:
        options = self._options(words)

        def notify(answer: Answer) -> None:
            self.said.append(f"root: {kind} {name}: {'' if answer[0] else 'no: '}{answer[1]}")

        deadline = self.now + float(options.get("timeout", "60"))
        if kind == "barrier":
            members = bits(options["of"]) if "of" in options else 0
            self.sync.barrier(name, int(options.get("round", "1")), members, int(options.get("count", "0")), deadline,
                              notify)
        elif kind in ("wait", "collect"):
            after, count = int(options.get("after", "0")), int(options.get("count", "1"))
            self.sync.wait(kind, name, after, count, deadline, notify)
        else:
            notify((self.sync.signal if kind == "signal" else self.sync.publish)(name, words[0] if words else None))

    def _machines(self, machines: int, kind: str, name: str, *words: str) -> None:
        options = self._options(words)
        timeout = float(options.get("timeout", "60"))
        members, value, op = 0, None, [kind, name]
        if kind == "barrier":
            members = bits(options["of"]) if "of" in options else 0
            op += [int(options.get("round", "1")), int(options.get("count", "0"))]
            value = [timeout, int(options.get("call", "0"))]
        elif kind in ("wait", "collect"):
            op += [int(options.get("after", "0")), int(options.get("count", "1"))]
            value = timeout
        else:
            op += [int(options.get("nonce", "1"))]
            value = words[0] if words and "=" not in words[0] else None
        self.sync.request(machines, sync_extra(members, codec.pack(op)), members, op, value, self.now)


@pytest.mark.parametrize("path", sorted(STORIES.glob("*.txt")), ids=lambda path: path.stem)
def test_the_story_goes_as_told(path: Path) -> None:
    teller, told = Teller(), []
    for line in path.read_text().splitlines():
        if line.startswith("  =>"):
            continue
        told.append(line)
        if line.strip() and not line.startswith("#"):
            told += [f"  => {said}" for said in teller.line(line)]
    text = "\n".join(told) + "\n"
    if os.environ.get("UPDATE_STORIES"):
        path.write_text(text)
    assert text == path.read_text()


# Against a flat counter.


@st.composite
def rounds(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int, int]], int]:
    """(members, needed, arrivals as (set, round, how often told), lost): in an order of the draw's choice."""
    size = draw(st.integers(1, 12))
    needed = draw(st.integers(1, size))
    lost = draw(st.integers(0, (1 << size) - 1))
    arrivals = []
    for generation in (1, 2):
        left = draw(st.integers(0, (1 << size) - 1))
        while left:
            part = left & draw(st.integers(1, (1 << size) - 1)) or left
            left &= ~part
            arrivals.append((part, generation, draw(st.integers(1, 3))))
    return (1 << size) - 1, needed, draw(st.permutations(arrivals)), lost


@settings(deadline=None)
@given(rounds(), st.booleans(), st.booleans())
def test_a_barrier_is_a_count_of_who_has_come(
    drawn: tuple[int, int, list[tuple[int, int, int]], int], lost_first: bool, one_by_one: bool
) -> None:
    members, needed, arrivals, lost = drawn
    sync = Sync(members, show)
    if lost_first:
        sync.lose(lost)
        arrivals = [(part & ~lost, generation, often) for part, generation, often in arrivals if part & ~lost]
    for part, generation, often in arrivals:
        for _ in range(often):
            parts = [1 << m for m in machineset.members(part)] if one_by_one else [part]
            for one in parts:
                op = ["barrier", "b", generation, needed]
                sync.request(one, sync_extra(members, codec.pack(op)), members, op, [60.0, 0], 0.0)
    sync.lose(lost)
    answered: dict[int, dict[int, set[bool]]] = {1: {}, 2: {}}
    for machines, key, (ok, _) in sync.answers:
        generation = codec.unpack(split_sync(key)[1])[2]
        for machine in machineset.members(machines):
            answered[generation].setdefault(machine, set()).add(ok)
    for generation in (1, 2):
        came = 0
        for part, of, _ in arrivals:
            came |= part if of == generation else 0
        full = machineset.count(came) >= needed
        hopeless = machineset.count(members & ~(lost & ~came)) < needed
        if full or hopeless:
            assert answered[generation] == {machine: {full} for machine in machineset.members(came)}
        else:
            assert answered[generation] == {}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=40), st.integers(1, 8))
def test_every_signal_counts_once_and_keeps_the_order_of_its_machine(told: list[tuple[int, int]], count: int) -> None:
    """`told`: (machine, nonce), with repetitions."""
    sync = Sync(0b111111, show)
    expected: list[tuple[int, int]] = []
    places: dict[tuple[int, int], int] = {}
    granted: list[Answer] = []
    sync.wait("wait", "s", 0, count, 60.0, granted.append)
    for machine, nonce in told:
        if (machine, nonce) not in places:
            expected.append((machine, nonce))
            places[machine, nonce] = len(expected)
        op = ["signal", "s", nonce]
        sync.request(1 << machine, sync_extra(0, codec.pack(op)), 0, op, [machine, nonce], 0.0)
        assert sync.answers[-1][2] == (True, places[machine, nonce])
    if len(expected) >= count:
        assert granted == [(True, [list(pair) for pair in expected[:count]])]
    else:
        assert granted == []
        sync.tick(60.0)
        assert granted == [(False, f"wait s: {len(expected)} of {count} at the timeout")]
    assert sync.timeout() is None


# Bounds.


def test_nonsense_is_answered_not_raised() -> None:
    sync = Sync(0b11, show)
    key = sync_extra(0, codec.pack(["x"]))
    nonsense: list[Any] = [[], None, 7, ["barrier"], ["barrier", "b", "x", 1], ["wait", "w", 0, 0], ["what", "n"],
                           ["barrier", "b", 1, 9], ["collect", "c", -1, 1], ["signal", "\n", 1], ["signal", "", 1]]
    for op in nonsense:
        for value in (None, [60.0, 0], 60.0):
            sync.request(0b1, key, 0, op, value, 0.0)
            machines, _, (ok, reason) = sync.answers.pop()
            assert machines == 1 and reason, op
            assert not ok
    assert sync.timeout() is None


def test_an_answer_too_large_for_a_message_is_refused_with_a_way_out() -> None:
    sync = Sync(0b1, show)
    for _ in range(40):
        assert sync.publish("t", bytes(60_000))[0]
    op = ["collect", "t", 0, 40]
    sync.request(0b1, sync_extra(0, codec.pack(op)), 0, op, 60.0, 0.0)
    ok, reason = sync.answers[0][2]
    assert not ok and str(ANSWER_MOST) in reason and "in parts" in reason
    values: list[Answer] = []
    sync.wait("collect", "t", 0, 40, 60.0, values.append)  # the root has no such bound
    assert values[0][0]


def test_values_have_a_size_and_a_number() -> None:
    sync = Sync(0b1, show)
    assert sync.signal("s", bytes(70_000)) == (False, "s: the value has 70005 bytes; 65536 are the most")
    for _ in range(TOPIC_VALUES):
        sync.signal("s", None)
    assert sync.signal("s", None) == (False, f"s holds {TOPIC_VALUES} values already")
    assert sync.signal("other", None) == (True, 1)
