"""A PostgreSQL server of the tests' own: unprivileged, in a folder of its own, on a socket in it and on no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.sshd import missing

USER = "postgres"  # Debian's; the server refuses to run as root
TIMEOUT = 60.0  # s
FAST = "-c fsync=off -c full_page_writes=off -c max_connections=60 -c shared_buffers=16MB"


def program(name: str) -> str | None:
    if found := shutil.which(name):
        return found
    return next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)


class Postgres:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, which goes again."""
        name = f"test_{uuid.uuid4().hex}"
        self._sql(f"create database {name}")
        try:
            yield f"postgresql://{USER}@/{name}?host={self._folder}"
        finally:
            self._sql(f"drop database {name} with (force)")

    def _sql(self, text: str) -> None:
        run(program("psql"), "-h", str(self._folder), "-U", USER, "-d", "postgres", "-qc", text)


@contextmanager
def server() -> Iterator[Postgres]:
    if not (program("initdb") and program("pg_ctl") and program("psql")):
        missing("no PostgreSQL here: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="fanout-pg-"))  # pytest's own folders are closed to other users
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = str(folder / "data")
        run(program("initdb"), "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        options = f"{FAST} -c listen_addresses= -k {folder}"
        run(program("pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield Postgres(folder)
        finally:
            run(program("pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str | None) -> None:
    as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_user, *filter(None, command)], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}"
