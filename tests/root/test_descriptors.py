"""The root may open what its machines need."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.root import descriptors
from tests.root.trees import local, session

FEW = 256
"""What macOS allows a process until it asks for more."""


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.fixture(autouse=True)
def few() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_where_it_must_be_and_nowhere_else() -> None:
    descriptors.allow(2)
    assert limit() == FEW
    descriptors.allow(100)
    assert limit() == descriptors.needed(100) == 528
    descriptors.allow(50)
    assert limit() == 528


def test_it_is_raised_as_far_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (FEW, 400))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    descriptors.allow(100)
    assert asked == [(400, 400)]

    def refuse(_: int, limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.allow(100)


async def test_a_session_sees_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "SPARE", FEW)
    async with session(local(2), [None, None], folder=str(tmp_path)):
        assert limit() == descriptors.needed(2) > FEW
