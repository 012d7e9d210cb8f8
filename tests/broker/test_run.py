"""A whole run on machines of a broker that leases hosts of a lab: one flag apart from a run on a lab of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.process import PROJECT, Process, fanout
from tests.sshd import need_isolation, need_sshd

pytestmark = pytest.mark.lab


def test_a_run_leases_its_machines_and_gives_them_back(tmp_path: Path) -> None:
    need_sshd()
    need_isolation()
    store = f"sqlite:///{tmp_path}/broker.db"
    added = fanout("broker", "tenant", "add", "ada", "--machines", "4", "--store", store)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(added.stdout)
    with Process(store, "--offer", "lab=lab") as broker:
        run = ("run", str(PROJECT / "scenarios/quickstart.py"), "--fleet", f"broker:{broker.url},token={token}")
        environment = {"XDG_STATE_HOME": str(tmp_path)}
        done = fanout(*run, "-n", "4", "--relays", "1", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert "4 machines of lab" in said and "passed: quickstart" in said
        refused = fanout(*run, "-n", "5", **environment)
        assert refused.returncode == 3 and "quota machines" in refused.stderr
        listed = fanout("broker", "tenant", "list", "--store", store).stdout
        assert listed.startswith("ada ") and "0/4 machines" in listed
        audit = fanout("broker", "audit", "--store", store).stdout
        assert audit.count("lease.ended") == audit.count("lease.ready") == 1 and "lease.refused" in audit
        secret = added.stdout.strip()
        kept = "".join(path.read_text(errors="replace") for path in tmp_path.glob("fanout/runs/**/*") if path.is_file())
        assert kept and secret not in kept + audit + said + broker.end()
