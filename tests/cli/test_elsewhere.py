"""`fanout run` without what Linux alone has, root and agents: what of macOS can be shown on Linux."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import elsewhere
from tests.agent.parent import gone

SCENARIO = '''
from fanout import Fleet, scenario

def member(me):
    me.barrier("all")
    return me.name

@scenario(machines=3, ttl="1m")
async def works(fleet: Fleet) -> None:
    assert {machine.address for machine in fleet} == {"127.0.0.1"}
    assert sorted((await fleet.each(member)).values.values()) == ["local-0", "local-1", "local-2"]
    await fleet.ship(__file__, "shipped")
    assert (await fleet.run("cat shipped; fanout signal up")).ok
    await fleet.fetch("shipped", "files")
    processes = await fleet.spawn("echo pid $$; exec sleep 404", name="left", ready=r"pid (\\d+)")
    for [pid] in processes.ready.values():
        print("PID", pid)
'''


def test_a_scenario_runs_on_local_machines_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    elsewhere.python(tmp_path)
    scenario = tmp_path / "works.py"
    scenario.write_text(SCENARIO)
    environment = {**elsewhere.environment(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"),
                   "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "from fanout.cli.main import main; main()", "run", str(scenario), "--relays", "1"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pids = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("PID")]
    assert len(pids) == 3 and all(gone(pid, 0) for pid in pids)
    assert list(tmp_path.glob("fanout-*")) == []
