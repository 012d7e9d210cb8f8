"""The rights that docs/aws.md asks for are those that the code uses, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import botocore.session

PROJECT = Path(__file__).parents[3]
CALL = re.compile(r'(?:call|each)\(\s*"(\w+)", "(\w+)"')
DRY = re.compile(r'may(?:_undo)?\(\s*(?:api, )?"(\w+)"')
ALONGSIDE = {"ec2:CreateTags"}
"""For tags that are given as something is made: AWS wants it, and there is no call."""
FREE = {"sts:GetCallerIdentity"}
"""Needs no right."""


def used() -> set[str]:
    session = botocore.session.get_session()
    found = set()
    for path in (PROJECT / "fanout/fleets/aws").glob("*.py"):
        text = path.read_text()
        found |= set(CALL.findall(text)) | {("ec2", operation) for operation in DRY.findall(text)}
    named = set()
    for service, operation in found:
        names = session.get_service_model(service).operation_names
        named |= {f"{service}:{name}" for name in names if name.lower() == operation.replace("_", "")}
    assert len(named) == len(found)
    return named


def test_the_policy_in_the_docs_is_the_least() -> None:
    text = (PROJECT / "docs/aws.md").read_text()
    (policy,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    allowed = [action for statement in policy["Statement"] for action in statement["Action"]]
    assert len(allowed) == len(set(allowed))
    assert set(allowed) == used() - FREE | ALONGSIDE
