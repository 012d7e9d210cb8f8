"""What a campaign runs on every machine: numbered log lines, numbered reports, barriers, until it is told to stop.

It is told by its standard input; then it says how many lines and reports there were, and ends with a code that is
its own.  All that it writes follows from its id and these numbers, so the root knows each byte that must arrive.
"""

from __future__ import annotations

import sys

BURST = 40  # lines at once


def line(machine: int, number: int) -> bytes:
    return b"%d line %d %s\n" % (machine, number, b"x" * (number * 7919 % 60))


def code(machine: int) -> int:
    return machine % 50


def main(machine: int, quorum: int, pause: float) -> int:
    """Run on the machine."""
    import os
    import select

    sys.path.insert(0, os.path.join(os.environ["FANOUT_FOLDER"], "library.zip"))
    from fanout.agent.client import Client, Refused

    client = Client()
    lines = rounds = 0
    stop = False
    while not stop:
        rounds += 1
        for _ in range(BURST if rounds % 3 == 0 else 1):
            lines += 1
            os.write(1, line(machine, lines))
        client.ask("report", f"round {rounds}", {"lines": lines})
        if rounds % 5 == 0 and quorum:
            try:
                client.ask("barrier", f"round-{rounds}", None, quorum, None, 60.0)
            except Refused:  # right if the others have been told to stop before they came here
                if not select.select([0], [], [], 5.0)[0]:
                    raise
        stop = bool(select.select([0], [], [], pause)[0])
    client.ask("report", "the end", {"lines": lines})
    os.write(1, b"end %d\n" % lines)
    return code(machine)
