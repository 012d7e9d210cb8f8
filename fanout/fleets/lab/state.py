"""Where labs are written down: one private folder a lab, made before anything of the lab is.

The folder's path is all that is needed to take a lab down, half-made or half-gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fanout.errors import FleetError, UsageError
from fanout.fleets.lab.ground import LabHost

MAX_NAME = 40
"""Characters of a lab's name."""
LOCK_TIMEOUT = 60.0  # s; for whoever builds or removes a lab to finish


def root() -> Path:
    """The folder of all labs of this user, there while there is one; `FANOUT_LAB_STATE` overrides it."""
    if given := os.environ.get("FANOUT_LAB_STATE"):
        path = Path(given)
    elif os.geteuid() == 0:
        path = Path("/run/fanout-lab")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(runtime, "fanout-lab")
    else:
        path = Path(tempfile.gettempdir(), f"fanout-lab-{os.geteuid()}")
    try:
        status = path.lstat()
    except FileNotFoundError:
        return path.absolute()
    if path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise FleetError(f"{path} is not a private folder of yours: remove it, or set FANOUT_LAB_STATE")
    return path.resolve()


def check_name(name: str) -> None:
    """UsageError unless `name` can name a lab: it becomes a folder's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or len(name) > MAX_NAME:
        raise UsageError(
            f"{name!r} cannot name a lab: use up to {MAX_NAME} lower-case letters, digits and dashes"
        )


def folder(name: str) -> Path:
    """The folder of the lab of that name, which may not exist."""
    check_name(name)
    return root() / name


def free_name() -> str:
    """One that no lab has."""
    return f"lab-{secrets.token_hex(4)}"


def create(name: str | None, owner: str) -> Path:
    """Make the folder of a new lab; without a name, it gets one that is free.  `owner`: see `owner`."""
    path = folder(name or free_name())
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        root()  # what has come to be there is a private folder
        try:
            path.mkdir(mode=0o700)
            break
        except FileNotFoundError:  # whoever removed the last lab was quicker
            continue
        except FileExistsError:
            raise UsageError(
                f"there is a lab named {name} already: use it, or remove it (fanout lab down {name})"
            ) from None
    (path / "owner").write_text(owner)
    return path


def remove(path: Path) -> None:
    """Forget the lab in folder `path`; the folder of all labs goes with the last, unless the user has named it."""
    shutil.rmtree(path)
    if not os.environ.get("FANOUT_LAB_STATE"):
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def owner(path: Path) -> str:
    """The run that the lab in folder `path` was made for; empty for one that was made by hand."""
    try:
        return (path / "owner").read_text()
    except FileNotFoundError:
        return ""


def names() -> list[str]:
    """Of all labs there are, half-made ones too."""
    labs = root()
    return sorted(path.name for path in labs.iterdir() if path.is_dir()) if labs.is_dir() else []


@contextlib.contextmanager
def lock(path: Path) -> Iterator[int]:
    """Hold the lab in folder `path`; the file descriptor, when inherited, prolongs the hold."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FleetError(f"another process is at work on the lab in {path}: try again") from None
                time.sleep(0.02)  # a lock with a deadline cannot be waited for otherwise
        yield fd
    finally:
        os.close(fd)


def write(path: Path, isolated: bool, hosts: list[LabHost]) -> None:
    """Write down what kind of lab is in folder `path`, and its hosts once they are up."""
    text = json.dumps({"isolated": isolated, "hosts": [asdict(host) for host in hosts]})
    (path / "lab.json.new").write_text(text)
    (path / "lab.json.new").replace(path / "lab.json")


def read(path: Path) -> tuple[bool | None, list[LabHost]]:
    """What `write` wrote: (isolated, hosts); (None, []) for a lab that did not get that far."""
    try:
        record: dict[str, Any] = json.loads((path / "lab.json").read_text())
    except FileNotFoundError:
        return None, []
    hosts = [LabHost(**{**host, "host_keys": tuple(host["host_keys"])}) for host in record["hosts"]]
    return record["isolated"], hosts
