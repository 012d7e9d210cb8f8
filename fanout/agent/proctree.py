"""What runs below a process, found by the kernel's lists of children (Linux).

Reads only the agent's own subtree, so its cost does not grow with the other processes of the machine.
"""

from __future__ import annotations

import os


def listed() -> bool:
    """The kernel tells here what runs."""
    return os.path.isdir("/proc/self/task")


def children(pid: int) -> list[int]:
    """The direct children of a process; empty where the kernel does not say."""
    found: list[int] = []
    try:
        tasks = os.listdir("/proc/%d/task" % pid)
    except OSError:
        return found
    for task in tasks:
        try:
            with open("/proc/%d/task/%s/children" % (pid, task), "rb") as file:
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


def below(pid: int) -> list[int]:
    """All descendants, nearest first."""
    found = children(pid)
    for child in found:  # grows while it is walked
        found += children(child)
    return found


def of_this_machine(pid: int, links: set[int]) -> list[int]:
    """All descendants, but for connections to children and for other agents, with what runs below those.

    Other agents are there where machines are local: a child of this one, or an orphan that this one has inherited.
    """
    found: list[int] = []
    todo = children(pid)
    while todo:
        child = todo.pop()
        if child not in links and not _is_agent(child):
            found.append(child)
            todo += children(child)
    return sorted(found)


def _is_agent(pid: int) -> bool:
    """Whether it was started by the same stub as this process: `python3 -I -S -c STUB`."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as other, open("/proc/self/cmdline", "rb") as own:
            return other.read().split(b"\0")[1:4] == own.read().split(b"\0")[1:4]
    except OSError:
        return False


def has_environment(pid: int, entry: bytes) -> bool:
    """Whether a process was started with `NAME=value` in its environment."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return entry in file.read().split(b"\0")
    except OSError:
        return False


def marked(prefix: bytes) -> list[int]:
    """Every process of this machine with an environment entry that begins so: what a dead agent left behind."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open("/proc/%s/environ" % entry, "rb") as file:
                    if any(word.startswith(prefix) for word in file.read().split(b"\0")):
                        found.append(int(entry))
            except OSError:
                continue
    return found


def signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue  # gone meanwhile
