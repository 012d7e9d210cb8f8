"""What tests of SSH need from this machine, and what they do when it is not there.

`LoopbackSshd` is the real OpenSSH server that the lab itself falls back to.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from fanout.fleets.lab.isolated import why_not
from fanout.fleets.openssh import LoopbackSshd

__all__ = ["LoopbackSshd", "home_of", "missing", "need_isolation", "need_sshd", "running"]


def home_of(folder: Path, sshd: LoopbackSshd) -> Path:
    """Make the folder the home of somebody who knows the hosts n1 to n3; returns the hosts file that names them."""
    (folder / ".ssh").mkdir()
    (folder / ".ssh/known_hosts").write_text(sshd.known_hosts)
    hosts = folder / "hosts"
    hosts.write_text(f"{sshd.user}@127.1.0.[1-3]:{sshd.port} key={sshd.key} name=n[1-3]\n")
    return hosts


def running(sshd: LoopbackSshd, word: str) -> list[int]:
    """What was started through it and has this word among its arguments."""
    found = []
    for pid in sshd.processes():
        with contextlib.suppress(OSError):  # it may go while we look
            if word in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
                found.append(pid)
    return found


def missing(what: str) -> None:
    """Skip the test for want of something; in CI, where everything must be there, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have it: {what}", pytrace=False)
    pytest.skip(what)


def need_sshd() -> None:
    for program, package in ("sshd", "openssh-server"), ("ssh", "openssh-client"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            missing(f"no {program} here: apt install {package}")


def need_isolation() -> None:
    if reason := why_not():
        missing(f"no isolated hosts here: {reason}")
