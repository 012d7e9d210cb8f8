"""Instances, launched in batches: no call is made twice, and what one place lacks the next one may have.

A place is a type in a subnet.  Each call has a ClientToken made from what it asks for, so that however often it is
repeated, EC2 launches once: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.errors import FleetError
from fanout.fleets.aws.api import VCPUS, Api, Refused, passes
from fanout.fleets.aws.network import NOT_FOUND, Subnet

BATCH = 100
"""Instances in a call: EC2 throttles calls and launched instances alike, and a large call fails as a whole."""
BURSTABLE = ("t2", "t3", "t3a", "t4g")
"""Families that save up idle time, and may be set to compute beyond it at a price that nobody has agreed to."""
PATIENCE = 180.0  # s that a call is repeated while EC2 is busy or does not answer
WAIT, WAIT_MOST = 2.0, 20.0  # s between repetitions, doubled each time and stretched by a random half
ELSEWHERE = {
    "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity", "Unsupported",
    "InsufficientFreeAddressesInSubnet", "SpotMaxPriceTooLow", "InsufficientReservedInstanceCapacity",
}  # fmt: skip
"""What the next place may not say."""


@dataclass(frozen=True)
class Batch:
    """Machines that are launched together."""

    number: int
    machines: int
    types: tuple[str, ...]
    relay: bool


def batches(machines: int, relays: int, types: tuple[str, ...], relay_types: tuple[str, ...]) -> list[Batch]:
    """`relays` of the machines are of other types, and come first."""
    found: list[Batch] = []
    for count, kinds, relay in ((relays, relay_types, True), (machines - relays, types, False)):
        for begin in range(0, count, BATCH):
            found.append(Batch(len(found), min(BATCH, count - begin), kinds, relay))
    return found


class Launcher:
    """Launches for one run; whatever happens, `machines` are those that EC2 has told us of."""

    def __init__(
        self, api: Api, run: str, subnets: Sequence[Subnet], common: dict[str, Any], say: Callable[[str], None]
    ) -> None:
        """`common`: the parameters of all calls; an interface's `SubnetId` is filled in."""
        self.machines: dict[str, Batch] = {}
        """Instance id -> the batch that it is of, in the order of their launch."""
        self.unanswered: set[str] = set()
        """Tokens of calls of which nobody knows what came of them."""
        self.lacking: list[str] = []
        """Why there are fewer than were asked for."""
        self.closed = False
        """Nothing more is to be launched."""
        self._api = api
        self._run = run
        self._subnets = subnets
        self._common = common
        self._say = say

    async def launch(self, batch: Batch) -> None:
        """As many of the batch as there are to be had.  FleetError when something else than capacity is wrong."""
        left = batch.machines
        for kind in batch.types:
            for subnet in self._subnets:
                attempt = 0
                while left and not self.closed:
                    try:
                        got = await self._once(batch, kind, subnet, left, attempt)
                    except Refused as refused:
                        if refused.code in VCPUS:
                            self._lacks(f"{left} of {kind}: {refused}")
                            return
                        if refused.code not in ELSEWHERE:
                            raise
                        self._lacks(f"{left} of {kind} in {subnet.zone}: {refused.code}: {refused.message}")
                        break
                    left -= got
                    attempt += 1
                if not left or self.closed:
                    return

    def _lacks(self, why: str) -> None:
        self.lacking.append(why)
        self._say(f"not to be had: {why}")

    async def _once(self, batch: Batch, kind: str, subnet: Subnet, most: int, attempt: int) -> int:
        """One call, repeated with its token while there is no answer; how many it launched."""
        what = f"{self._run}/{batch.number}/{kind}/{subnet.id}/{attempt}/{most}"
        token = hashlib.blake2b(what.encode(), digest_size=16).hexdigest()
        parameters = placed(self._common, kind, subnet, most, token)
        loop = asyncio.get_running_loop()
        deadline, wait = loop.time() + PATIENCE, WAIT
        self.unanswered.add(token)
        while True:
            try:
                answer = await self._api.call("ec2", "run_instances", **parameters)
                break
            except FleetError as error:
                # A group that was made a moment ago may not be known everywhere.
                again = passes(error) or (isinstance(error, Refused) and error.code == NOT_FOUND)
                if not again:
                    self.unanswered.discard(token)
                if not again or self.closed or loop.time() + wait > deadline:
                    raise
            await asyncio.sleep(wait * (1 + random.random() / 2))  # noqa: S311  jitter
            wait = min(WAIT_MOST, wait * 2)
        self.unanswered.discard(token)
        launched = [instance["InstanceId"] for instance in answer["Instances"]]
        if not launched:
            raise FleetError(f"AWS has launched nothing of {kind} in {subnet.zone}, and does not say why")
        self.machines.update(dict.fromkeys(launched, batch))
        return len(launched)


def placed(common: dict[str, Any], kind: str, subnet: Subnet, most: int, token: str) -> dict[str, Any]:
    """The parameters of one RunInstances."""
    interface = {**common["NetworkInterfaces"][0], "SubnetId": subnet.id}
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances-how-to.html
    standard = {"CreditSpecification": {"CpuCredits": "standard"}} if kind.partition(".")[0] in BURSTABLE else {}
    return {
        **common,
        **standard,
        "NetworkInterfaces": [interface],
        "InstanceType": kind,
        "MinCount": 1,
        "MaxCount": most,
        "ClientToken": token,
    }
