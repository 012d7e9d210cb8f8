"""A call to the cloud and the answer to it, as HTTP carries them, and what may go wrong in between.

Errors are those of the page "Error codes for the Amazon EC2 API" of the EC2 API Reference, client errors with a
status of 400 and on, server errors with 500 and on; a client library repeats the latter by itself.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

Environ = dict[str, Any]

ERRORS: dict[str, tuple[int, str]] = {
    "AuthFailure": (401, "AWS was not able to validate the provided access credentials"),
    "DependencyViolation": (400, "resource {0} has a dependent object"),
    "DryRunOperation": (412, "Request would have succeeded, but DryRun flag is set."),
    # Of STS; EC2 says RequestExpired where a session's token is too old.
    "ExpiredToken": (403, "The security token included in the request is expired"),
    "RequestExpired": (400, "Request has expired."),
    "IdempotentInstanceTerminated": (400, "The client token was used for instances that have been terminated."),
    "IdempotentParameterMismatch": (400, "Arguments on this idempotent request are inconsistent with arguments"
                                         " used in previous request(s)."),
    "InsufficientInstanceCapacity": (500, "We currently do not have sufficient {0} capacity in the Availability"
                                          " Zone you requested ({1})."),
    "InternalError": (500, "An internal error has occurred"),
    "InvalidClientTokenId": (403, "The security token included in the request is invalid."),
    "InvalidInstanceID.NotFound": (400, "The instance ID '{0}' does not exist"),
    "InvalidParameterValue": (400, "{0}"),
    "OptInRequired": (401, "You are not subscribed to this service."),
    "ParameterNotFound": (400, "The parameter does not exist"),
    "RequestLimitExceeded": (503, "Request limit exceeded."),
    "UnauthorizedOperation": (403, "You are not authorized to perform this operation. User: {0} is not authorized to"
                                   " perform: ec2:{1} because no identity-based policy allows the ec2:{1} action."),
    "VcpuLimitExceeded": (400, "You have requested more vCPU capacity than your current vCPU limit of {0} allows for"
                               " the instance bucket that the specified instance type belongs to."),
}
DROPPED = "dropped"
"""Not an error of the service's: the connection is closed instead of an answer."""


@dataclass(frozen=True)
class Call:
    service: str
    region: str
    action: str
    parameters: Mapping[str, Any]
    """EC2's and STS's flat form (`InstanceId.1`), or the others' JSON."""
    environ: Environ = field(repr=False, compare=False)

    @classmethod
    def read(cls, environ: Environ) -> Call:
        """From a WSGI request; service and region are in the scope of its signature, which nobody checks here."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0].split("/")
        region, service = scope[2:4] if len(scope) == 5 else ("us-east-1", "")
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            return cls(service, region, target.rpartition(".")[2], json.loads(body), environ)
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        return cls(service, region, form.pop("Action", ""), form, environ)

    def listed(self, name: str) -> list[str]:
        """The values of `name.1`, `name.2` and on."""
        return [value for key, value in self.parameters.items() if key.rpartition(".")[0] == name]

    def rewritten(self, action: str, parameters: Mapping[str, Any]) -> Call:
        """The same caller's other EC2 call."""
        body = urlencode({"Action": action, **parameters}).encode()
        environ = {**self.environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return replace(self, action=action, parameters=parameters, environ=environ)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    kind: str = "text/xml;charset=UTF-8"

    @classmethod
    def of_json(cls, value: object, status: int = 200) -> Answer:
        return cls(status, json.dumps(value).encode(), "application/x-amz-json-1.1")

    @classmethod
    def error(cls, call: Call, code: str, *words: str) -> Answer:
        """In the form in which the service that was called says it."""
        status, message = ERRORS[code]
        text = message.format(*words) if words else message
        if call.service not in ("ec2", "sts"):
            return cls.of_json({"__type": code, "message": text}, status)
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(text)}</Message></Error>"
        if call.service == "ec2":
            error = f"<Response><Errors>{error}</Errors><RequestID>r-0</RequestID></Response>"
        else:
            error = f"<ErrorResponse>{error}<RequestId>r-0</RequestId></ErrorResponse>"
        return cls(status, f'<?xml version="1.0" encoding="UTF-8"?>{error}'.encode())


@dataclass
class Fault:
    """What strikes some calls of an action."""

    action: str
    code: str
    """One of ERRORS, or DROPPED."""
    times: int = 1
    """How many calls it strikes, before it is over."""
    after: int = 0
    """How many calls it lets pass before."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Only calls with these parameters."""
    words: tuple[str, ...] = ()
    """What the error names."""
    effect: bool = False
    """The call takes effect all the same."""

    def strikes(self, call: Call) -> bool:
        """Whether this call is struck; counts it."""
        if call.action != self.action or any(call.parameters.get(k) != v for k, v in self.where.items()):
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0
