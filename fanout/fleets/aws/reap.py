"""What runs hold in an account, and the end of it: for a run by its fleet, for all that have expired by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fanout.errors import FanoutError, FleetError
from fanout.fleets.aws import instances, network, tags
from fanout.fleets.aws.api import Api

ENDING = 240.0  # s for machines to end
GROUP = 60.0  # s for the security group to go after them
TOLD = 5  # ids that an error lists


@dataclass
class Holding:
    """What one run has."""

    run: str
    owner: str
    expires: float | None
    """Seconds since the epoch; None where the tag is lacking or no time."""
    machines: list[str] = field(default_factory=list)
    """The ids of those that have not begun to end."""
    groups: list[str] = field(default_factory=list)

    def expired(self, now: float) -> bool:
        return self.expires is not None and self.expires < now

    def as_json(self) -> dict[str, Any]:
        expires = tags.iso(self.expires) if self.expires is not None else None
        return {"run": self.run, "owner": self.owner, "expires": expires, "machines": self.machines,
                "groups": self.groups}  # fmt: skip


async def holdings(api: Api) -> list[Holding]:
    """Of every run that has something in the account and region, the oldest first."""
    found: dict[str, Holding] = {}

    def of(given: dict[str, str]) -> Holding:
        run = given.get(tags.RUN, "")
        return found.setdefault(run, Holding(run, given.get(tags.OWNER, ""), tags.when(given.get(tags.EXPIRES, ""))))

    for machine in await instances.find(api, {"tag-key": [tags.FANOUT]}):
        if not machine.ending:
            of(machine.tags).machines.append(machine.id)
    for group, given in await network.groups(api, {"tag-key": [tags.FANOUT]}):
        of(given).groups.append(group)
    return sorted(found.values(), key=lambda one: (one.expires or 0.0, one.run))


async def empty(
    api: Api,
    run: str,
    known: Iterable[str] = (),
    tokens: frozenset[str] = frozenset(),
    on_ended: Callable[[instances.Ended], None] = lambda ended: None,
) -> None:
    """Nothing of the run is left in the account; FleetError says what is, or may be.

    `known` and `tokens` as `instances.end` has them; `on_ended` hears of the machines.
    """
    try:
        ended = await instances.end(api, run, known, tokens, ENDING)
        on_ended(ended)
        if ended.left:
            ids = ", ".join(sorted(ended.left)[:TOLD]) + (" ..." if len(ended.left) > TOLD else "")
            raise FleetError(f"{len(ended.left)} machines are not known to be terminated: {ids}")
        for group in await network.groups_of(api, run):
            await network.delete_group(api, group, GROUP)
    except FanoutError as error:
        raise FleetError(
            f"run {run} may still have something in {api.region}: {error}\n"
            f"its machines end by themselves, with their ttl at the latest; now: fanout reap --run {run} --yes"
            f" --fleet aws:region={api.region}"
        ) from None
