"""Fixtures that all tests share: a real sshd, labs, every Python, and the check for leftovers."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fanout.fleets.lab import Lab
from tests.leftovers import Watch
from tests.pythons import pythons
from tests.sshd import LoopbackSshd, need_isolation, need_sshd

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, what is started here would be deaf to it too
# How long an example takes says nothing of the code on a busy machine; in CI hypothesis has no deadline of its own.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """After the last test, no process, namespace, link, mount, cgroup or lab of this session is there."""
    watch = Watch()
    watch.begin()
    yield
    left = watch.end()
    assert not left, "left behind by the tests:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def sshd() -> Iterator[LoopbackSshd]:
    """A real sshd with Debian's default limits, on every loopback address."""
    need_sshd()
    with LoopbackSshd() as server:
        yield server


@pytest.fixture
def lab() -> Iterator[Callable[..., Lab]]:
    """Makes labs of isolated hosts, `lab(3, rate="10mbit")` as `Lab.up`; they go with the test."""
    need_sshd()
    need_isolation()
    with ExitStack() as stack:
        yield lambda n, **options: stack.enter_context(Lab.up(n, isolated_hosts=True, **options))


def pytest_generate_tests(metafunc: Any) -> None:
    """A test with an argument `each_python` runs once for each interpreter found, 3.8 to 3.13."""
    if "each_python" in metafunc.fixturenames:
        metafunc.parametrize("each_python", pythons())
