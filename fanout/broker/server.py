"""The broker on a port: TLS, or plain HTTP where nobody can listen in; until it is told to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from fanout.broker.api import create_app
from fanout.broker.service import Broker
from fanout.errors import UsageError
from fanout.fleets.base import is_loopback

CONNECTIONS = 500  # requests and connections at once; more are answered with 503
BACKLOG = 256
GRACE = 5  # s for requests under way when the broker stops


@dataclass(frozen=True)
class Listen:
    host: str
    port: int
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False
    """Plain HTTP also where others can listen in; for a proxy in front that speaks TLS."""

    def __post_init__(self) -> None:
        """UsageError for what would put tokens on the wire in the clear."""
        if (self.cert is None) != (self.key is None):
            raise UsageError("TLS needs both --tls-cert and --tls-key")
        if self.cert is None and not self.insecure and not is_loopback(self.host):
            raise UsageError(
                f"plain HTTP on {self.host} would show tokens and keys to the network: give --tls-cert and --tls-key,"
                " listen on 127.0.0.1, or say --insecure if a proxy in front speaks TLS"
            )


def serve(broker: Broker, listen: Listen, listening: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM.  `listening` is told the URL, once connections are taken."""
    config = uvicorn.Config(
        create_app(broker),
        log_config=None,
        access_log=False,  # the audit log says who did what, without tokens
        lifespan="on",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=listen.cert,
        ssl_keyfile=listen.key,
    )
    try:
        config.load()  # reads the certificate
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"the certificate {listen.cert} with the key {listen.key} does not work: {error}") from None
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        bound = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(f"cannot listen on {listen.host} port {listen.port}: {error.strerror}") from None
    with bound:
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        url = f"{'https' if listen.cert else 'http'}://{host}:{bound.getsockname()[1]}"
        asyncio.run(_Server(config, lambda: listening(url)).serve([bound]))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._told()
