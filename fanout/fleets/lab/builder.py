"""The program that makes a lab's hosts: namespaces, root file system, address, sshd.

Run as a file of its own (`python3 -I -S builder.py`, a plan on standard input), because it forks once a host
and must therefore be single-threaded and small.  It prints one JSON line a host, in the order of the plan,
`{"name": ..., "pid": ...}`, once that host's sshd listens; or ends with status 1 and its reason on stderr.

Each host's first process waits for the word "go" from here and then becomes sshd, or what the plan says: that is the
host's init, so killing it ends everything in the host.  If this program dies, the word never comes and the hosts end.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP_RUNNING = 0x41

START_TIMEOUT = 60.0  # s; for all hosts together to get their namespaces, and again for all to listen
LISTENING = b" 00000000:0016 00000000:0000 0A "  # port 22, state LISTEN, in /proc/net/tcp

Plan = dict[str, Any]
"""What isolated.py asks for; `Host` is one of its `hosts`."""
Host = dict[str, str]
Pipe = tuple[int, int]
"""Read end, write end."""

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A system call by its C name; OSError with its arguments when it fails."""
    words = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(libc, name)(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    call("mount", source, target, kind, ctypes.c_ulong(flags), options)


def enter_root(plan: Plan, host: Host) -> None:
    """Make the host's own root, /proc, /sys and terminals, and leave the machine's behind."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    layers = f"lowerdir={plan['common']}:/,upperdir={host['upper']},workdir={host['work']}"
    mount("fanout-lab", host["root"], "overlay", 0, layers)
    os.chdir(host["root"])
    call("pivot_root", ".", ".")
    call("umount2", ".", MNT_DETACH)
    os.chdir("/")
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")


def set_address(plan: Plan, host: Host) -> None:
    """Bring up the loopback, and the link with the host's address; no route leads out of the lab."""
    # Without this, each host announces itself to each other over IPv6: n * n packets.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")
    mask = socket.inet_ntoa(struct.pack("!I", 0xFFFFFFFF << (32 - plan["prefix"]) & 0xFFFFFFFF))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, address in (SIOCSIFADDR, host["address"]), (SIOCSIFNETMASK, mask):
            sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s", b"eth0", sockaddr))
        for name in b"lo", b"eth0":
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name, IFF_UP_RUNNING))
    if plan["shape"]:
        subprocess.run(["tc", "qdisc", "add", "dev", "eth0", "root", *plan["shape"]], check=True, timeout=20)


def become_host(plan: Plan, host: Host, go: int, ready: int) -> None:
    """In the new process: the life of a host from its first instruction to its sshd.  Does not return."""
    for path in plan["cgroups"]:
        Path(path.format(name=host["name"])).write_text("0")
    call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
    os.write(ready, b".")
    os.close(ready)
    if not os.read(go, 1):
        os._exit(1)
    socket.sethostname(host["name"])
    enter_root(plan, host)
    set_address(plan, host)
    os.setsid()
    os.umask(0o022)
    for number in signal.SIGPIPE, signal.SIGXFSZ:  # Python ignores these, and sshd would pass that on
        signal.signal(number, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in 0, 1, 2:
        os.dup2(null, fd)
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    os.execve(plan["init"][0], plan["init"], environment)


def start(plan: Plan, host: Host, go: Pipe, ready: Pipe, own: int) -> int:
    """Fork a host's first process, number 1 of a new PID namespace; its pid here.

    `own` is our own PID namespace, to come back to.
    """
    call("unshare", CLONE_NEWPID)
    pid = os.fork()
    if pid:
        call("setns", own, CLONE_NEWPID)
        return pid
    try:
        os.close(go[1])
        os.close(ready[0])
        become_host(plan, host, go[0], ready[1])
    except BaseException as error:
        sys.stderr.write(f"{host['name']}: {error}\n")
        if not isinstance(error, (OSError, subprocess.SubprocessError)):
            traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def plug_in(plan: Plan, pids: list[int]) -> None:
    """A cable from each host to the switch, in one batch."""
    lines = []
    for host, pid in zip(plan["hosts"], pids, strict=True):
        lines.append(f"link add {host['port']} type veth peer name eth0 netns {pid}")
        lines.append(f"link set {host['port']} master switch addrgenmode none up")
    batch = "\n".join(lines).encode()
    subprocess.run(["ip", "-n", plan["netns"], "-batch", "-"], input=batch, check=True, timeout=START_TIMEOUT)
    if plan["shape"]:
        shape = " ".join(plan["shape"])
        batch = "\n".join(f"qdisc add dev {host['port']} root {shape}" for host in plan["hosts"]).encode()
        command = ["tc", "-n", plan["netns"], "-batch", "-"]
        subprocess.run(command, input=batch, check=True, timeout=START_TIMEOUT)


def listens(pid: int) -> bool:
    try:
        return LISTENING in Path(f"/proc/{pid}/net/tcp").read_bytes()
    except OSError:  # it has ended
        return False


def ended(host: Host, pid: int) -> bool:
    """Whether a host's first process has ended, which it must not; then says why."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        log = Path(host["upper"], "run/sshd/log")
        said = log.read_text().strip() if log.exists() else ""
        sys.stderr.write(f"{host['name']}: its first process ended with {status >> 8 or status} {said}\n")
    return bool(done)


def wait_namespaces(ready: int, count: int) -> None:
    """Until every host has its namespaces."""
    deadline = time.monotonic() + START_TIMEOUT
    while count:
        if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            sys.exit(f"the hosts have no namespaces after {START_TIMEOUT:.0f} s: is the machine overloaded?")
        data = os.read(ready, 4096)
        if not data:
            sys.exit("a host ended before it had its namespaces")
        count -= len(data)


def wait_up(plan: Plan, pids: list[int]) -> None:
    """Until every host's sshd listens, where there is to be one; prints each as it does."""
    deadline = time.monotonic() + START_TIMEOUT
    for host, pid in zip(plan["hosts"], pids, strict=True):
        while plan["listens"] and not listens(pid):
            if ended(host, pid):
                sys.exit(1)
            if time.monotonic() > deadline:
                sys.exit(f"{host['name']}: its sshd does not listen after {START_TIMEOUT:.0f} s")
            time.sleep(0.01)  # nothing says when another namespace begins to listen
        print(json.dumps({"name": host["name"], "pid": pid}), flush=True)


def main() -> None:
    plan = json.load(sys.stdin)
    # Our lock on the lab: held as long as we live, and not by the hosts.
    os.set_inheritable(plan["lock"], False)
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    go, ready = os.pipe(), os.pipe()
    pids: list[int] = []
    try:
        for host in plan["hosts"]:
            pids.append(start(plan, host, go, ready, own))  # noqa: PERF401  all of them, if one fails
        os.close(ready[1])
        wait_namespaces(ready[0], len(pids))
        plug_in(plan, pids)
        os.write(go[1], b"g" * len(pids))
        wait_up(plan, pids)
    except BaseException:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise


if __name__ == "__main__":
    main()
