"""Instances as hosts of a lab: each boots when it is launched, and runs its user data as root with `sh`.

As cloud-init does it, a `#cloud-boothook` runs before sshd starts, and a plain script after that: sshd is up then,
with host keys that the machine has made for itself, until `systemctl restart ssh`.  `shutdown` and `poweroff` switch
the host off.  The time since its boot, in /proc/uptime and for the timers of `shutdown -P +30`, stands still until
`pass_time` moves it on.

All hosts are made at once, and wait without power until an instance is one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fanout.errors import FleetError
from fanout.fleets.lab import Lab, LabHost
from fanout.fleets.openssh import wait_gone

BOOT_TIMEOUT = 20.0  # s; for a host that is switched on to wait for power no more, and before that to wait for it

INIT = """
mkdir /run/cloud && mkfifo -m 600 /run/cloud/power
read -r on < /run/cloud/power
mount --bind /run/cloud/uptime /proc/uptime
trap 'exit 0' TERM
echo "ubuntu:x:64000:64000::/home/ubuntu:/bin/sh" >> /etc/passwd
echo "ubuntu:*:19000:0:99999:7:::" >> /etc/shadow
mkdir -p /home/ubuntu/.ssh && chown -R 64000:64000 /home/ubuntu && chmod 700 /home/ubuntu/.ssh
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
read -r first < /run/cloud/user-data
[ "$first" = "#cloud-boothook" ] || systemctl start ssh
sh /run/cloud/user-data < /dev/null > /var/log/cloud-init-output.log 2>&1 &
wait $!
systemctl start ssh
while :; do wait; sleep 1000 & wait $!; done
"""

POWEROFF = """#!/bin/sh
kill -TERM 1
"""

SHUTDOWN = """#!/bin/sh
# shutdown(8): -c, or when: now, +MINUTES; the last word counts.
minutes=1
for word; do
    case $word in
        -c) minutes= ;;
        now) minutes=0 ;;
        +[0-9]*|[0-9]*) minutes=${word#+}; break ;;
    esac
done
if [ -f /run/cloud/timer ]; then kill -- "-$(cat /run/cloud/timer)"; rm /run/cloud/timer; fi
[ -n "$minutes" ] || exit 0
[ "$minutes" -gt 0 ] || exec poweroff
read -r now rest < /proc/uptime
wait='while read -r now rest < /proc/uptime && [ "${now%%.*}" -lt "$0" ]; do sleep 0.2; done; poweroff'
setsid sh -c "$wait" $((${now%%.*} + 60 * minutes)) < /dev/null > /dev/null 2>&1 &
echo $! > /run/cloud/timer
"""

SYSTEMCTL = """#!/bin/sh
# ssh is the one service here; any other is as good as done.
running() { kill -0 "$(cat /run/cloud/sshd.pid)"; } 2> /dev/null
start() {  # it writes its number down once it listens, which is after its parent has ended
    /usr/sbin/sshd -o UsePAM=no -o PidFile=/run/cloud/sshd.pid -o SetEnv=SHLVL=2 -E /run/cloud/sshd.log || exit
    until running; do sleep 0.01; done
}
stop() {
    if running; then kill "$(cat /run/cloud/sshd.pid)"; fi
    while running; do sleep 0.01; done
}
case "$*" in
    *poweroff*|*halt*) exec poweroff ;;
    *" ssh"*) ;;
    *) exit 0 ;;
esac
case "$*" in
    *try-*) if running; then stop; start; fi ;;
    *restart*|*reload*) stop; start ;;
    *stop*) stop ;;
    *start*) running || start ;;
esac
"""


STUBS = {"usr/sbin/shutdown": SHUTDOWN, "usr/sbin/poweroff": POWEROFF, "usr/bin/systemctl": SYSTEMCTL}


class LabMachines:
    """A context manager; `start`, `runs` and `end` are for the cloud."""

    def __init__(self, machines: int) -> None:
        self.alter: Callable[[int, bytes], bytes] = lambda number, user_data: user_data
        """What machine 1, 2, 3 ... runs in place of its user data."""
        self.held: set[int] = set()
        """The numbers of machines that are not switched on when they are launched, but by `power_on`."""
        self.hosts: dict[str, LabHost] = {}
        """All that were switched on, by address."""
        self._machines = machines
        self._uptime = 1
        self._stack = ExitStack()

    def __enter__(self) -> LabMachines:
        init = ["/bin/sh", "-c", INIT]
        self.lab = self._stack.enter_context(Lab.up(self._machines, init=init, isolated_hosts=True))
        self._spare = list(self.lab.hosts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, user_data: bytes) -> str:
        host = self._spare.pop(0)
        self.hosts[host.address] = host
        root = Path(f"/proc/{host.pid}/root")
        power = root / "run/cloud/power"
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not power.is_fifo():
            assert time.monotonic() < deadline, f"{host.name} does not wait for power"
            time.sleep(0.005)  # nothing says when a host's first process has come so far
        for path, text in STUBS.items():
            (root / path).unlink(missing_ok=True)
            (root / path).write_text(text)
            (root / path).chmod(0o755)
        (root / "run/cloud/uptime").write_bytes(self._told())
        (root / "run/cloud/user-data").write_bytes(self.alter(len(self.hosts), user_data))
        if len(self.hosts) not in self.held:
            power.write_text("on\n")
        return host.address

    def power_on(self, number: int) -> None:
        """A machine that was held back boots now."""
        self.held.remove(number)
        host = list(self.hosts.values())[number - 1]
        Path(f"/proc/{host.pid}/root/run/cloud/power").write_text("on\n")

    def pass_time(self, seconds: int) -> None:
        """All machines have been up for so much longer."""
        self._uptime += seconds
        for address, host in self.hosts.items():
            if self.runs(address):
                with open(f"/proc/{host.pid}/root/run/cloud/uptime", "r+b") as file:
                    file.write(self._told())  # of one length, so that nobody reads half of it

    def _told(self) -> bytes:
        return f"{self._uptime}.00 0.00".ljust(40).encode() + b"\n"

    def runs(self, address: str) -> bool:
        return bool(wait_gone([self.hosts[address].pid], 0.0))

    def end(self, address: str) -> None:
        try:
            self.lab.power_cut(self.hosts[address])
        except FleetError:  # there is no cable to a host that has switched itself off
            if self.runs(address):
                raise

    def read(self, address: str, path: str) -> str:
        """A file of the machine's, while it runs."""
        return Path(f"/proc/{self.hosts[address].pid}/root/{path}").read_text(errors="replace")
