"""Mitogen's contexts, which are what its agents are: one made on every host, then commands on all of them.

A program of its own, `python -m fanout.bench.contexts CONFIG HOSTS [--via N]`: it needs the Python package mitogen,
which fanout does not.  CONFIG is an ssh configuration, HOSTS a file with an address a line.  Prints JSON: seconds by
the names of `trial.py`.

As fast as Mitogen offers: no compression, connections from as many threads as pay, commands sent to all contexts
before the first answer is awaited, and nothing imported on the hosts for them.  With `--via`, the first N contexts
are the gateways of the others; each makes one connection at a time, because Mitogen does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from fanout.bench.figure import median

PYTHON = "/usr/bin/python3"
AT_ONCE = 32  # with 8 to 64 it took as long
PATIENCE = 120.0  # s for one context, and for one command


def cpu() -> float:
    """CPU seconds of this process and its ssh processes, which run as long as the contexts do."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile has no children any more
            for child in (task / "children").read_text().split():
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def contexts(router: Any, config: Path, hosts: list[str], via: int, at_once: int) -> list[Any]:
    """One on each host, ready; mitogen.core.StreamError when one does not come about."""

    def connect(host: str, **gateway: Any) -> Any:
        return router.ssh(hostname=host, python_path=PYTHON, ssh_args=["-F", str(config)], compression=False,
                          keepalive_enabled=False, connect_timeout=PATIENCE, **gateway)

    with ThreadPoolExecutor(at_once) as pool:
        if not via:
            return list(pool.map(connect, hosts))
        gateways = list(pool.map(connect, hosts[:via]))
        jobs = [pool.submit(partial(connect, host, via=gateways[i % via])) for i, host in enumerate(hosts[via:])]
        return gateways + [job.result() for job in jobs]


def command(everyone: list[Any]) -> float:
    """Seconds that `true` on all takes; RuntimeError where it fails."""
    began = time.monotonic()
    answers = [context.call_async(os.spawnvp, os.P_WAIT, "true", ["true"]) for context in everyone]
    for answer in answers:
        if code := answer.get(timeout=PATIENCE).unpickle():
            raise RuntimeError(f"true: exit {code}")
    return time.monotonic() - began


def measure(config: Path, hosts: list[str], via: int, at_once: int, commands: int) -> dict[str, float]:
    import mitogen.master

    broker = mitogen.master.Broker()
    try:
        found: dict[str, float] = {}
        began, spent = time.monotonic(), cpu()
        everyone = contexts(mitogen.master.Router(broker), config, hosts, via, at_once)
        found["ready"], found["connect_cpu"] = time.monotonic() - began, cpu() - spent
        found["first_command"] = command(everyone)
        spent = cpu()
        taken = [command(everyone) for _ in range(commands)]
        if taken:
            found["command"], found["command_cpu"] = median(taken), (cpu() - spent) / commands
        return found
    finally:
        broker.shutdown()
        broker.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="fanout.bench.contexts", description="Mitogen's contexts on hosts.")
    parser.add_argument("config", type=Path, help="an ssh configuration")
    parser.add_argument("hosts", type=Path, help="a file with an address a line")
    parser.add_argument("--via", type=int, default=0, help="so many of the hosts are gateways of the others")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="connections under way; default %(default)s")
    parser.add_argument("--commands", type=int, default=5, help="later commands, of which the median is told")
    options = parser.parse_args()
    hosts = options.hosts.read_text().split()
    print(json.dumps(measure(options.config, hosts, options.via, options.at_once, options.commands)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
