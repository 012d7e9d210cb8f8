"""The broker fleet: machines on lease from a service that alone has the rights to make them (`fanout broker serve`).

`--fleet broker:https://HOST[:PORT]`, and after it, each after a comma:

- `offer=NAME`: which of the broker's offers; needed if it has several;
- `ttl=2h`: when the lease ends in any case; by default what the broker gives;
- `ca=FILE`: certificates to trust instead of the system's;
- `token=FILE`: the file with the token, readable by its owner alone.  Without it FANOUT_BROKER_TOKEN has the token,
  or the file ~/.config/fanout/broker-token.

What always holds: while the run goes on, the broker hears of it, and else ends the lease by itself; nothing here can
make a lease live longer than its ttl.  The machines' key is in a private file until `release`.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from fanout.durations import parse_duration, show
from fanout.errors import FanoutError, FleetError, UsageError
from fanout.fleets import roles
from fanout.fleets.base import Fleet, Host, Progress, Request, Say
from fanout.fleets.hosts import parse
from fanout.fleets.jsonhttp import Answer, JsonHttp, Unanswered, checked_url
from fanout.fleets.keyfolder import KeyFolder, sweep
from fanout.fleets.options import parse as parse_options

OPTIONS = ("offer", "ttl", "ca", "token")
KEYS = "fanout-lease-"
"""What the names of folders with a lease's key begin with, below $TMPDIR."""
TOKEN = "FANOUT_BROKER_TOKEN"  # noqa: S105  the variable's name
MAX_TOKEN = 4096  # bytes
FIRST = 5.0  # s that a broker may be silent when it is asked for a lease: it may just be starting
PATIENCE = 60.0  # s that it may be silent later: it may be restarted
GONE = 60.0  # s that `release` waits for the machines to be gone
POLL = (0.1, 2.0)  # s between looks: the first, growing by half to the last
ENDED = ("ending", "ended")

Lease = dict[str, Any]


class BrokerFleet(Fleet):
    name: ClassVar[str] = "broker"
    release_timeout = 2 * PATIENCE + GONE

    def __init__(self, spec: str) -> None:
        self._spec = spec
        url, *words = spec.split(",")
        options = parse_options(words, OPTIONS, f"broker:{spec}")
        try:
            self._url = checked_url(url)
        except UsageError as error:
            raise UsageError(f"--fleet broker:{spec}: {error}") from None
        self._offer = options.get("offer")
        self._ttl = parse_duration(options["ttl"]) if "ttl" in options else None
        self._ca = Path(options["ca"]).expanduser() if "ca" in options else None
        self._token_file = Path(options["token"]).expanduser() if "token" in options else None
        self._server: JsonHttp | None = None
        self._asking: asyncio.Future[Lease] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._lease_id = ""
        self._key: str | None = None
        self._keys: KeyFolder | None = None

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        roles.total(request.machines, request.roles, default=1)  # a contradiction is told before anything is asked
        # Shielded: a request under way cannot be cancelled, so `release` waits for its answer and ends the lease.
        self._asking = asyncio.ensure_future(self._ask(request))
        lease = await asyncio.shield(self._asking)
        self.say(f"{lease['id']}: {lease['machines']} machines of {lease['offer']}, for {show(lease['ttl'])} at most")
        lease = await self._made(lease, progress)
        hosts = self._hosts(lease)
        progress(len(hosts), len(hosts))
        return hosts

    async def release(self) -> None:
        """Shielded: whoever stops waiting does not keep the lease from being ended, and may wait for it again."""
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._releasing)

    async def keep(self, seconds: float) -> float | None:
        """Without heartbeats the broker ends the lease; until then the machines are there."""
        if not self._lease_id:
            return None
        lease = await self._call("POST", f"/v1/leases/{self._lease_id}/heartbeat")
        self._lease_id = ""
        return datetime.fromisoformat(lease["idle_at"]).timestamp()

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        if not made["lease"]:
            return "nothing was leased, or the broker ends it without heartbeats"
        sweep(KEYS)
        fleet = cls(made["spec"])
        fleet.say = say
        fleet._lease_id = made["lease"]
        await fleet.release()
        return f"{made['lease']} ended"

    @classmethod
    async def holds(cls, run: str, made: Mapping[str, Any], probe: bool) -> str:
        if not made["lease"]:
            return ""
        if probe:
            lease = await cls(made["spec"])._call("GET", f"/v1/leases/{made['lease']}")
            return f"{lease['machines']} machines on lease" if lease["state"] != "ended" else ""
        until = datetime.fromtimestamp(made["expires"], UTC)
        return "" if made["expires"] < time.time() else f"machines on lease until {until:%Y-%m-%d %H:%M} UTC"

    def _note(self, expires: float) -> None:
        self.record({"spec": self._spec, "lease": self._lease_id, "expires": expires})

    @property
    def relay_key(self) -> str | None:
        return self._key

    async def _ask(self, request: Request) -> Lease:
        wish = {
            "offer": self._offer,
            "machines": request.machines,
            "roles": dict(request.roles),
            "relays": request.relays,
            "ttl": self._ttl,
        }
        key = {"Idempotency-Key": secrets.token_urlsafe(24)}
        self._note(time.time() + PATIENCE)
        lease = await self._call("POST", "/v1/leases", wish, key, patience=FIRST)
        self._lease_id = lease["id"]
        self._note(datetime.fromisoformat(lease["expires_at"]).timestamp())
        self._beating = asyncio.create_task(self._beat(lease["heartbeat"]))
        return lease

    async def _made(self, lease: Lease, progress: Progress) -> Lease:
        """The lease once it is ready.  The broker bounds this by the lease's end."""
        wait, most = POLL
        while lease["state"] != "ready" or "hosts" not in lease:
            if lease["state"] in ENDED:
                raise FleetError(f"{self._where}: {lease['reason']}")
            if lease["progress"]:
                progress(*lease["progress"])
            await asyncio.sleep(wait)
            wait = min(most, wait * 1.5)
            lease = await self._call("GET", f"/v1/leases/{self._lease_id}")
        return lease

    def _hosts(self, lease: Lease) -> list[Host]:
        """The lease's machines, by the rules of a hosts file: a broker that is not itself steers nobody to a shell."""
        extra = [{name: host.pop(name, None) for name in ("inside", "host_ca")} for host in lease["hosts"]]
        text = "\n".join(json.dumps({**host, "key": None}) for host in lease["hosts"])
        try:
            hosts = parse(text, f"what {self._url} gave", Path())
            hosts = [replace(host, **more) for host, more in zip(hosts, extra, strict=True)]
        except UsageError as error:
            raise FleetError(str(error)) from None
        self._key = lease["login_key"]
        if self._key is None:
            return hosts
        self._keys = KeyFolder(KEYS)
        path = self._keys.path / "id"
        path.touch(0o600)
        path.write_text(self._key)
        return [replace(host, key=str(path)) for host in hosts]

    async def _beat(self, period: float) -> None:
        """Says that the run goes on, until the lease has ended or `release` ends this."""
        silent = False
        while True:
            await asyncio.sleep(period)
            try:
                lease = await self._call("POST", f"/v1/leases/{self._lease_id}/heartbeat", patience=0.0)
            except Unanswered as error:
                if not silent:
                    self.say(f"{error}; the lease ends if that goes on")
                silent = True
                continue
            except FanoutError as error:
                self.say(f"{error}; the lease ends without heartbeats")
                return
            silent = False
            if lease["state"] in ENDED:
                self.say(f"{self._where} takes the machines back: {lease['reason']}")
                return

    async def _end(self) -> None:
        try:
            if self._asking is not None:
                await asyncio.wait({self._asking})
            if self._lease_id:
                await self._give_back()
        finally:
            if self._beating is not None:
                self._beating.cancel()
            if self._keys is not None:
                self._keys.remove()
            self._key = self._keys = None
        self._lease_id = ""

    async def _give_back(self) -> None:
        path = f"/v1/leases/{self._lease_id}"
        deadline = time.monotonic() + GONE
        wait, most = POLL
        try:
            lease = await self._call("DELETE", path)
            while lease["state"] != "ended" and time.monotonic() < deadline:
                await asyncio.sleep(wait)
                wait = min(most, wait * 1.5)
                lease = await self._call("GET", path)
        except FleetError as error:
            raise FleetError(f"{error}\n{self._lease_id} ends without heartbeats, and at the end of its ttl") from None
        if lease["state"] != "ended":
            self.say(f"{self._where} is still removing the machines, and goes on with it")

    @property
    def _where(self) -> str:
        return f"the broker at {self._url}"

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Lease:  # fmt: skip
        """The lease that it answers with; FleetError with the broker's own words for what it refuses.

        A broker that does not answer is asked again for so many seconds: every request may be repeated.
        """
        if self._server is None:
            self._server = JsonHttp(self._url, _token(self._token_file), self._ca)
        deadline = time.monotonic() + patience
        wait, most = POLL
        while True:
            try:
                answer = await self._server.call(method, path, body, headers)
                break
            except Unanswered:
                if time.monotonic() + wait > deadline:
                    raise
            await asyncio.sleep(wait)
            wait = min(most, wait * 1.5)
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES or "state" not in answer.body:
            raise FleetError(f"{self._where} {_refusal(answer)}")
        return answer.body


def _refusal(answer: Answer) -> str:
    if "code" not in answer.body:
        return f"answers {answer.status} as no broker does: is it the right URL?"
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return f"refuses the token: {answer.body.get('detail')}; {answer.body.get('remedy')}"
    quota = f"quota {answer.body['quota']}: " if "quota" in answer.body else ""
    return f"refuses: {quota}{answer.body.get('detail')}; {answer.body.get('remedy')}"


def _token(given: Path | None) -> str:
    """FleetError without one, as without any other credentials."""
    if given is None and (token := os.environ.get(TOKEN, "").strip()):
        return _checked(token, TOKEN)
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    path = given or Path(config, "fanout/broker-token").expanduser()
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_TOKEN)
    except FileNotFoundError:
        raise FleetError(
            f"no token for the broker: set {TOKEN}, or write it into {path} (mode 600);"
            " the broker's operator gives you one"
        ) from None
    except OSError as error:
        raise FleetError(f"the token in {path} cannot be read: {error.strerror}") from None
    if status.st_mode & 0o077:
        raise FleetError(f"the token in {path} can be read by others: chmod 600 {path}")
    return _checked(data.decode("utf-8", "replace").strip(), str(path))


def _checked(token: str, source: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise FleetError(f"{source} has no token: it is one line, as `fanout broker tenant add` printed it")
    return token
