"""Starting a program, in a process group of its own, by `posix_spawn`: nothing of the agent is copied for it.

Orphans below the agent become its children where there is `prctl` (subreaper), so that nothing started here is ever
out of reach; and a program dies with the agent (`leash`).
"""

from __future__ import annotations

import _signal
import errno
import os

from .leash import Leash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_CHILD_SUBREAPER = 36
IGNORED = (_signal.SIGPIPE, _signal.SIGHUP, _signal.SIGINT, _signal.SIGXFSZ)
"""What the agent, or its Python, ignores; a program finds it as usual."""

_leashes: dict[int, Leash] = {}
"""By process id."""
_left: set[int] = set()
"""Process groups of programs that have ended, in which something ran still."""


def _prctl() -> Callable[[int, int], int] | None:
    """`prctl` by the C part of ctypes alone: the Python part is slow to import, and not needed."""
    try:
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
        call = _ctypes.call_function
    except (ImportError, AttributeError, OSError):
        return None
    return lambda option, value: call(address, (option, value, 0, 0, 0))


def become_subreaper() -> None:
    prctl = _prctl()
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def start(argv: list[str], env: dict[str, str], cwd: str | None, stdin: int, stdout: int, stderr: int,
          outlive: bool = False) -> int:
    """Returns the process id; `ended` is to be told of it.  OSError when it cannot be started; `filename` says what
    was at fault.

    The three descriptors, all above 2, become the program's 0, 1 and 2; every other one of ours is close-on-exec.
    `outlive`: it does not die with the agent.
    """
    leash = None if outlive else Leash()
    try:
        here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
        try:
            if cwd:
                try:
                    os.chdir(cwd)  # `posix_spawn` has no such thing; nobody else runs here meanwhile
                except OSError as error:
                    raise OSError(error.errno, error.strerror, "in " + cwd) from None
            pid = _spawn(argv, env, (stdin, stdout, stderr))
        finally:
            os.fchdir(here)
            os.close(here)
    except OSError:
        if leash is not None:
            leash.let_go()
        raise
    if leash is not None:
        leash.hold(pid)
        _leashes[pid] = leash
    return pid


def piped(argv: list[str], env: dict[str, str], cwd: str | None, outlive: bool = False,
          way: Callable[[], tuple[int, int]] = os.pipe) -> tuple[int, list[int]]:
    """`start` with a pipe at each descriptor: the process id, and our ends, which do not block.

    `way` makes what is in the place of the first.
    """
    theirs: list[int] = []
    ours: list[int] = []
    try:
        for which, make in enumerate((way, os.pipe, os.pipe)):
            read, write = make()
            theirs.append(write if which else read)
            ours.append(read if which else write)
        pid = start(argv, env, cwd, theirs[0], theirs[1], theirs[2], outlive)
    except OSError:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in ours:
        os.set_blocking(fd, False)
    return pid, ours


def silent(argv: list[str], env: dict[str, str]) -> int:
    """`start` of what reads nothing, and what nobody reads."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        return start(argv, env, None, null, null, null)
    finally:
        os.close(null)


def _spawn(argv: list[str], env: dict[str, str], fds: tuple[int, int, int]) -> int:
    places = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]
    try:
        path = _found(argv[0], env)
        return os.posix_spawn(path, argv, env, file_actions=places, setpgroup=0, setsigdef=IGNORED)
    except ValueError:  # a NUL in a word, or `=` in a name
        number = errno.EINVAL
    except OSError as error:
        number = error.errno or errno.EINVAL
    raise OSError(number, os.strerror(number), argv[0])


def ended(pid: int) -> None:
    """A process that may have been started here has been waited for."""
    leash = _leashes.pop(pid, None)
    if leash is not None:
        leash.let_go()
        if _there(-pid):
            _left.add(pid)


def groups() -> set[int]:
    """The process groups of what was started here, and does not outlive the agent, in which something runs."""
    # No number is given anew while it is that of a group: one that is a process again is somebody else's.
    _left.difference_update([group for group in _left if _there(group) or not _there(-group)])
    return _left.union(_leashes)


def _there(pid: int) -> bool:
    """A process, or for a number below 0 a group, that can be signalled."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _found(name: str, env: dict[str, str]) -> str:
    """Where a program is on its own PATH; `posix_spawnp` would look on ours.  OSError: nowhere."""
    if "/" in name:
        return name
    number = errno.ENOENT
    for folder in env.get("PATH", os.defpath).split(":"):
        path = os.path.join(folder or ".", name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            number = errno.EACCES
    raise OSError(number, os.strerror(number))
