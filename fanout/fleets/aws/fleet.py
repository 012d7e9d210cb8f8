"""The fleet `aws`: machines of EC2 that live for one run.

What always holds: nothing is made before the credentials, the machines wanted and their price are found good; what
is made carries the run's tags from its first moment; `release` ends all of it and sees by the API that it is gone,
however far `provision` came.  What a killed root cannot end ends by itself (`userdata.sh`), or by `fanout reap`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fanout.durations import show
from fanout.errors import FleetError
from fanout.fleets import roles
from fanout.fleets.aws import credentials, image, instances, network, prices, reap, tags
from fanout.fleets.aws.api import SETTLE, Api, passes
from fanout.fleets.aws.instances import Instance
from fanout.fleets.aws.launch import Launcher, batches, placed
from fanout.fleets.aws.ready import Readiness
from fanout.fleets.aws.spec import Spec, parse
from fanout.fleets.aws.userdata import Prepared, mark
from fanout.fleets.base import Fleet, Host, Progress, Request, Say, Terms
from fanout.fleets.openssh import keypair

DEFAULT_MACHINES = 5
STRAGGLING = 30.0  # s that the last machines get once there are enough for the quorum
POLL, POLL_MOST = 1.0, 5.0  # s between looks at the machines that boot
LAST_CALL = 45.0  # s for a launch that is under way to be answered
TOLD = 5  # reasons that an error lists


@dataclass(frozen=True)
class _Offer:
    """What a run will make, found good and possible before anything is made."""

    owner: str
    subnets: Sequence[network.Subnet]
    source: str
    """The network that the root logs in from."""
    image: image.Image
    prices: dict[str, float]
    cost: str
    """What it comes to, in words."""


class AwsFleet(Fleet):
    name: ClassVar[str] = "aws"
    release_timeout = LAST_CALL + SETTLE + reap.ENDING + reap.GROUP + 30.0

    def __init__(self, text: str = "") -> None:
        self.spec: Spec = parse(text)
        self._keys: Path | None = None
        self._api: Api | None = None
        self._run = ""
        self._launcher: Launcher | None = None
        self._launching: asyncio.Future[None] | None = None
        self._made = False
        """Something may be there that has to go."""
        self._expires = 0.0
        self._prices: dict[str, float] = {}
        self._releasing: asyncio.Task[None] | None = None

    @property
    def relay_key(self) -> str | None:
        return (self._keys / "login").read_text() if self._keys is not None else None

    # Up.

    async def preview(self, request: Request) -> str | None:
        offer = await self._offer(Api(self.spec.region, self.spec.profile), _machines(request))
        return f"{offer.cost}; the credentials, of {offer.owner}, have the rights"

    async def terms(self) -> Terms:
        spec, api = self.spec, Api(self.spec.region, self.spec.profile)
        found = await image.find(api, spec.image, spec.all_types)
        cost = prices.beside(spec.disk or found.size, spec.address == "public")
        hourly = await prices.hourly(api, spec.all_types, spec.prices, cost)
        return Terms(tuple(spec.all_types), (api.region,), max(hourly.values()))

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        machines = _machines(request)
        api = self._api = Api(self.spec.region, self.spec.profile)
        self._run = request.run
        offer = await self._offer(api, machines)
        self.say(offer.cost)
        self._prices = offer.prices
        self._keys = Path(tempfile.mkdtemp(prefix="fanout-aws-"))  # private
        for name in "login", "ca":
            await asyncio.to_thread(keypair, self._keys / name)
        expires = self._expires = time.time() + min(self.spec.ttl, request.ttl or self.spec.ttl)
        marked = tags.tags(request.run, offer.owner, expires, self.spec.tags)
        self._made = True
        self.record({"region": api.region, "profile": self.spec.profile, "expires": tags.iso(expires)})
        group = await network.make_group(
            api, request.run, offer.subnets[0].vpc, offer.source, tags.specification(["security-group"], marked)
        )
        common = self._parameters(offer.image, marked)
        common["NetworkInterfaces"][0]["Groups"] = [group]
        common["UserData"] = self._user_data(self._keys, expires)
        launcher = self._launcher = Launcher(api, request.run, offer.subnets, common, self.say)
        needed = math.ceil(self.spec.quorum * machines - 1e-9)
        boot = _Boot(self, api, launcher, machines, needed, progress)
        # A task of its own: what a call launches is to be known, also when nobody wants it any more.
        self._launching = asyncio.ensure_future(self._launch(machines))
        try:
            return await boot.hosts(self._launching)
        finally:
            await boot.stop()

    async def _offer(self, api: Api, machines: int) -> _Offer:
        spec = self.spec
        owner = await credentials.identity(api)
        found, subnets = await asyncio.gather(
            image.find(api, spec.image, spec.all_types), network.subnets(api, spec.subnets)
        )
        public = spec.address == "public"
        cost = prices.beside(spec.disk or found.size, public)
        hourly = await prices.hourly(api, spec.all_types, spec.prices, cost)
        text = self._affordable(machines, hourly)
        kind = spec.types[0]
        marked = tags.tags("dry-run", owner, time.time(), spec.tags)
        dry = placed(self._parameters(found, marked), kind, subnets[0], 1, "fanout-dry-run")
        await credentials.may_make(api, subnets[0].vpc, marked, dry)
        source = await network.root_address(spec.root_address, spec.checkip)
        return _Offer(owner, subnets, source, found, hourly, text)

    def _affordable(self, machines: int, hourly: dict[str, float]) -> str:
        """What it may come to; FleetError when that is more than max_cost."""
        spec = self.spec
        relays = min(spec.relays, machines)
        parts, cost = [], 0.0
        for count, kinds in ((machines - relays, spec.types), (relays, spec.relay_types)):
            if count:
                price = max(hourly[kind] for kind in kinds)  # whichever there is of
                parts.append(f"{count} x {' or '.join(kinds)} x {prices.money(price)}/h")
                cost += count * price
        cost *= spec.ttl / 3600
        text = f"{' + '.join(parts)} for at most {show(spec.ttl)} is at most {prices.money(cost)}"
        if cost > spec.max_cost and not self.unlimited:
            raise FleetError(
                f"{text}, more than max_cost, {prices.money(spec.max_cost)}: nothing was made\n"
                "raise max_cost, shorten the ttl, take fewer or smaller machines, or agree to any price by --yes"
            )
        return f"{text} (max_cost {'is lifted' if self.unlimited else prices.money(spec.max_cost)})"

    def _parameters(self, found: image.Image, marked: list[dict[str, str]]) -> dict[str, Any]:
        """Of every RunInstances, also of a dry one; `placed` adds type, subnet and number."""
        spec = self.spec
        disk = {"DeleteOnTermination": True, "VolumeSize": spec.disk or found.size}
        kinds = ["instance", "volume", "network-interface", *["spot-instances-request"] * spec.spot]
        given: dict[str, Any] = {
            "ImageId": found.id,
            "NetworkInterfaces": [{"DeviceIndex": 0, "AssociatePublicIpAddress": spec.address == "public"}],
            "BlockDeviceMappings": [{"DeviceName": found.disk, "Ebs": disk}],
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
            "TagSpecifications": tags.specification(kinds, marked),
        }
        if spec.spot:
            given["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
            }
        return given

    def _user_data(self, keys: Path, expires: float) -> str:
        """Made once: the authority's key is not kept for longer than that."""
        ca = (keys / "ca").read_text()
        (keys / "ca").unlink()
        return Prepared(
            run=self._run,
            user=self.spec.user,
            expires=expires,
            ttl=self.spec.ttl,
            idle=self.spec.idle,
            login=_public(keys / "login"),
            ca=ca,
            ca_public=_public(keys / "ca"),
        ).text()

    async def _launch(self, machines: int) -> None:
        assert self._launcher is not None
        relays = min(self.spec.relays, machines)
        for batch in batches(machines, relays, self.spec.types, self.spec.relay_types):
            await self._launcher.launch(batch)

    def host(self, number: int, instance: Instance, relay: bool) -> Host:
        """The machine as the run sees it."""
        assert self._keys is not None
        address = instance.public if self.spec.address == "public" else instance.private
        return Host(
            name=f"aws-{number}",
            address=address or instance.private or instance.id,
            inside=instance.private,
            relay=relay,
            user=self.spec.user,
            port=22,
            key=str(self._keys / "login"),
            host_ca=_public(self._keys / "ca"),
            python=self.spec.python,
        )

    # Down.

    async def release(self) -> None:
        """Shielded: whoever stops waiting does not stop it, and may wait for it again."""
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.ensure_future(self._end())
        else:
            self.say("machines are still being terminated: this takes a minute")
        await asyncio.shield(self._releasing)

    async def keep(self, seconds: float) -> float | None:
        """Instead of `release`: machines without an agent stay for `idle`, which no root can change any more.

        Until when, in seconds since the epoch; None when there are none.
        """
        if not self._made:
            return None
        if seconds > self.spec.idle:
            self.say(f"the machines stay for {show(self.spec.idle)}: a longer idle in the file makes it longer")
        self._made = False
        await self._forget_keys()
        return min(time.time() + self.spec.idle, self._expires)

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        """Take back all that was made for the run; in words, what that was."""
        counted: list[int] = []
        api = Api(made["region"], made["profile"])
        await reap.empty(api, run, on_ended=lambda ended: counted.append(len(ended.every)))
        return f"{counted[0]} machines in {api.region} terminated"

    @classmethod
    async def holds(cls, run: str, made: Mapping[str, Any], probe: bool) -> str:
        """What of it is still there, in a few words; without a probe, what may be."""
        if not probe:
            over = made["expires"] < tags.iso(time.time())
            return "" if over else f"machines in {made['region']} until {made['expires']}"
        found = [one for one in await reap.holdings(Api(made["region"], made["profile"])) if one.run == run]
        return ", ".join(f"{len(one.machines)} machines and {len(one.groups)} security groups" for one in found)

    async def _end(self) -> None:
        if self._made:
            await self._empty()
            self._made = False
        await self._forget_keys()

    async def _forget_keys(self) -> None:
        keys, self._keys = self._keys, None
        if keys is not None:
            await asyncio.to_thread(shutil.rmtree, keys, ignore_errors=True)

    async def _empty(self) -> None:
        api, launcher = self._api, self._launcher
        assert api is not None
        if self._launching is not None:
            assert launcher is not None
            launcher.closed = True
            await asyncio.wait({self._launching}, timeout=LAST_CALL)
            self._launching.cancel()
            await asyncio.wait({self._launching})
        await api.settle()
        known = list(launcher.machines) if launcher else []
        tokens = frozenset(launcher.unanswered) if launcher else frozenset()
        await reap.empty(api, self._run, known, tokens, self._bill)

    def _bill(self, ended: instances.Ended) -> None:
        """The closing line: what there was, what of it is gone, and what it cost by the second."""
        now, cost = time.time(), 0.0
        for instance in ended.every.values():
            if instance is not None:
                price = self._prices.get(instance.kind, 0.0)
                cost += prices.paid(now - instance.launched) * price / 3600
        gone = len(ended.every) - len(ended.left)
        self.say(f"launched {len(ended.every)}, terminated {gone}; it cost {prices.money(cost)}")


class _Boot:
    """From the launch until enough machines can be logged in to."""

    def __init__(
        self, fleet: AwsFleet, api: Api, launcher: Launcher, machines: int, needed: int, progress: Progress
    ) -> None:
        self._fleet = fleet
        self._api = api
        self._launcher = launcher
        self._machines = machines
        self._needed = needed
        self._progress = progress
        self._readiness = Readiness(mark(fleet._run), self._more)
        self._all = asyncio.Event()
        self._seen: dict[str, Instance] = {}

    async def hosts(self, launching: asyncio.Future[None]) -> list[Host]:
        """Those of the machines that live; FleetError when too few come up in time."""
        loop = asyncio.get_running_loop()
        deadline = math.inf
        wait = POLL
        enough: float | None = None
        while True:
            await self._look()
            launched = len(self._launcher.machines)
            ready = len(self._readiness.ready)
            if launching.done():
                launching.result()
                if deadline == math.inf:
                    deadline = loop.time() + self._fleet.spec.ready_timeout
                living = launched - sum(each.ending for each in self._shown())
                if living < self._needed:
                    raise self._too_few(f"{living} of {self._machines} machines were to be had")
                if ready >= living:
                    break
                if ready >= self._needed and enough is None:
                    enough = loop.time() + STRAGGLING
            now = loop.time()
            if now > min(deadline, enough or math.inf):
                if ready < self._needed:
                    spent = show(self._fleet.spec.ready_timeout)
                    raise self._too_few(f"{ready} of {self._machines} machines were ready within {spent}")
                self._fleet.say(f"going on with {ready} of {self._machines} machines ready{self._reasons()}")
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all.wait(), wait)
                self._all.clear()
            wait = min(POLL_MOST, wait * 1.2)
        hosts = [
            self._fleet.host(number, self._seen[id], batch.relay)
            for number, (id, batch) in enumerate(self._launcher.machines.items(), 1)
            if id in self._seen and not self._seen[id].ending
        ]
        self._progress(len(hosts), len(hosts))
        return hosts

    async def stop(self) -> None:
        await self._readiness.stop()

    def _shown(self) -> list[Instance]:
        """Those launched that EC2 has shown, as it last did."""
        return [self._seen[id] for id in self._launcher.machines if id in self._seen]

    async def _look(self) -> None:
        public = self._fleet.spec.address == "public"
        try:
            self._seen |= {each.id: each for each in await instances.of_run(self._api, self._fleet._run)}
        except FleetError as error:
            if not passes(error):
                raise
        for each in self._shown():
            address = each.public if public else each.private
            if each.ending:
                self._readiness.forget(each.id)
            elif each.state == "running" and address:
                self._readiness.watch(each.id, address)

    def _more(self) -> None:
        ready = len(self._readiness.ready)
        self._progress(ready, self._machines)
        if ready >= self._machines:
            self._all.set()

    def _too_few(self, text: str) -> FleetError:
        quorum = self._fleet.spec.quorum
        needed = f"; {self._needed} are needed (quorum {quorum:g})" if quorum < 1 else ""
        return FleetError(f"{text}{needed}{self._reasons()}")

    def _reasons(self) -> str:
        reasons = list(self._launcher.lacking)
        for id in self._launcher.machines:
            seen = self._seen.get(id)
            if seen is not None and seen.ending:
                reasons.append(f"{id} has ended: {seen.why or seen.state}")
            elif id in self._readiness.said:
                reasons.append(f"{id}: {self._readiness.said[id]}")
            elif id not in self._readiness.ready:
                reasons.append(f"{id}: {'no address yet' if seen is not None else 'EC2 does not show it yet'}")
        more = f"\n  and {len(reasons) - TOLD} more" if len(reasons) > TOLD else ""
        return "".join(f"\n  {reason}" for reason in reasons[:TOLD]) + more


def _machines(request: Request) -> int:
    return roles.total(request.machines, request.roles, DEFAULT_MACHINES) + request.relays


def _public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text().strip()
