"""An empty account for a test, which has to leave it empty."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.hosts import LabMachines
from tests.sshd import need_isolation, need_sshd


def enter(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on boto3 means this account, and prices are not remembered from another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    for name in "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION":
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def served() -> Iterator[Cloud]:
    """At one address for all tests of a module, so that clients may be kept."""
    with Cloud() as account:
        yield account


@pytest.fixture
def cloud(served: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    """Its instances are only in the books."""
    served.clear()
    enter(served, monkeypatch, tmp_path)
    return served


@pytest.fixture
def machines() -> Iterator[Callable[..., LabMachines]]:
    """Makes hosts for a cloud, `machines(3)`; they go with the test."""
    need_sshd()
    need_isolation()
    with ExitStack() as stack:
        yield lambda n: stack.enter_context(LabMachines(n))
