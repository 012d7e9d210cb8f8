"""JSON over HTTP with a bearer token: the little that a client of the broker needs.

By the standard library, in a thread: a run makes a request a second at most, and whoever only leases machines should
not have to install an HTTP client for it.  Certificates are verified; redirects are not followed, because they would
carry the token elsewhere; the token is in a header and nowhere else.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from fanout.errors import FleetError, UsageError
from fanout.fleets.base import is_loopback

TIMEOUT = 15.0  # s; for each wait of a request
MAX_ANSWER = 64 << 20  # bytes; a hundred thousand machines have less


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    """Empty unless it is a JSON object."""


class Unanswered(FleetError):
    """No answer came, or one of a server that is not itself; it may pass."""


class JsonHttp:
    def __init__(self, url: str, token: str, ca: Path | None) -> None:
        """`ca` has certificates to trust instead of the system's.  FleetError when it cannot be read."""
        self.url = url
        self._token = token
        parts = urlsplit(url)
        handlers: list[urllib.request.BaseHandler] = [_Stay()]
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=_trust(ca)))
        if is_loopback(parts.hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Whatever the server answers; Unanswered for none, FleetError for a server that is not who it should be."""
        request = urllib.request.Request(  # noqa: S310  the scheme is checked by `checked_url`
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Accept": "application/json",
                "Content-Type": "application/json",
                **(headers or {}),
            },
            method=method,
        )
        return await asyncio.to_thread(self._call, request)

    def _call(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return Answer(response.status, _object(response.read(MAX_ANSWER)))
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, _object(error.read(MAX_ANSWER)))
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                said = answer.body.get("detail", error.reason)
                raise Unanswered(f"{self.url} answers {error.code}: {said}") from None
            return answer
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            why = getattr(error, "reason", error)
            if isinstance(why, ssl.SSLCertVerificationError):
                raise FleetError(
                    f"{self.url}: its certificate is not trusted: {why.verify_message};"
                    " with a CA of your own, add ,ca=FILE to the fleet"
                ) from None
            raise Unanswered(f"{self.url} does not answer: {getattr(why, 'strerror', None) or why}") from None


def checked_url(text: str) -> str:
    """The URL of a server, without a slash at its end.  UsageError for one that would show the token to others."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{text!r} is not a URL: {error}") from None
    if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is not https://HOST[:PORT]")
    if parts.username or parts.password:
        raise UsageError("a URL is no place for a password: everybody sees it in the list of processes")
    if parts.scheme == "http" and not is_loopback(host):
        raise UsageError(f"{text}: plain HTTP would show your token to the network: use https://")
    return text.rstrip("/")


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise FleetError(f"ca={ca} does not work: {error.strerror or error}") from None


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None
