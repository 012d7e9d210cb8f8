"""Our own address is what a service sees us as, unless it was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fanout.errors import FleetError
from fanout.fleets.aws.network import root_address


@asynccontextmanager
async def service(answer: str) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{answer}".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_it_is_asked_for_once_and_only_where_it_was_not_given() -> None:
    async with service("203.0.113.7\n") as url:
        assert await root_address(None, url) == "203.0.113.7/32"
    assert await root_address("10.0.0.0/8", url) == "10.0.0.0/8"


@pytest.mark.parametrize("answer", ["<html>", "", "2001:db8::1", "x" * 100])
async def test_an_answer_that_is_no_address_is_an_error_with_the_remedy(answer: str) -> None:
    async with service(answer) as url:
        with pytest.raises(FleetError, match=r"(?s)cannot be learned from http://127.*root_address = "):
            await root_address(None, url)


async def test_so_is_no_answer() -> None:
    async with service("") as url:
        pass
    with pytest.raises(FleetError, match=r"(?i)refused"):
        await root_address(None, url)
