"""The HTTP interface, version 1.  A tenant is who its token says; what is not its own does not exist for it.

Every answer that is no success is a problem (`problems.py`).  Everything may be repeated: POST by its Idempotency-Key,
the rest by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fanout.broker import audit, leases, quotas, tenants
from fanout.broker.leases import Cause, State
from fanout.broker.limits import Bounded
from fanout.broker.metrics import Metrics
from fanout.broker.offers import Offer
from fanout.broker.problems import MEDIA_TYPE, Problem
from fanout.broker.schema import Entry, Lease
from fanout.broker.service import Broker
from fanout.errors import FleetError, UsageError
from fanout.version import __version__

BEATS = 4  # heartbeats that fit into the idle time
LISTED = 200  # leases of one answer
router = APIRouter(prefix="/v1")


class Wish(BaseModel):
    """A lease that is asked for."""

    model_config = ConfigDict(extra="forbid")

    offer: str | None = Field(None, max_length=63, description="one of GET /v1/offers; may be left out if there is one")
    machines: int | None = Field(None, ge=1, le=100_000, description="in all; by default what the roles come to")
    roles: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,99}$")], Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, max_length=100, description="how many machines each role has"
    )
    relays: int = Field(0, ge=0, le=10_000, description="further machines, only to relay")
    ttl: float | None = Field(None, gt=0, le=366 * quotas.DAY, description="seconds until it ends in any case")


class Machine(BaseModel):
    name: str
    address: str
    user: str | None = None
    port: int | None = None
    role: str | None = None
    relay: bool = False
    inside: str | None = Field(None, description="the address among the machines, where it is another one")
    host_keys: list[str] = []
    host_ca: str | None = Field(None, description="the public key that certifies its host key")
    python: str = "python3"
    jump: str | None = None


class LeaseState(BaseModel):
    id: str
    state: State
    offer: str
    machines: int
    ttl: float = Field(description="seconds, from its beginning")
    created_at: datetime
    expires_at: datetime
    idle_at: datetime = Field(description="when it ends unless a heartbeat comes")
    ended_at: datetime | None
    heartbeat: float = Field(description="seconds between heartbeats")
    progress: tuple[int, int] | None = Field(None, description="machines made, of how many, while it is making")
    cause: Cause | None = Field(None, description="why it ends")
    reason: str | None = None


class LeaseWithMachines(LeaseState):
    hosts: list[Machine] | None = Field(None, description="once it is ready")
    login_key: str | None = Field(None, description="a private key that opens these machines, and nothing else")


class OfferState(BaseModel):
    name: str
    types: tuple[str, ...]
    regions: tuple[str, ...]
    price: float | None = Field(description="US dollars an hour, for each machine")


class TenantState(BaseModel):
    """Quotas, and what counts against them now."""

    name: str
    machines: int
    machines_held: int
    ttl: float
    types: list[str]
    regions: list[str]
    cost_per_day: float | None
    cost_of_last_day: float = Field(description="with what open leases may still cost")


class AuditEntry(BaseModel):
    id: int
    at: datetime
    action: str
    actor: str
    lease: str | None
    address: str | None
    detail: dict[str, Any]


@dataclass(frozen=True)
class Caller:
    broker: Broker
    tenant_id: int
    name: str
    address: str


def _caller(request: Request) -> Caller:
    broker: Broker = request.app.state.broker
    address = request.client.host if request.client else "unknown"
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    with broker.store.begin() as session:
        tenant = tenants.of_token(session, token.strip()) if kind.lower() == "bearer" else None
    broker.rates.take(f"tenant:{tenant.id}" if tenant else address)
    if tenant is None:
        raise Problem(
            HTTPStatus.UNAUTHORIZED, "unauthorized", "the token is missing, unknown or disabled",
            "ask the broker's operator for one (`fanout broker tenant add`)", {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip
    return Caller(broker, tenant.id, tenant.name, address)


Who = Annotated[Caller, Depends(_caller)]


@router.post("/leases", status_code=202)
def ask(
    who: Who, wish: Wish, response: Response,
    idempotency_key: Annotated[str, Header(min_length=8, max_length=200, pattern=r"^[\x21-\x7e]+$")],
) -> LeaseState:  # fmt: skip
    """Lease machines.  The same key again gives the same lease, whatever became of it."""
    broker = who.broker
    offer = _offer(broker, wish.offer)
    asked = leases.Asked(offer.name, wish.machines, wish.roles, wish.relays, wish.ttl)
    now = broker.clock()
    try:
        with broker.store.begin() as session:
            lease, new = leases.ask(
                session, who.tenant_id, idempotency_key, asked, offer, now, broker.idle, who.address
            )
    except UsageError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", f"{error}", "correct the request") from None
    except Problem as problem:
        if quota := problem.body.get("quota"):
            broker.metrics.refused.labels(quota).inc()
            with broker.store.begin() as session:
                audit.write(session, now, "lease.refused", actor=f"tenant:{who.name}", tenant=who.name,
                            address=who.address, quota=quota, why=problem.body["detail"])  # fmt: skip
        raise
    if new:
        broker.metrics.granted.labels(lease.offer).inc()
        broker.make(lease.id)
    response.status_code = HTTPStatus.ACCEPTED if lease.state == State.MAKING else HTTPStatus.OK
    response.headers["Location"] = f"/v1/leases/{lease.id}"
    return LeaseState(**_state(broker, lease))


@router.get("/leases")
def listed(who: Who) -> list[LeaseState]:
    """Your leases, the newest first; ended ones too."""
    with who.broker.store.begin() as session:
        found = leases.mine(session, who.tenant_id, LISTED)
    return [LeaseState(**_state(who.broker, lease)) for lease in found]


@router.get("/leases/{lease_id}")
def shown(who: Who, lease_id: str) -> LeaseWithMachines:
    """One of your leases; with its machines, and the key to them, while it is ready."""
    with who.broker.store.begin() as session:
        lease = leases.of(session, who.tenant_id, lease_id)
    there = lease.state == State.READY
    return LeaseWithMachines(
        **_state(who.broker, lease),
        hosts=[Machine(**host) for host in lease.hosts or ()] if there else None,
        login_key=lease.login_key if there else None,
    )


@router.post("/leases/{lease_id}/heartbeat")
def beat(who: Who, lease_id: str) -> LeaseState:
    """You are still there: the idle time begins anew.  The lease's end stays where it is."""
    broker = who.broker
    with broker.store.begin() as session:
        lease = leases.beat(session, who.tenant_id, lease_id, broker.clock(), broker.idle)
    return LeaseState(**_state(broker, lease))


@router.delete("/leases/{lease_id}", status_code=202)
def end(who: Who, lease_id: str, response: Response) -> LeaseState:
    """End a lease.  202 while its machines are being removed, 200 when they are gone."""
    broker = who.broker
    with broker.store.begin() as session:
        lease = leases.of(session, who.tenant_id, lease_id, change=True)
        leases.end(session, lease.id, Cause.RELEASED, broker.clock(), actor=f"tenant:{who.name}", address=who.address)
    broker.nudge()
    response.status_code = HTTPStatus.OK if lease.state == State.ENDED else HTTPStatus.ACCEPTED
    return LeaseState(**_state(broker, lease))


@router.get("/offers")
def offers(who: Who) -> list[OfferState]:
    """What can be leased here."""
    found = sorted(who.broker.offers.values(), key=lambda offer: offer.name)
    return [OfferState(name=each.name, types=each.types, regions=each.regions, price=each.price) for each in found]


@router.get("/tenant")
def tenant(who: Who) -> TenantState:
    """Who you are, and what you may have."""
    now = who.broker.clock()
    with who.broker.store.begin() as session:
        quota = tenants.quota(tenants.named(session, who.name))
        held = leases.held(session, who.tenant_id, now)
    return TenantState(
        name=who.name, machines=quota.machines, machines_held=sum(each.machines for each in held if each.there),
        ttl=quota.ttl, types=list(quota.types), regions=list(quota.regions), cost_per_day=quota.cost_per_day,
        cost_of_last_day=round(quotas.cost(held, now - quotas.DAY), 6),
    )  # fmt: skip


@router.get("/audit")
def log(
    who: Who, lease: Annotated[str | None, Query(max_length=63)] = None, after: Annotated[int, Query(ge=0)] = 0,
) -> list[AuditEntry]:  # fmt: skip
    """What was done with your leases, the oldest first; `after` is the id of the last entry you have."""
    with who.broker.store.begin() as session:
        entries = audit.read(session, tenant=who.name, lease=lease, after=after)
    return [_entry(entry) for entry in entries]


def create_app(broker: Broker) -> ASGIApp:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with broker.running():
            yield

    app = FastAPI(
        title="fanout broker", version=__version__, summary="Machines on lease", lifespan=lifespan,
        docs_url=None, redoc_url=None,  # they load scripts from elsewhere
    )  # fmt: skip
    app.state.broker = broker
    app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _other)
    app.add_exception_handler(FleetError, _unavailable)
    app.add_exception_handler(Exception, _failed)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        """Alive, and the store answers."""
        with broker.store.begin() as session:
            session.execute(text("select 1"))
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(broker.metrics.text(broker.store), media_type="text/plain; version=0.0.4")

    return Bounded(_Counted(app, broker.metrics))


class _Counted:
    """ASGI: counts answers, and keeps them out of caches."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "")
                self._metrics.requests.labels(scope["method"] if route else "", route, message["status"]).inc()
                message["headers"] = [*message.get("headers", ()), (b"cache-control", b"no-store")]
            await send(message)

        await self._app(scope, receive, counted)


def _offer(broker: Broker, name: str | None) -> Offer:
    if name is None and len(broker.offers) == 1:
        return next(iter(broker.offers.values()))
    found = broker.offers.get(name or "")
    if found is None:
        detail = f"there is no offer {name!r}" if name else "there are several offers"
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "no-such-offer", detail, f"name one of: {', '.join(sorted(broker.offers))}"
        )
    return found


def _state(broker: Broker, lease: Lease) -> dict[str, Any]:
    return {
        "id": lease.id,
        "state": lease.state,
        "offer": lease.offer,
        "machines": lease.machines,
        "ttl": lease.ttl,
        "created_at": _time(lease.created_at),
        "expires_at": _time(lease.expires_at),
        "idle_at": _time(lease.idle_at),
        "ended_at": None if lease.ended_at is None else _time(lease.ended_at),
        "heartbeat": broker.idle / BEATS,
        "progress": broker.provisioner.progress(lease.id) if lease.state == State.MAKING else None,
        "cause": lease.cause,
        "reason": lease.reason,
    }


def _entry(entry: Entry) -> AuditEntry:
    # The whole of a fleet's error is for the operator.
    detail = {key: value for key, value in entry.detail.items() if key != "error"}
    return AuditEntry(
        id=entry.id, at=_time(entry.at), action=entry.action, actor=entry.actor, lease=entry.lease,
        address=entry.address, detail=detail,
    )  # fmt: skip


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return JSONResponse(error.body, error.status, error.headers, MEDIA_TYPE)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
    remedy = "GET /openapi.json says what a request looks like"
    return _problem(request, Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", wrong, remedy))


def _other(request: Request, error: Exception) -> JSONResponse:
    """No such path, no such method."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "-")
    remedy = "GET /openapi.json lists what there is"
    return _problem(request, Problem(status, code, f"{error.detail}".lower(), remedy, error.headers))


def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """The store does not answer; whose it is, and where, is for the log."""
    problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, "store", "the broker's store does not answer", "ask again later")
    return _problem(request, problem)


def _failed(request: Request, error: Exception) -> JSONResponse:
    remedy = "the broker's operator finds it in its log"
    return _problem(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the broker failed", remedy))
