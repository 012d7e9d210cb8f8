"""The lab's network: a switch in a namespace of its own, and one cable from it to the root machine.

A namespace of its own keeps the switch and its many cables away from the machine's firewall, device lists and
network managers.  Names are derived from the lab's folder (`tag`), so they can be removed without any record.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import subprocess
from pathlib import Path

from fanout.errors import FleetError, UsageError
from fanout.fleets.openssh import find

RANGE = ipaddress.IPv4Network("10.213.0.0/16")
"""Where labs live: a range that few networks use."""
PREFIX = 22
MAX_HOSTS = 1000
"""A bridge has 1,023 ports, and a /22 has 1,022 addresses."""
BRIDGE = ("stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
"""Forward at once, and everything."""
TIMEOUT = 30.0  # s; for one ip command, which takes milliseconds

UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


def tag(folder: Path) -> str:
    """The name of the lab's namespace, of its cable to the root, and of its cgroups: unique to the folder."""
    return "fo-" + hashlib.sha256(str(folder).encode()).hexdigest()[:8]


def shape(rate: str | None) -> list[str]:
    """tc's words for a link speed such as `100mbit`; none for None."""
    if rate is None:
        return []
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?bit)", rate)
    if match is None or not float(match[1]):
        raise UsageError(f"rate={rate} is not a link speed: write it like 100mbit (bit, kbit, mbit, gbit)")
    per_second = int(float(match[1]) * UNITS[match[2]])
    # The bucket holds what passes between two ticks of the slowest clock (250 Hz), and one large packet.
    burst = max(16384, per_second // 8 // 250)
    return ["tbf", "rate", f"{per_second}bit", "burst", str(burst), "latency", "100ms"]


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run iproute2; FleetError with what it says when it fails and `check`."""
    command = [find("ip", "iproute2"), *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if check and done.returncode:
        raise FleetError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done


def make(folder: Path) -> ipaddress.IPv4Network:
    """Make the switch and its cable to the root machine, and take a network that nothing here uses."""
    name = tag(folder)
    ip("netns", "add", name)
    ip("link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", name)
    inside = ("-n", name, "link")
    ip(*inside, "add", "switch", "type", "bridge", *BRIDGE)
    # A fixed address: a bridge otherwise takes its lowest port's, which changes with every cable.
    ip(*inside, "set", "switch", "address", "02:00:00:00:00:01", "addrgenmode", "none", "up")
    ip(*inside, "set", "uplink", "master", "switch", "addrgenmode", "none", "up")
    ip("link", "set", name, "addrgenmode", "none", "up")
    networks = list(RANGE.subnets(new_prefix=PREFIX))
    first = int(name[3:], 16)
    used = [ipaddress.IPv4Network(route) for route in routes()]
    for i in range(len(networks)):
        network = networks[(first + i) % len(networks)]
        gateway = str(network[1])
        if any(network.overlaps(other) for other in used):
            continue
        ip("address", "add", f"{gateway}/32", "dev", name)
        # The kernel refuses a second equal route: that is what makes the network ours alone.
        if ip("route", "add", str(network), "dev", name, "src", gateway, check=False).returncode == 0:
            return network
        ip("address", "delete", f"{gateway}/32", "dev", name)
    raise FleetError(f"no network in {RANGE} is free on this machine: take other labs down (fanout lab ls)")


def routes() -> list[str]:
    """The IPv4 networks that this machine has routes to, without the default route."""
    words = [line.split() for line in ip("-4", "route", "show", "table", "main").stdout.splitlines()]
    kinds = {"unreachable", "blackhole", "prohibit", "throw"}
    found = [line[1] if line[0] in kinds else line[0] for line in words if line]
    return [word for word in found if word != "default"]


def port(number: int) -> str:
    """The switch's end of the cable of host `number` (1, 2, ...)."""
    return f"port{number}"


def set_link(folder: Path, number: int, up: bool) -> None:
    ip("-n", tag(folder), "link", "set", port(number), "up" if up else "down")


def remove(folder: Path) -> None:
    """Remove what `make` made, all or part of it; idempotent."""
    name = tag(folder)
    if Path("/sys/class/net", name).exists():
        ip("link", "delete", name)
    if Path("/run/netns", name).exists():
        ip("netns", "delete", name)
