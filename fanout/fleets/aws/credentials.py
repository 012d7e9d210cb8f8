"""Whether the credentials are good for a run, found out before anything is made.

`sts:GetCallerIdentity` needs no right; the others are asked by dry runs.  What EC2 says of machines that do not
exist is only believed where it says that the right is lacking.
"""

from __future__ import annotations

from typing import Any

from fanout.fleets.aws import tags
from fanout.fleets.aws.api import DENIED, Api, Refused

NOBODY = "i-00000000000000000"
NO_GROUP = "sg-00000000000000000"


async def identity(api: Api) -> str:
    """Who we are to AWS: the last part of the ARN, such as `user/alice`.  FleetError with the remedy."""
    answer = await api.call("sts", "get_caller_identity")
    arn: str = answer["Arn"]
    return arn.rpartition(":")[2]


async def may_make(api: Api, vpc: str, marked: list[dict[str, str]], machine: dict[str, Any]) -> None:
    """FleetError for the first right that a run lacks; `machine`: the parameters of a RunInstances."""
    tagged = tags.specification(["security-group"], marked)
    await api.may(
        "create_security_group", GroupName="fanout-dry-run", Description="fanout", VpcId=vpc, TagSpecifications=tagged
    )
    await api.may("run_instances", **machine)
    await _may_undo(api, "terminate_instances", InstanceIds=[NOBODY])
    await _may_undo(api, "delete_security_group", GroupId=NO_GROUP)


async def _may_undo(api: Api, operation: str, **parameters: Any) -> None:
    try:
        await api.may(operation, **parameters)
    except Refused as refused:
        if refused.code in DENIED:
            raise
