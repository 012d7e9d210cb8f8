"""Files come home through relays over a real sshd, also when one is killed while they are on their way."""

import hashlib
import os
import signal
from pathlib import Path

import pytest

from fanout.agent.core import machineset
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.fetching import Fetch
from tests.root.trees import chain, everyone, left, outputs, run, session, through, until

pytestmark = pytest.mark.sshd


async def test_a_relay_that_is_killed_costs_nobody_else_a_byte(sshd: LoopbackSshd, tmp_path: Path) -> None:
    agents, here = tmp_path / "agents", tmp_path / "here"
    agents.mkdir()
    parents = chain(2, 2)  # 0 and 1 are relays
    async with session(through(sshd, 6), parents, relay_key=sshd.key.read_text(), folder=str(agents)) as up:
        assert up.up == everyone(up)
        others = everyone(up) & ~1
        sums = outputs(await run(up, others, shell="head -c 6000000 /dev/urandom > big; sha256sum < big"))
        pid = int(outputs(await run(up, 1, shell="echo $PPID"))[0])
        fetch = Fetch(up, lambda machine: here / str(machine), 1 << 30, 1 << 40)
        fetch.begin(others, "big")
        behind = [machine for machine, parent in enumerate(parents) if parent == 0]
        await until(lambda: any(fetch.intakes[machine].bytes for machine in behind if machine in fetch.intakes))
        assert not all(fetch.intakes[machine].over for machine in behind if machine in fetch.intakes)
        os.kill(pid, signal.SIGKILL)
        assert await fetch.wait(60.0)
        fetch.close()
        for machine in machineset.members(others):
            (path,) = fetch.intakes[machine].files
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[machine].decode().split()[0]
        assert 0 in up.down
    assert {path.name[-2:] for path in left(agents)} <= {"-0"}, "only what was killed may leave something"
