"""What a test session may leave behind on the machine, and must not."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from fanout.fleets.lab import isolated, switch
from fanout.fleets.openssh import descendants, wait_gone, with_environment

MARKER = "FANOUT_TEST_SESSION"
GRACE = 10.0  # s; for what was just killed to be gone


class Watch:
    """From `begin` to `end`: names what was made in between and is still there.

    Labs made meanwhile are kept in a folder of their own, so that other users of the machine do not matter.
    """

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex
        self._labs = Path()
        self._before: dict[str, str | None] = {}

    def begin(self) -> None:
        self._labs = Path(tempfile.mkdtemp(prefix="fanout-test-labs-"))
        for name, value in (MARKER, self._token), ("FANOUT_LAB_STATE", str(self._labs)):
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        self._named = named()

    def end(self) -> list[str]:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        running = with_environment(MARKER, self._token) | descendants(os.getpid()) | self._in_labs()
        running.discard(os.getpid())
        left = [f"process {pid}: {title(pid)}" for pid in wait_gone(running, GRACE)]
        left += [f"lab {path}" for path in self._labs.iterdir() if path.is_dir()]
        left += [f"mount {line.split()[1]}" for line in mounts() if str(self._labs) in line]
        left += self._named_since(GRACE)
        if not left:
            shutil.rmtree(self._labs)
        return left

    def _named_since(self, timeout: float) -> list[str]:
        """What stays: a lab of others, which goes while we look, may be seen without its folder for a moment."""
        deadline = time.monotonic() + timeout
        while (left := named() - self._named - of_others(self._labs)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return sorted(left)

    def _in_labs(self) -> set[int]:
        return {pid for path in self._labs.iterdir() for pid in isolated.inside(path)}


def named() -> set[str]:
    """The network namespaces, links and cgroups here that have a name such as labs give."""
    cgroups = Path("/sys/fs/cgroup")
    entries: list[Path] = []
    for place in Path("/run/netns"), Path("/sys/class/net"), cgroups, *cgroups.glob("*"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it may go while we look
            entries += place.iterdir()
    return {str(entry) for entry in entries if re.fullmatch(r"fo-[0-9a-f]{8}", entry.name)}


def of_others(ours: Path) -> set[str]:
    """Of those, the ones that belong to labs of other users of this machine, not in our folder."""
    folders = [*Path("/run/fanout-lab").glob("*"), *Path(tempfile.gettempdir()).glob("fanout-test-labs-*/*")]
    tags = {switch.tag(folder) for folder in folders if folder.parent != ours}
    return {entry for entry in named() if Path(entry).name in tags}


def mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()


def title(pid: int) -> str:
    done = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()
