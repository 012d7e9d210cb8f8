"""The fleet `aws`: machines of EC2 that live for one run.

What always holds: nothing is made before the credentials, the machines wanted and their price are found good; what
is made carries the run's tags from its first moment; `release` ends all of it and sees by the API that it is gone,
however far `provision` came.  What a killed root cannot end ends by itself (`userdata.sh`), or by `fanout reap`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fanout.durations import show
from fanout.errors import FleetError
from fanout.fleets import roles
from fanout.fleets.aws import credentials, image, instances, network, prices, reap, tags
from fanout.fleets.aws.api import SETTLE, Api
from fanout.fleets.aws.boot import Boot
from fanout.fleets.aws.instances import Instance
from fanout.fleets.aws.launch import Launcher, batches, placed
from fanout.fleets.aws.spec import Spec, parse
from fanout.fleets.aws.userdata import Prepared
from fanout.fleets.base import Arrivals, Fleet, Host, Progress, Request, Say, Terms
from fanout.fleets.keyfolder import KeyFolder, sweep
from fanout.fleets.openssh import keypair

DEFAULT_MACHINES = 5
KEYS = "fanout-aws-"
"""What the names of folders with a run's keys begin with, below $TMPDIR."""
LAST_CALL = 45.0  # s for a launch that is under way to be answered


@dataclass(frozen=True)
class _Offer:
    """What a run will make, found good and possible before anything is made."""

    owner: str
    subnets: Sequence[network.Subnet]
    source: str
    """The network that the root logs in from."""
    image: image.Image
    prices: dict[str, float]
    """Type -> what an hour of it is expected to cost."""
    cost: str
    """What it comes to, in words."""


class AwsFleet(Fleet):
    name: ClassVar[str] = "aws"
    release_timeout = LAST_CALL + SETTLE + reap.ENDING + reap.GROUP + 30.0

    def __init__(self, text: str = "") -> None:
        self.spec: Spec = parse(text)
        self._keys: KeyFolder | None = None
        self._api: Api | None = None
        self._run = ""
        self._launcher: Launcher | None = None
        self._launching: asyncio.Future[None] | None = None
        self._boot: Boot | None = None
        self._made = False
        """Something may be there that has to go."""
        self._expires = 0.0
        self._prices: dict[str, float] = {}
        self._releasing: asyncio.Task[None] | None = None

    @property
    def relay_key(self) -> str | None:
        return (self._keys.path / "login").read_text() if self._keys is not None else None

    # Up.

    async def preview(self, request: Request) -> str | None:
        offer = await self._offer(Api(self.spec.region, self.spec.profile), request)
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
        offer = await self._offer(api, request)
        self.say(offer.cost)
        self._prices = offer.prices
        self._keys = KeyFolder(KEYS)
        for name in "login", "ca":
            await asyncio.to_thread(keypair, self._keys.path / name)
        expires = self._expires = time.time() + self._ttl(request)
        marked = tags.tags(request.run, offer.owner, expires, self.spec.tags)
        self._made = True
        self.record({"region": api.region, "profile": self.spec.profile, "expires": tags.iso(expires)})
        group = await network.make_group(
            api, request.run, offer.subnets[0].vpc, offer.source, tags.specification(["security-group"], marked)
        )
        common = self._parameters(offer.image, marked)
        common["NetworkInterfaces"][0]["Groups"] = [group]
        common["UserData"] = self._user_data(self._keys.path, expires)
        launcher = self._launcher = Launcher(api, request.run, offer.subnets, common, self.say)
        boot = self._boot = Boot(self.spec, api, request.run, launcher, machines, self.say, progress)
        # A task of its own: what a call launches is to be known, also when nobody wants it any more.
        self._launching = asyncio.ensure_future(self._launch(machines))
        try:
            living = await boot.living(self._launching, request.heads)
            self.booting = boot.booting if request.heads is not None else frozenset()
        finally:
            if not self.booting:
                await boot.stop()
        return [self._host(*each) for each in living]

    async def arrivals(self) -> AsyncIterator[Arrivals]:
        assert self._boot is not None and self._launching is not None
        async for news in self._boot.arrivals(self._launching):
            yield news
        await self._boot.stop()

    def _ttl(self, request: Request) -> float:
        return min(self.spec.ttl, request.ttl or self.spec.ttl)

    async def _offer(self, api: Api, request: Request) -> _Offer:
        spec = self.spec
        owner = await credentials.identity(api)
        found, subnets = await asyncio.gather(
            image.find(api, spec.image, spec.all_types), network.subnets(api, spec.subnets)
        )
        public = spec.address == "public"
        cost = prices.beside(spec.disk or found.size, public)
        hourly = await prices.hourly(api, spec.all_types, spec.prices, cost)
        text = self._affordable(request, hourly)
        if spec.spot and (expected := await self._spot(api, subnets, cost)):
            hourly |= expected
            text += f"; about {prices.money(self._cost(request, hourly))} at the spot prices of now"
        kind = spec.types[0]
        marked = tags.tags("dry-run", owner, time.time(), spec.tags)
        dry = placed(self._parameters(found, marked), kind, subnets[0], 1, "fanout-dry-run")
        await credentials.may_make(api, subnets[0].vpc, marked, dry)
        source = await network.root_address(spec.root_address, spec.checkip)
        return _Offer(owner, subnets, source, found, hourly, text)

    async def _spot(self, api: Api, subnets: Sequence[network.Subnet], more: float) -> dict[str, float]:
        """What spot machines cost now; nothing where that cannot be learned: the bound holds without it."""
        try:
            return await prices.spot(api, self.spec.all_types, {subnet.zone for subnet in subnets}, more)
        except FleetError as error:
            self.say(f"the spot prices of now are not known, those on demand are counted: {error}")
            return {}

    def _parts(self, request: Request, hourly: Mapping[str, float]) -> list[tuple[int, Sequence[str], float]]:
        """(machines, their types, price an hour of the dearest) of what will be made."""
        machines = _machines(request)
        relays = min(self.spec.relays, machines)
        parts = (machines - relays, self.spec.types), (relays, self.spec.relay_types)
        return [(count, kinds, max(hourly[kind] for kind in kinds)) for count, kinds in parts if count]

    def _cost(self, request: Request, hourly: Mapping[str, float]) -> float:
        return sum(count * price for count, _, price in self._parts(request, hourly)) * self._ttl(request) / 3600

    def _affordable(self, request: Request, hourly: Mapping[str, float]) -> str:
        """What it may come to; FleetError when that is more than max_cost."""
        spec, cost = self.spec, self._cost(request, hourly)
        parts = [f"{count} x {' or '.join(kinds)} x {prices.money(price)}/h"
                 for count, kinds, price in self._parts(request, hourly)]
        text = f"{' + '.join(parts)} for at most {show(self._ttl(request))} is at most {prices.money(cost)}"
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

    def _host(self, number: int, instance: Instance, relay: bool) -> Host:
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
            key=str(self._keys.path / "login"),
            host_ca=_public(self._keys.path / "ca"),
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
        await self._stop_watching()
        await self._forget_keys()
        return min(time.time() + self.spec.idle, self._expires)

    @classmethod
    async def reclaim(cls, run: str, made: Mapping[str, Any], say: Say) -> str:
        """Take back all that was made for the run; in words, what that was."""
        sweep(KEYS)
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

    async def _stop_watching(self) -> None:
        if self._boot is not None:
            await self._boot.stop()

    async def _end(self) -> None:
        await self._stop_watching()
        if self._made:
            await self._empty()
            self._made = False
        await self._forget_keys()

    async def _forget_keys(self) -> None:
        keys, self._keys = self._keys, None
        if keys is not None:
            keys.remove()

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
        about = "about " if self.spec.spot else ""
        self.say(f"launched {len(ended.every)}, terminated {gone}; it cost {about}{prices.money(cost)}")


def _machines(request: Request) -> int:
    return roles.total(request.machines, request.roles, DEFAULT_MACHINES) + request.relays


def _public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text().strip()
