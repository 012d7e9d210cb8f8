"""Starting a program: what is opened for one that cannot be started is closed again."""

from __future__ import annotations

import errno
import os

import pytest

from fanout.agent import launch


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_program_that_there_is_not_leaves_no_descriptor() -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        launch.piped(["/no/such/program"], {}, None)
    with pytest.raises(FileNotFoundError):
        launch.silent(["/no/such/program"], {})
    assert descriptors() == before


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_process_that_has_no_descriptors_left_keeps_none_of_those_it_got(
        left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, made = os.pipe, 0

    def scarce() -> tuple[int, int]:
        nonlocal made
        made += 1
        if made > left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pipe()

    before = descriptors()
    monkeypatch.setattr(os, "pipe", scarce)
    with pytest.raises(OSError, match="Too many open files"):
        launch.piped(["true"], {}, None, way=scarce)
    assert descriptors() == before
