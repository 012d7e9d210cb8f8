"""`fanout fetch`: files of hosts over SSH, into a folder for each; what is left out decides the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fanout.fleets.openssh import LoopbackSshd
from tests.sshd import home_of


@pytest.mark.sshd
def test_files_of_hosts_come_into_a_folder_for_each(sshd: LoopbackSshd, tmp_path: Path) -> None:
    hosts = home_of(tmp_path, sshd)
    for number in (1, 2, 3):
        there = tmp_path / f"there/n{number}/logs"
        there.mkdir(parents=True)
        (there / "app.log").write_text(f"of n{number}\n" * number)
        (there / "big").write_bytes(os.urandom(300_000))

    def fetch(*words: str, code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "fanout.cli", "fetch", "-w", f"@{hosts}", *words], cwd=tmp_path,
            capture_output=True, text=True, timeout=90, env={**os.environ, "HOME": str(tmp_path)}, check=False)
        assert done.returncode == code, done.stderr
        return done

    done = fetch(f"{tmp_path}/there/{{name}}/*", "here", code=0)
    assert "6 files, 0.9 MB, from 3 of 3 machines" in done.stderr
    for number in (1, 2, 3):
        for name in ("app.log", "big"):
            source = tmp_path / f"there/n{number}/logs/{name}"
            assert (tmp_path / f"here/n{number}/logs/{name}").read_bytes() == source.read_bytes()

    os.mkfifo(tmp_path / "there/n2/logs/pipe")
    done = fetch("--cap", "1KB", "--json", f"{tmp_path}/there/{{name}}/logs", "again", code=1)
    assert "fanout: n[1-3] (3): not brought: logs/big (300000 bytes): it is beyond the cap" in done.stderr
    assert "fanout: n2: not brought: logs/pipe: it is a named pipe" in done.stderr
    records = json.loads(done.stdout)["machines"]
    assert [record["outcome"] for record in records] == ["incomplete"] * 3
    assert records[2]["files"] == [str(tmp_path / "again/n3/logs/app.log")]
    nothing = fetch("nothing-of-this-name", code=1).stderr
    assert "fanout: n[1-3] (3): nothing there matches ~/nothing-of-this-name" in nothing
    assert "from 0 of 3 machines" in nothing
    (tmp_path / "there/n2/only").touch()
    some = fetch(f"{tmp_path}/there/{{name}}/only", code=0).stderr
    assert "fanout: n[1,3] (2): nothing there matches" in some and "1 file, 0.0 MB, from 1 of 3 machines" in some
    assert "PATTERN is not UTF-8" in fetch("\udcff", code=2).stderr
    (tmp_path / ".ssh/known_hosts").write_text("")
    assert "host key mismatch" in fetch("x", code=255).stderr
