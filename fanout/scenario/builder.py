"""A build is made: the commit is found, fetched, built here or on a machine, and its outputs are kept in the cache.

What always holds: what is in the cache is whole, and is as it was built (its hash is checked again before it is used);
two runs that build the same at once both get one; whatever happens, no process and no working tree is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO

from fanout.durations import show
from fanout.errors import ScenarioFailure, UsageError
from fanout.root.payload import cache_folder
from fanout.root.shipping import Source
from fanout.scenario.build import PROTOCOLS, Git, is_commit
from fanout.scenario.workshop import Workshop

KEPT = 10  # builds in the cache, and those of the last hour
RECENT = 3600.0  # s
STALE = 86400.0  # s after which a working tree belongs to a root that was killed
GRACE = 2.0  # s between TERM and KILL
TAIL = 20  # last lines that are told of what failed
LINE = 300  # characters of each
LAST = 64 << 10  # bytes of output in which these lines, and what git answers, are looked for
READ = 64 << 10
LOOK = 0.5  # s between looks at what was printed

Log = Callable[[bytes], None]
Say = Callable[[str], None]


class BuildFailed(ScenarioFailure):
    """What a scenario wants built could not be: the text has the last lines of what failed."""


class Builder:
    """One build, within its time."""

    def __init__(self, build: Git, ref: str, log: Log, say: Say) -> None:
        """`log` gets the output of what runs here; `say` hears what is done, in a line."""
        self._build = build
        local = Path(build.url).expanduser()
        self._url = str(local.absolute()) if "://" not in build.url and local.exists() else build.url
        self._ref = ref
        self._commit = ref if is_commit(ref) else ""
        self._left = build.timeout
        self._log = log
        self._say = say
        self._place = cache_folder() / "builds"

    async def find(self) -> None:
        """Know the commit, so that a branch that is not there is told before anything is made.

        BuildFailed; UsageError without git.
        """
        async with self._in_time():
            self._commit = self._commit or await self._resolve()

    async def made(self, shop: Workshop | None = None) -> dict[str, Path]:
        """The outputs by name, at the root; the command runs in the shop, or here.  Raises as `find`."""
        await self.find()
        async with self._in_time():
            return await self._made(shop)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        if shutil.which("git") is None:
            raise UsageError("the scenario is built from git, which is not here: install git at the root")
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                yield
        except TimeoutError:
            took = show(self._build.timeout)
            raise BuildFailed(f"the build of {self._build} did not end within {took} (git(..., timeout=))") from None
        except BuildFailed:
            raise
        except ScenarioFailure as error:  # of the machine
            raise BuildFailed(f"the build of {self._build}: {error}") from None
        except OSError as error:
            raise BuildFailed(f"the build of {self._build}: {error}; is there space in {self._place}?") from None
        finally:
            self._left -= time.monotonic() - began

    async def _made(self, shop: Workshop | None) -> dict[str, Path]:
        commit = self._commit
        platform = await shop.platform() if shop is not None else ""
        what = [commit, self._build.command, self._build.outputs, self._build.where, platform]
        kept = self._place / blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()
        if await asyncio.to_thread(_whole, kept, self._build.names):
            os.utime(kept)
            self._say(f"build: {commit[:12]} of {self._build.url} is in the cache")
            return {name: kept / "outputs" / name for name in self._build.names}
        began = time.monotonic()
        on = f" on {shop.machine}" if shop is not None else ""
        self._say(f"build: {commit[:12]} of {self._build.url}{on}: {self._build.command}")
        await asyncio.to_thread(_tidy, self._place)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=self._place))
        try:
            tree = work / "tree"
            await self._fetch(tree, commit)
            if shop is None:
                await self._run(["sh", "-c", self._build.command], tree, f"at {commit[:12]}")
                made = {name: tree / path for name, path in zip(self._build.names, self._build.outputs, strict=True)}
            else:
                made = await self._made_in(shop, tree, work / "brought")
            await asyncio.to_thread(self._take, made, work / "made", kept)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        self._say(f"build: done in {show(time.monotonic() - began)}")
        return {name: kept / "outputs" / name for name in self._build.names}

    async def _made_in(self, shop: Workshop, tree: Path, into: Path) -> dict[str, Path]:
        where = f"on {shop.machine} at {self._commit[:12]}"
        try:
            ended = await shop.run(tree, self._build.command, self._left)
        except UsageError as error:  # what is in the repository is not the scenario's doing
            raise BuildFailed(f"the build of {self._build} {where}: {error}; or build at the root, "
                              "where='root'") from None
        if not ended.ok:
            raise self._failed(where, self._build.command, f"ended ({ended.status})", ended.stderr_bytes)
        brought, left_out = await shop.bring(self._build.outputs, into, self._left)
        if left_out:
            raise BuildFailed(f"the build of {self._build} {where}: {left_out}")
        await shop.clear()
        return {name: brought / name for name in self._build.names}

    async def _resolve(self) -> str:
        """The commit that a branch or a tag is at now."""
        url, ref = self._url, self._ref
        names = [ref] if ref == "HEAD" or ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        said = await self._run(["git", "ls-remote", "--", url, *names, *(f"{name}^{{}}" for name in names)], Path("/"))
        pairs = (line.partition("\t") for line in said.decode("utf-8", "replace").splitlines())
        found = {name: commit for commit, _, name in pairs if is_commit(commit)}
        for name in names:
            for full in (f"{name}^{{}}", name):  # what an annotated tag stands for, rather than the tag
                if full in found:
                    return found[full]
        raise BuildFailed(f"{url} has no branch or tag {ref!r}; a commit is given by all its 40 digits")

    async def _fetch(self, tree: Path, commit: str) -> None:
        url = self._url
        await self._run(["git", "init", "--quiet", str(tree)], tree.parent)
        try:
            await self._run(["git", "fetch", "--quiet", "--no-tags", "--depth=1", "--", url, commit], tree)
        except BuildFailed:  # not every server gives a commit by itself
            everything = ["+refs/heads/*:refs/remotes/from/*", "+refs/tags/*:refs/tags/*"]
            await self._run(["git", "fetch", "--quiet", "--", url, *everything], tree)
        await self._run(["git", "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit], tree)
        if await asyncio.to_thread((tree / ".gitmodules").exists):
            await self._run(["git", "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"], tree)

    async def _run(self, argv: Sequence[str], folder: Path, where: str = "") -> bytes:
        """The last of what it printed; its process group is ended with it, whatever happens."""
        with tempfile.TemporaryFile() as output:  # not a pipe: what it leaves in the background must not hold us up
            process = _start(argv, folder, output)
            exited = asyncio.ensure_future(asyncio.to_thread(process.wait))
            logged = 0
            try:
                while not exited.done():
                    await asyncio.wait({exited}, timeout=LOOK)
                    logged += self._pass_on(output.fileno(), logged)
            finally:
                await _end(process, exited)
                logged += self._pass_on(output.fileno(), logged)
            last = os.pread(output.fileno(), LAST, max(0, logged - LAST))
        if code := process.returncode:
            how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            what = self._build.command if argv[0] == "sh" else shlex.join(argv)
            raise self._failed(where, what, how, last)
        return last

    def _failed(self, where: str, what: str, how: str, last: bytes) -> BuildFailed:
        lines = last.decode("utf-8", "replace").rstrip().splitlines()[-TAIL:]
        said = "".join(f"\n  {line[:LINE]}" for line in lines) or "\n  (it said nothing)"
        return BuildFailed(f"the build of {self._build}{where and ' ' + where}: `{what}` {how}:{said}")

    def _pass_on(self, output: int, offset: int) -> int:
        """To the log; how much it was."""
        begun = offset
        while data := os.pread(output, READ, offset):
            self._log(data)
            offset += len(data)
        return offset - begun

    def _take(self, made: Mapping[str, Path], place: Path, kept: Path) -> None:
        """Copy the outputs, and show them to others at once and as a whole."""
        (place / "outputs").mkdir(parents=True)
        hashes = {}
        for (name, source), path in zip(made.items(), self._build.outputs, strict=True):
            target = place / "outputs" / name
            if not source.exists():
                raise BuildFailed(f"the build of {self._build} has not made {path}")
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target)
            hashes[name] = _hash(target)
        (place / "hashes.json").write_text(json.dumps(hashes))
        try:
            place.rename(kept)
        except OSError:
            if _whole(kept, self._build.names):
                return  # another run has just made the same, and may be using it
            kept.rename(place.with_name("damaged"))
            place.rename(kept)


def _environment() -> Mapping[str, str]:
    """The user's, but git asks nobody, speaks only what it may, and is of no other repository (a hook's)."""
    kept = {name: value for name, value in os.environ.items() if name not in OTHERS}
    return {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **kept,
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS), "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "false",
    }


OTHERS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")


def _start(argv: Sequence[str], folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        start_new_session=True)


async def _end(process: subprocess.Popen[bytes], exited: asyncio.Future[int]) -> None:
    """TERM for it if it still runs, a moment later KILL; and KILL for all that it has left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if not exited.done():
            os.killpg(process.pid, signal.SIGTERM)
            await asyncio.wait({exited}, timeout=GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    await exited


def _hash(path: Path) -> str:
    source = Source(path)
    source.close()
    return source.digest.hex()


def _whole(kept: Path, names: Sequence[str]) -> bool:
    """Whether it is there, nobody else's, and as it was made."""
    try:
        state = kept.stat()
        hashes = json.loads((kept / "hashes.json").read_text())
        mine = state.st_uid == os.getuid() and not state.st_mode & 0o022
        return mine and all(_hash(kept / "outputs" / name) == hashes[name] for name in names)
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return False


def _tidy(place: Path) -> None:
    """Make the folder; let go of what is long unused."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = time.time()
    ages = sorted((now - path.stat().st_mtime, path) for path in place.iterdir() if path.is_dir())
    builds = [(age, path) for age, path in ages if not path.name.startswith(".")]
    stale = [path for age, path in ages if path.name.startswith(".work-") and age > STALE]
    for path in stale + [path for age, path in builds[KEPT:] if age > RECENT]:
        shutil.rmtree(path, ignore_errors=True)
