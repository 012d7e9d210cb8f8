"""What is wrong with a request, as RFC 9457 problem JSON: a code for programs, and a remedy for people."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fanout.errors import FanoutError

MEDIA_TYPE = "application/problem+json"


class Problem(FanoutError):
    def __init__(
        self, status: HTTPStatus, code: str, detail: str, remedy: str, headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(f"{detail}: {remedy}")
        self.status = status
        self.headers = dict(headers or {})
        self.body = {
            "type": f"urn:fanout:broker:{code}",
            "title": status.phrase,
            "status": int(status),
            "detail": detail,
            "code": code,
            "remedy": remedy,
            **more,
        }


def not_found() -> Problem:
    """The same for what another tenant has and for what nobody has."""
    return Problem(
        HTTPStatus.NOT_FOUND, "not-found", "there is no such lease of yours", "GET /v1/leases lists those you have"
    )
