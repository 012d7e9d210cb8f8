"""Instances as EC2 describes them, and the end of them, seen to by asking until they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.errors import FleetError
from fanout.fleets.aws import tags
from fanout.fleets.aws.api import Api, Refused, passes

GONE = ("terminated",)
ENDING = ("shutting-down", "terminated")
MOST = 500  # ids in a call
POLL = 2.0  # s; a machine takes half a minute to end
SHOWN = 15.0  # s in which EC2 shows what it has launched: its answers are eventually consistent


@dataclass(frozen=True)
class Instance:
    id: str
    kind: str
    state: str
    why: str
    """Why it is in this state; may be empty."""
    private: str | None
    public: str | None
    launched: float
    """Seconds since the epoch."""
    tags: dict[str, str]

    @property
    def ending(self) -> bool:
        return self.state in ENDING


@dataclass
class Ended:
    every: dict[str, Instance | None]
    """All that there ever were of the run, as last seen."""
    left: set[str]
    """The ids of those that are not known to be gone."""


def _instance(told: dict[str, Any]) -> Instance:
    return Instance(
        id=told["InstanceId"],
        kind=told["InstanceType"],
        state=told["State"]["Name"],
        why=told.get("StateReason", {}).get("Message", ""),
        private=told.get("PrivateIpAddress"),
        public=told.get("PublicIpAddress") or None,
        launched=told["LaunchTime"].timestamp(),
        tags=tags.of(told),
    )


async def find(api: Api, filters: Mapping[str, Iterable[str]]) -> list[Instance]:
    """Those that fit every filter of EC2, for an hour after their end too."""
    wanted = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    found = api.each("ec2", "describe_instances", "Reservations", Filters=wanted)
    return [_instance(told) async for reservation in found for told in reservation["Instances"]]


async def of_run(api: Api, run: str) -> list[Instance]:
    return await find(api, {f"tag:{tags.RUN}": [run]})


async def terminate(api: Api, ids: Sequence[str]) -> set[str]:
    """Order it; those that EC2 does not know, any more or yet."""
    unknown: set[str] = set()
    todo = [list(ids[begin : begin + MOST]) for begin in range(0, len(ids), MOST)]
    while todo:
        some = todo.pop()
        try:
            await api.call("ec2", "terminate_instances", InstanceIds=some)
        except Refused as refused:
            if refused.code != "InvalidInstanceID.NotFound":
                raise
            if len(some) == 1:
                unknown.update(some)
            else:  # the call is all or nothing
                todo += [some[: len(some) // 2], some[len(some) // 2 :]]
    return unknown


async def end(api: Api, run: str, known: Iterable[str], tokens: Collection[str], timeout: float) -> Ended:
    """Terminate all of a run, and see that it is so.

    `known`: launched for certain.  `tokens`: of calls of which nobody knows what came of them.  What these may have
    launched is looked for, and what EC2 does not know is believed to be gone, only after SHOWN seconds.
    """
    loop = asyncio.get_running_loop()
    deadline, shown = loop.time() + timeout, loop.time() + SHOWN
    every = dict.fromkeys(known, None)
    ended = Ended(every, set(every))
    while True:
        try:
            seen = {each.id: each for each in await of_run(api, run)}
            if tokens:
                seen |= {each.id: each for each in await find(api, {"client-token": tokens})}
            every |= seen
            unknown = await terminate(api, [id for id in every if id not in seen or not seen[id].ending])
            late = loop.time() >= shown
            ended.left = {
                id for id in every if (seen[id].state not in GONE if id in seen else not (late and id in unknown))
            }
            if not ended.left and (late or not tokens):
                return ended
        except FleetError as error:
            if not passes(error):
                raise
        if loop.time() + POLL > deadline:
            return ended
        await asyncio.sleep(POLL)
