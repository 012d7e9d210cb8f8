"""Files over a simulated tree: real transfers of real nodes with a virtual clock, and disks that are folders.

Whatever the tree, the pieces on the wire and the losses, what arrives is what was sent, or it is said why not.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fanout.agent import blobs, contention
from fanout.agent import shipping as module
from fanout.agent.core import blocks, codec, concurrency, frames, machineset
from fanout.agent.core import node as tree
from fanout.agent.core.feed import MOST
from fanout.agent.shipping import Shipping
from fanout.root import shipping as root
from tests.agent.core.network import Host, Network

WITHIN = 300.0  # s of virtual time


class Loop:
    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def now(self) -> float:
        return self._host.network.now

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        def due(_: None) -> None:
            act()
            self._host.wake()

        self._host.network.at(self.now + max(0.0005, seconds), due, None)


class Machine:
    """What a transfer needs of its agent."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.node = host.node
        self.loop: Any = Loop(host)
        self.folder = self.work = str(folder)
        self.identity = {"run": "r", "id": host.id}
        folder.mkdir(exist_ok=True)
        self.uplink = self
        self.shipping = Shipping(self)  # type: ignore[arg-type]

    def widen(self) -> None:
        """There is no pipe."""

    def fill(self, text: str) -> str:
        return text

    def emit(self, call: int, phase: int, value: Any) -> None:
        self.node.emit(call, phase, value, self.loop.now)


class World:
    """A network whose machines take files."""

    def __init__(self, folder: Path, parents: list[int | None], **options: Any) -> None:
        self.folder = folder
        self.net = Network(**options)
        self.machines: dict[int, Machine] = {}
        self.root = root.Shipping(self)  # type: ignore[arg-type]
        self.net.file, self.net.pump = self._file, self._pump
        self.damage: Callable[[int, bytes], bytes] = lambda machine, block: block
        self.slow: set[int] = set()
        self.held = 0
        self.net.build(parents)

    # What the root's shipping needs of its session.

    @property
    def node(self) -> Any:
        return self.net.root.node

    def now(self) -> float:
        return self.net.now

    def call(self, kind: int, targets: int, body: Any) -> Any:
        class Numbered:
            number = self.net.call(kind, targets, body)

        return Numbered

    # What nodes say.

    def _file(self, host: Host, item: tuple[Any, ...]) -> None:
        if host.id is None:
            if item[0] == tree.WANTED:
                self.root.wanted(*item[1:])
            return
        machine = self.machines.get(host.id)
        if machine is None:
            machine = self.machines[host.id] = Machine(host, self.folder / f"m{host.id}")
        if item[0] == tree.SHIPPED:
            machine.shipping.ship(item[1], codec.unpack(item[2]), item[3])
        elif item[0] == tree.WANTED:
            machine.shipping.wanted(*item[1:])
        elif item[0] == tree.DATA:
            machine.shipping.data(item[1], self.damage(host.id, item[2]))
        elif item[0] == tree.CANNOT:
            machine.shipping.refused(item[1], item[2])
        else:
            machine.shipping.resumed()

    def _pump(self, host: Host) -> None:
        pump = self.root.pump if host.id is None else (
            self.machines[host.id].shipping.pump if host.id in self.machines else None)
        if pump is not None and pump():
            host.wake()
        if host.id in self.machines:
            transfers = self.machines[host.id].shipping._transfers.values()
            self.held = max(self.held, *[sum(map(len, one._recent.values())) for one in transfers], 0)

    def ship(self, path: Path, to: str = "to", cache: bool = False) -> tuple[int, root.Source]:
        source = root.Source(path)
        return self.root.ship(source, self.net.everyone, to, None, cache).number, source

    def arrives(self, call: int) -> dict[int, Any]:
        """What each machine says in the end, after everything is settled."""
        assert self.net.run(lambda: self.net.settled(call), WITHIN), f"{self.net.answered(call):b}"
        return {machine: answers[-1] for machine, answers in self.net.answers(call).items()}

    def place(self, machine: int) -> Path:
        return self.folder / f"m{machine}" / "to"


def fill(path: Path, size: int, seed: int = 0) -> Path:
    """Random text, random bytes and holes."""
    random = Random(seed)
    with path.open("wb") as file:
        while (at := file.tell()) < size:
            kind, most = random.randrange(3), size - at
            if kind == 0:
                file.write(random.randbytes(min(most, random.randint(1, 200_000))))
            elif kind == 1:
                file.write(b"words and words " * (min(most, random.randint(16, 200_000)) // 16 + 1))
            else:
                file.seek(random.randint(1, 300_000), 1)
        file.truncate(size)
    return path


def shape(random: Random, machines: int) -> list[int | None]:
    return [random.choice([None, *range(max(0, machine - 6), machine)]) for machine in range(machines)]


def ok(machines: int) -> dict[int, list[str]]:
    return {machine: ["ok", ""] for machine in range(machines)}


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the machine that tests run on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def contended(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether processes wait for a CPU all the time; they do not, unless told."""
    def tell(yes: bool) -> None:
        waited = itertools.count(1, 1_000_000) if yes else itertools.repeat(0)
        monkeypatch.setattr(contention, "times", lambda: (0, next(waited)))

    tell(False)
    return tell


@pytest.mark.parametrize("seed", range(12))
def test_any_tree_any_pieces_any_content(
        tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, contended: Callable[[bool], None]) -> None:
    random = Random(seed)
    if seed % 2:
        monkeypatch.setattr(blobs, "room", lambda folder: 0)
    contended(seed % 4 == 0)
    path = fill(tmp_path / "file", random.choice([0, 1, 60 << 10, 200_000, 1_000_000]), seed)
    world = World(tmp_path, shape(random, 12), seed=seed, chunk=random.choice([None, 7_000, 100_000]))
    call, _ = world.ship(path)
    assert world.arrives(call) == ok(12)
    content = path.read_bytes()
    assert all(world.place(machine).read_bytes() == content for machine in range(12))


@pytest.mark.parametrize("seed", [*range(6), 25])
def test_lost_links_and_relays_cost_nobody_else_the_file(
        tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, contended: Callable[[bool], None]) -> None:
    """The root attaches again what a lost link or relay has left, anywhere, in the middle of the file."""
    random = Random(seed)
    if seed % 2:
        monkeypatch.setattr(blobs, "room", lambda folder: 0)
    contended(seed % 4 == 0)
    path = fill(tmp_path / "file", 4_000_000, seed)
    world = World(tmp_path, [None, None, 0, 0, 1, 1, 2, 2, 4], seed=seed, latency=(0.001, 0.01))
    net = world.net
    call, source = world.ship(path)
    body = codec.pack({"size": source.size, "bytes": source.bytes, "digest": source.digest, "to": "to",
                       "cache": False, "mode": source.mode})
    moved = random.sample([2, 4, 5, 6, 7, 8], 2)
    net.run(None, random.uniform(0.05, 0.3))
    for machine in moved:
        parent = net.root if random.random() < 0.5 else net.hosts[1 if machine in (2, 6, 7) else 0]
        net.cut(machine)
        net.run(None, random.uniform(0.02, 0.1))
        below = machineset.of([machine, *{2: [6, 7], 4: [8]}.get(machine, [])])
        if parent is net.root:
            net.connect(net.root, machine, 0, below)
        else:
            assert parent.id is not None
            net.call(frames.CONNECT, machineset.single(parent.id), {
                "children": [{"id": machine, "subtree": machineset.pack(below), "past": machineset.pack(below)}]})
        net.run(None, 0.2)
        net.root.node.command(frames.SHIP, call, below, body, net.now)  # as the session does
        net.root.wake()
    answers = world.arrives(call)
    content = path.read_bytes()
    for machine in range(9):
        assert answers.get(machine) == ["ok", ""], (machine, answers, moved)
        assert world.place(machine).read_bytes() == content


@pytest.mark.parametrize(("roomy", "busy"), [(True, False), (False, False), (True, True)])
def test_a_child_that_stops_reading_holds_up_nobody_and_costs_no_memory(
        tmp_path: Path, roomy: bool, busy: bool, monkeypatch: pytest.MonkeyPatch, contended: Callable[[bool], None]
) -> None:
    contended(busy)
    if not roomy:
        monkeypatch.setattr(blobs, "room", lambda folder: 0)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4_000_000))
    world = World(tmp_path, [None, 0, 0, 0])
    net = world.net
    call, _ = world.ship(path)
    net.run(lambda: 2 in world.machines, 10.0)
    wire = net.hosts[2].wire
    assert wire is not None
    wire.down.paused = True
    began = net.now
    assert net.run(lambda: net.answered(call) == 0b1011, 20.0), "the others are held up"
    assert net.now - began < 15.0
    assert world.held <= (0 if roomy else MOST + 2 * blocks.SLOT)
    assert net.root.node.children[0].queued(frames.BULK) <= root.QUEUE + blocks.SLOT
    wire.down.resume()
    assert world.arrives(call)[2] == ["ok", ""]
    assert world.place(2).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("busy", [False, True])
def test_a_relay_without_cpu_to_spare_sends_to_one_leaf_after_the_other_and_to_relays_always(
        tmp_path: Path, busy: bool, monkeypatch: pytest.MonkeyPatch, contended: Callable[[bool], None]) -> None:
    contended(busy)
    monkeypatch.setattr(concurrency, "FIRST", 1 if busy else 8)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4_000_000))
    world = World(tmp_path, [None, 0, 0, 0, 0, 0, 0, 5], latency=(0.01, 0.01))
    call, source = world.ship(path)
    in_the_middle = relay_in_the_middle = 0

    def follow() -> bool:
        nonlocal in_the_middle, relay_in_the_middle
        sent = {}
        if 0 in world.machines:
            for transfer in world.machines[0].shipping._transfers.values():
                sent = {child: one.sent for child, one in transfer.feed._children.items()}
        leaves = sum(0 < at < source.size for child, at in sent.items() if child != 5)
        in_the_middle = max(in_the_middle, leaves)
        relay_in_the_middle = max(relay_in_the_middle, leaves * (0 < sent.get(5, 0) < source.size))
        return world.net.settled(call)

    assert world.net.run(follow, WITHIN)
    assert world.arrives(call) == ok(8)
    assert in_the_middle == (1 if busy else 5)
    assert relay_in_the_middle >= 1


def test_the_root_looks_at_everything_else_while_its_blocks_take_long(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2_000_000))
    world = World(tmp_path, [None] * 6)
    real, long, most = root._Sending.block, 0.003, 0.0

    def block(self: Any, offset: int) -> bytes:
        world.net.now += long
        return real(self, offset)

    pump = world.root.pump

    def measured() -> bool:
        nonlocal most
        began = world.net.now
        more = pump()
        most = max(most, world.net.now - began)
        return more

    monkeypatch.setattr(root._Sending, "block", block)
    monkeypatch.setattr(world.root, "pump", measured)
    call, _ = world.ship(path)
    assert world.arrives(call) == ok(6)
    assert long <= most <= root.MOMENT + long


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_block_that_comes_damaged_is_refused_and_asked_for_again(tmp_path: Path, times: int) -> None:
    path = fill(tmp_path / "file", 1_000_000)
    world = World(tmp_path, [None, 0, 1])
    seen: list[int] = []

    def damage(machine: int, block: bytes) -> bytes:
        if machine == 1 and blocks.HEAD.unpack_from(block)[0] == 4 * blocks.BLOCK and len(seen) < times:
            seen.append(machine)
            return block[:-1] + bytes([block[-1] ^ 1])
        return block

    world.damage = damage
    call, _ = world.ship(path)
    answers = world.arrives(call)
    assert len(seen) == times
    assert answers[0] == ["ok", ""]
    if times < module.ATTEMPTS:
        assert answers[1] == answers[2] == ["ok", ""]
        assert world.place(2).read_bytes() == path.read_bytes()
    else:
        assert answers[1][0] == answers[2][0] == "failed"
        assert "damaged 3 times" in answers[2][1]
        assert not world.place(1).exists() and not world.place(2).exists()


def test_where_it_cannot_be_written_is_said_and_what_is_below_has_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that becomes full in the middle: of the place, and of what is passed on."""
    path = fill(tmp_path / "file", 2_000_000)
    world = World(tmp_path, [None, 0, 1])
    real = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if "/m0/" in os.readlink(f"/proc/self/fd/{fd}") and at > 500_000:
            raise OSError(28, "No space left on device")
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    call, _ = world.ship(path)
    answers = world.arrives(call)
    assert answers[0] == ["failed", f"cannot put it at {world.place(0)}: No space left on device; "
                          "free some there, or choose another place"]
    assert answers[1] == answers[2] == ["ok", ""]
    assert world.place(2).read_bytes() == path.read_bytes()
    assert [entry.name for entry in (tmp_path / "m0").iterdir()] == []


def test_a_file_that_changes_while_it_is_sent_is_said_everywhere(tmp_path: Path) -> None:
    path = fill(tmp_path / "file", 8_000_000)
    world = World(tmp_path, [None, 0])
    call, _ = world.ship(path)
    world.net.run(lambda: world.root.sent > 1_000_000, 10.0)
    with path.open("r+b") as file:
        file.seek(7_900_000)
        file.write(b"changed")
    os.utime(path, ns=(1, 1))
    answers = world.arrives(call)
    assert answers == {
        machine: ["failed", f"{path} was written to while it was shipped"] for machine in range(2)}
    assert not world.place(0).exists()


def test_what_a_machine_keeps_it_does_not_get_again_and_its_children_get_it_from_there(tmp_path: Path) -> None:
    path = fill(tmp_path / "file", 2_000_000)
    sent = []
    for turn in range(4):
        folder = tmp_path / str(turn)
        folder.mkdir()
        world = World(folder, [None, 0, 0])
        if turn == 2:  # a blob that was damaged meanwhile
            (blob,) = (tmp_path / "cache" / "fanout" / "blobs").iterdir()
            with blob.open("r+b") as file:
                file.seek(blocks.place(3 * blocks.BLOCK) + 100)
                file.write(b"damage")
        call, _ = world.ship(path, cache=turn < 3)
        assert world.arrives(call) == ok(3)
        assert all(world.place(machine).read_bytes() == path.read_bytes() for machine in range(3))
        sent.append(world.root.sent)
    assert sent[1] == 0
    assert 0 < sent[2] <= 2 * sent[0], "these three share one folder of blobs, and each lost its own"
    assert sent[3] == sent[0], "without the cache"


def test_nothing_stays_open_once_all_have_it(tmp_path: Path) -> None:
    path = fill(tmp_path / "file", 500_000)
    world = World(tmp_path, [None, 0, 1])
    gc.collect()  # what tests before have forgotten closes now
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        call, source = world.ship(path, f"to{number}", cache=number > 2)
        world.arrives(call)
        source.close()
    world.net.run(None, 5.0)
    assert len(os.listdir("/proc/self/fd")) == before
