"""A fleet is visited: each machine is asked, and nothing stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fanout.fleets.base import Fleet, Host, Progress, Request
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.doctor import visit
from tests.root.trees import left, local, through


class Given(Fleet):
    """These hosts; remembers that it was released."""

    name = "given"

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.released = 0

    async def provision(self, request: Request, progress: Progress) -> list[Host]:
        return self.hosts

    async def release(self) -> None:
        self.released += 1


async def test_each_machine_is_visited_and_the_fleet_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fleet = Given([*local(2), Host("broken", "127.0.0.1", local=True, python="/no/such/python3")])
    findings = await visit(fleet, None, tmp_path, 20.0)
    visited = [(one.topic, str(one.level)) for one in findings if "local-[0-1]" in one.text]
    assert ("reach", "ok") in visited and ("python", "ok") in visited and ("clock", "ok") in visited
    [broken] = [one for one in findings if "broken" in one.text]
    assert broken.level == "fail" and "no python" in broken.text and "/no/such/python3" in broken.remedy
    assert fleet.released == 1 and left(tmp_path) == []


@pytest.mark.sshd
async def test_over_ssh_the_clock_and_the_limits_are_told(sshd: LoopbackSshd, tmp_path: Path) -> None:
    findings = await visit(Given(through(sshd, 2)), None, tmp_path, 20.0)
    told = {one.topic: one for one in findings if "host-[0-1]" in one.text}
    assert told["reach"].level == told["clock"].level == "ok" and "sshd" in told
    if os.geteuid() == 0:
        assert "MaxStartups" in told["sshd"].text


async def test_a_fleet_that_breaks_is_a_finding_and_is_released(tmp_path: Path) -> None:
    class Broken(Given):
        async def provision(self, request: Request, progress: Progress) -> list[Host]:
            raise ZeroDivisionError

        async def release(self) -> None:
            await super().release()
            raise OSError("no way back")

    broken = Broken([])
    with pytest.raises(ZeroDivisionError):
        await visit(broken, None, tmp_path, 5.0)
    assert broken.released == 1
    empty = Given([])
    findings = await visit(empty, None, tmp_path, 5.0)
    assert findings[-1].level == "fail" and "it has no machines" in findings[-1].text and empty.released == 1
