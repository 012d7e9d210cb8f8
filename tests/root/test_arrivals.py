"""Machines that boot while others are being connected: nobody reaches for them before, and each finds its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fanout.agent.core import machineset
from fanout.root import session
from fanout.root.machine import Machine
from fanout.root.outcomes import Outcome
from fanout.root.session import Session
from fanout.root.settings import Settings
from tests.root.trees import chain, everyone, left, local, outputs, run, until


class Booting:
    """A session under `folder` with machines that boot, and notice when they are connected before that."""

    def __init__(self, folder: Path, parents: Sequence[int | None], booting: Sequence[int], **settings: float) -> None:
        self.folder = folder
        hosts = [replace(host, python=str(folder / f"python-{i}") if i in booting else host.python)
                 for i, host in enumerate(local(len(parents)))]
        for i in booting:
            self._python(i, f"touch {folder}/early-{i}; exit 1")
        machines = [Machine(i, host, "peer") for i, host in enumerate(hosts)]
        self.session = Session(machines, parents, Settings("r1", folder=str(folder), lease=10.0, **settings),
                               booting=machineset.of(booting))
        self.progress: list[tuple[int, int]] = []
        self.connecting: asyncio.Task[None]

    def boot(self, *machines: int) -> None:
        for machine in machines:
            self._python(machine, 'exec python3 "$@"')
        self.session.arrived(machineset.of(machines))

    def _python(self, machine: int, does: str) -> None:
        path = self.folder / f"python-{machine}"
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    async def connected(self) -> None:
        async with asyncio.timeout(30.0):
            await self.connecting

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Session]:
        self.connecting = asyncio.create_task(self.session.connect(lambda *counts: self.progress.append(counts)))
        try:
            yield self.session
        finally:
            self.connecting.cancel()
            await self.session.end(grace=0.2)
            assert left(self.folder) == [] and not list(self.folder.glob("early-*"))


async def test_a_relay_has_its_first_child_while_others_boot_and_they_come_to_it(tmp_path: Path) -> None:
    tree = Booting(tmp_path, chain(2, 2), [2, 3, 5])
    async with tree.run() as up:
        await until(lambda: up.up == 0b010011)
        assert not tree.connecting.done()
        tree.boot(3)
        await until(lambda: up.up == 0b011011 or up.down)
        tree.boot(2, 5)
        await tree.connected()
        assert up.up == everyone(up) and not up.down and up.topology.parents == chain(2, 2)
        assert set(outputs(await run(up, up.up, argv=["true"]))) == set(range(6))
        assert tree.progress[-1] == (6, 6)
    assert up.problems == []


async def test_a_relay_that_boots_itself_is_told_of_those_that_were_ready_before_it(tmp_path: Path) -> None:
    tree = Booting(tmp_path, chain(2, 2), [0, 3])
    async with tree.run() as up:
        await until(lambda: up.up == 0b110010)
        tree.boot(3)
        assert 3 not in up.down and not up.detached
        tree.boot(0)
        await tree.connected()
        assert up.up == everyone(up) and up.topology.parents == chain(2, 2)


async def test_a_machine_whose_relay_is_lost_while_it_boots_is_placed_elsewhere(tmp_path: Path) -> None:
    """It is not dialled before it is ready, although its siblings are by then."""
    tree = Booting(tmp_path, chain(2, 2), [3])
    async with tree.run() as up:
        await until(lambda: up.up == 0b110111)
        call = await run(up, 0b000001, shell="echo $PPID")
        os.kill(int(outputs(call)[0]), signal.SIGKILL)
        await until(lambda: 0 in up.down and up.up == 0b110110)
        assert 3 not in up.down and up.booting == 0b001000 and not up.detached
        tree.boot(3)
        await tree.connected()
        assert up.up == 0b111110 and up.topology.parents[3] in (1, None) and up.topology.parents[2] in (1, None)
        assert up.down.keys() == {0}


async def test_the_children_of_a_relay_that_never_boots_are_placed_elsewhere(tmp_path: Path) -> None:
    tree = Booting(tmp_path, chain(2, 2), [0, 3])
    async with tree.run() as up:
        await until(lambda: up.up == 0b110010)
        up.lose(0b000001, Outcome.UNREACHABLE, "it did not boot")
        await until(lambda: up.up == 0b110110)
        tree.boot(3)
        await tree.connected()
        assert up.up == 0b111110 and up.down == {0: (Outcome.UNREACHABLE, "it did not boot")}


async def test_the_connect_timeout_of_a_machine_counts_from_its_arrival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MARGIN", 0.1)
    tree = Booting(tmp_path, [None, None], [0, 1], connect_timeout=0.2)
    async with tree.run() as up:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(tree.connecting), 0.5)
        assert not up.up and not up.down
        up.settings = replace(up.settings, connect_timeout=20.0)
        tree.boot(0)
        (tmp_path / "python-1").unlink()
        up.arrived(0b10)
        await tree.connected()
        assert up.up == 0b01 and up.down.keys() == {1}


async def test_a_run_that_ends_while_machines_boot_waits_for_none_of_them(tmp_path: Path) -> None:
    tree = Booting(tmp_path, chain(1, 2), [2])
    async with tree.run() as up:
        await until(lambda: up.up == 0b011)
    assert up.ended == 0b011 and up.problems == []
    tree.boot(2)
    assert up.up & 0b100 == 0
