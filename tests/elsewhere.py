"""A Python without what Linux alone has: it stands in for macOS, on which no test has ever run.

What is there and behaves otherwise (kqueue, names of files, limits of the kernel) it does not show.
"""

import os
import shlex
import sys
from pathlib import Path

LACKS = '''
import os, sys

for module, names in {
    "os": "sched_getaffinity sched_setaffinity pidfd_open pipe2 posix_fallocate posix_fadvise copy_file_range splice"
          " eventfd memfd_create getxattr setxattr listxattr removexattr waitid fdatasync getrandom O_PATH O_TMPFILE"
          " O_DIRECT O_NOATIME unshare setns",
    "select": "epoll POLLRDHUP",
    "signal": "sigtimedwait sigwaitinfo SIGRTMIN SIGRTMAX SIGSTKFLT SIGPWR SIGCLD SIGPOLL pidfd_send_signal",
    "socket": "TCP_INFO TCP_USER_TIMEOUT TCP_KEEPIDLE TCP_QUICKACK TCP_CORK SO_PEERCRED SO_PASSCRED SO_DOMAIN"
              " SO_PROTOCOL SO_BINDTODEVICE SCM_CREDENTIALS MSG_NOSIGNAL MSG_CMSG_CLOEXEC SOCK_CLOEXEC SOCK_NONBLOCK"
              " AF_NETLINK AF_PACKET AF_VSOCK",
    "fcntl": "F_SETSIG F_GETSIG F_SETOWN_EX F_SETPIPE_SZ F_GETPIPE_SZ F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_NOTIFY",
    "resource": "prlimit RUSAGE_THREAD",
}.items():
    found = __import__(module)
    for name in names.split():
        for one in (found, sys.modules.get("_" + module), sys.modules.get("posix")):
            if hasattr(one, name) and (module == "os" or one is not sys.modules["posix"]):
                delattr(one, name)

stat = os.stat


def away(path):
    if isinstance(path, str) and (path + "/").startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", path)


def shown(path, *options, **others):
    away(path)
    return stat(path, *options, **others)


os.stat = shown
sys.addaudithook(lambda event, given: event in ("open", "os.listdir", "os.scandir") and away(given[0]) or None)
proxies = sys.modules["_scproxy"] = type(sys)("_scproxy")  # what urllib asks on macOS
proxies._get_proxies = proxies._get_proxy_settings = dict
sys.platform = "darwin"
'''
AGENT = 'exec(open("%s").read()); sys.modules["_ctypes"] = None; '  # without ctypes there is no prctl


def python(folder: Path) -> str:
    """A program in that folder which runs agents as this Python without all that, and all else as it is."""
    lacks, program = folder / "sitecustomize.py", folder / "python3"
    lacks.write_text(f"{LACKS}sys.executable = {str(program)!r}\n")
    real = shlex.quote(sys.executable)
    program.write_text(
        f"#!/bin/sh\nif [ \"$1 $2 $3\" = '-I -S -c' ] && [ $# = 4 ]; then\n"
        f"    exec {real} -I -S -c {shlex.quote(AGENT % lacks)}\"$4\"\nfi\nexec {real} \"$@\"\n")
    program.chmod(0o755)
    return str(program)


def environment(folder: Path) -> dict[str, str]:
    """For a root without all that, whose local agents are `python`'s."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
