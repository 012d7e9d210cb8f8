"""Calls of the AWS API, by boto3 in threads: the only module that imports it.

Every failure is a FleetError with its remedy: `Refused` when AWS said no, `Unanswered` when nobody knows what
came of the call.  A call that is cancelled goes on in its thread; `settle` waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from fanout.errors import FleetError, UsageError

CONNECT_TIMEOUT = 5.0  # s
READ_TIMEOUT = 30.0  # s
ATTEMPTS = 4
"""Of botocore for one call, with adaptive back-off.  Few: it also repeats what says that capacity is lacking."""
SETTLE = 60.0  # s that calls may still take which nobody waits for any more

DENIED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
WRONG = {"InvalidClientTokenId", "AuthFailure", "SignatureDoesNotMatch", "UnrecognizedClientException"}
BUSY = {
    "RequestLimitExceeded", "Throttling", "ThrottlingException", "InternalError", "Unavailable", "ServiceUnavailable",
}  # fmt: skip
VCPUS = {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"}

LOG_IN = "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in (aws configure, aws sso login)"
ENCODED = "Encoded authorization failure message"


class Refused(FleetError):
    """AWS has answered, and did not do it."""

    def __init__(self, action: str, code: str, message: str) -> None:
        self.action, self.code = action, code
        self.message = message.partition(ENCODED)[0].strip()
        remedy = _remedy(action, code)
        super().__init__(f"AWS refused {action}: {code}: {self.message}" + (f"\n{remedy}" if remedy else ""))


class Unanswered(FleetError):
    """No answer: whether it was done is unknown."""


def passes(error: FleetError) -> bool:
    """Whether the same call may do a moment later."""
    return isinstance(error, Unanswered) or (isinstance(error, Refused) and error.code in BUSY)


class Api:
    """The clients of one account and region, made at the first call.  `UsageError` without boto3 or a region."""

    def __init__(self, region: str | None, profile: str | None) -> None:
        try:
            import boto3
        except ImportError:
            raise UsageError("--fleet aws needs boto3, which is not installed: pip install 'fanout[aws]'") from None
        from botocore.exceptions import BotoCoreError

        try:
            # Typed by what packages of stubs happen to be installed, or by none.
            self._session: Any = boto3.session.Session(region_name=region, profile_name=profile)
        except BotoCoreError as error:  # there is no such profile
            raise FleetError(f"AWS cannot be used: {error}\n{LOG_IN}") from None
        if not self._session.region_name:
            raise UsageError("--fleet aws: which region? Write region=..., or set AWS_REGION")
        self.region: str = self._session.region_name
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._pending: set[asyncio.Future[dict[str, Any]]] = set()

    async def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """What AWS answers.  Refused, Unanswered."""
        work = asyncio.ensure_future(asyncio.to_thread(self._call, service, operation, parameters))
        self._pending.add(work)
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    async def each(self, service: str, operation: str, key: str, **parameters: Any) -> AsyncIterator[dict[str, Any]]:
        """The items under `key`, page after page."""
        while True:
            answer = await self.call(service, operation, **parameters)
            for item in answer[key]:
                yield item
            if not answer.get("NextToken"):
                return
            parameters["NextToken"] = answer["NextToken"]

    async def may(self, operation: str, **parameters: Any) -> None:
        """A dry run of EC2: Refused when the credentials do not allow it, or the parameters do not fit."""
        try:
            await self.call("ec2", operation, DryRun=True, **parameters)
        except Refused as refused:
            if refused.code != "DryRunOperation":
                raise

    async def settle(self) -> None:
        """Until calls that were given up have ended, within SETTLE."""
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=SETTLE)

    def _done(self, work: asyncio.Future[dict[str, Any]]) -> None:
        self._pending.discard(work)
        if not work.cancelled():
            work.exception()  # of a call that nobody waits for, it is nobody's

    def _call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        from botocore import exceptions

        try:
            client = self._client(service)
            action = f"{service}:{client.meta.method_to_api_mapping[operation]}"
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
        except exceptions.ClientError as error:
            said = error.response.get("Error", {})
            raise Refused(action, said.get("Code", "?"), said.get("Message", str(error))) from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise FleetError(f"there are no AWS credentials: {error}\n{LOG_IN}") from None
        except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
            raise Unanswered(
                f"AWS does not answer {action}: {error}\ncheck the network, and that the region {self.region} exists"
            ) from None
        except exceptions.BotoCoreError as error:  # a login that has expired, a file that cannot be read
            raise FleetError(f"AWS cannot be used: {error}\n{LOG_IN}") from None
        return answer

    def _client(self, service: str) -> Any:
        from botocore.config import Config

        with self._lock:  # making one is not safe in several threads; using one is
            if service not in self._clients:
                config = Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
                    user_agent_extra="fanout",
                )
                # Prices are told in few regions, for all of them.
                region = "us-east-1" if service == "pricing" else self.region
                self._clients[service] = self._session.client(service, region_name=region, config=config)
            return self._clients[service]


def _remedy(action: str, code: str) -> str:
    if code in DENIED:
        return f"the credentials may not do {action}: add it to their policy (the least one is in docs/aws.md)"
    if code in EXPIRED:
        return f"the credentials have expired (or this machine's clock is wrong): log in again; {LOG_IN}"
    if code in WRONG:
        return f"the credentials are not valid: {LOG_IN}"
    if code in VCPUS:
        return "ask for a higher limit (Service Quotas, Amazon EC2), or take fewer machines or smaller types"
    if code in BUSY:
        return "AWS limits how often it is asked: try again later"
    return ""
