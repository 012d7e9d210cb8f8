"""Readiness is read off the banner: nothing is sent, and a machine that is not prepared is asked seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fanout.fleets.aws import ready
from fanout.fleets.aws.ready import Readiness


@asynccontextmanager
async def server(banners: list[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Shows each connection the next banner, the last one for ever; what was sent to it."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banners.pop(0) if len(banners) > 1 else banners[0])
        heard.append(await reader.read(1000))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard


async def test_a_machine_is_ready_once_its_sshd_shows_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "WAIT", 0.01)
    told = asyncio.Event()
    readiness = Readiness("fanout-r1", told.set)
    banners = [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-OpenSSH_9.6 fanout-r11\r\n", b"x" * 999,
               b"SSH-2.0-OpenSSH_9.6 fanout-r1\r\n"]  # fmt: skip
    async with server(banners) as (port, heard):
        readiness.watch("i-1", "127.0.0.1", port)
        readiness.watch("i-1", "127.0.0.1", port)
        await asyncio.wait_for(told.wait(), 20.0)
        await readiness.stop()
    assert readiness.ready == {"i-1"} and not readiness.said
    assert len(heard) <= 5 and not any(heard)


async def test_what_keeps_a_machine_from_being_ready_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "WAIT", 0.01)
    monkeypatch.setattr(ready, "PROBE", 0.2)
    readiness = Readiness("fanout-r1", lambda: None)
    async with server([b"SSH-2.0-OpenSSH_9.6\r\n"]) as (port, _):
        readiness.watch("i-1", "127.0.0.1", port)
        await until(lambda: "not prepared yet" in readiness.said.get("i-1", ""))
    readiness.watch("i-2", "127.0.0.1", port)
    await until(lambda: "127.0.0.1: " in readiness.said.get("i-2", ""))
    readiness.forget("i-1")
    await readiness.stop()
    assert not readiness.ready


async def until(holds) -> None:
    async with asyncio.timeout(20.0):
        while not holds():  # noqa: ASYNC110  nothing tells of a failed probe
            await asyncio.sleep(0.01)
