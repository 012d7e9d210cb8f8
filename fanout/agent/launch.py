"""Starting a program: fork, a session and process group of its own, exec; and why exec failed, if it did.

Linux only, where there is `prctl`: the program gets SIGKILL when the agent dies, and orphans below the agent
become its children (subreaper), so that nothing started here is ever out of reach.
"""

from __future__ import annotations

import _signal
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl() -> Callable[[int, int], int] | None:
    """`prctl` by the C part of ctypes alone: the Python part is slow to import, and not needed."""
    try:
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
        call = _ctypes.call_function
    except (ImportError, AttributeError, OSError):
        return None
    return lambda option, value: call(address, (option, value, 0, 0, 0))


prctl = _prctl()


def become_subreaper() -> None:
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def start(argv: list[str], env: dict[str, str], cwd: str | None, stdin: int, stdout: int, stderr: int,
          outlive: bool = False) -> int:
    """Returns the process id.  OSError when it cannot be started; `filename` says what was at fault.

    The three descriptors become the program's 0, 1 and 2; every other one of ours is close-on-exec.
    `outlive`: it does not die with the agent.
    """
    failed, failing = os.pipe()
    agent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(failed)
        os.close(failing)
        raise
    if pid == 0:
        what = cwd or ""
        try:
            os.setsid()
            if prctl is not None and not outlive:
                prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
                if os.getppid() != agent:
                    os._exit(1)
            # Above 2 first, so that none of the three overwrites another.
            fds = [os.dup(fd) if fd < 3 else fd for fd in (stdin, stdout, stderr)]
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            for fd in set(fds):
                os.set_inheritable(fd, False)
            for number in (_signal.SIGPIPE, _signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGCHLD):
                _signal.signal(number, _signal.SIG_DFL)
            _signal.set_wakeup_fd(-1)
            if cwd:
                os.chdir(cwd)
            what = argv[0]
            _exec(argv, env)
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word, or `=` in a name
            number = getattr(error, "errno", None) or errno.EINVAL
            os.write(failing, b"%d %s" % (number, os.fsencode(what)))
        finally:
            os._exit(127)
    os.close(failing)
    told = b""
    while True:
        piece = os.read(failed, 4096)
        if not piece:
            break
        told += piece
    os.close(failed)
    if told:
        os.waitpid(pid, 0)
        number, _, name = told.partition(b" ")
        raise OSError(int(number), os.strerror(int(number)), os.fsdecode(name))
    return pid


def _exec(argv: list[str], env: dict[str, str]) -> None:
    """As `os.execvpe`, which costs an import; the error of a found file wins over those of other places."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)
    found: OSError | None = None
    for folder in env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(os.path.join(folder or ".", argv[0]), argv, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                found = found or error
    raise found or OSError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
