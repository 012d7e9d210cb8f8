"""The user data of a run's machines: `userdata.sh`, with what it needs to know assigned before it."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from importlib import resources

MOST = 16 << 10  # bytes that EC2 takes
# A boothook runs before sshd starts, and at every boot; a plain script late, and once.
# https://docs.cloud-init.io/en/latest/explanation/format/cloud-boothook.html
HEAD = "#cloud-boothook\n#!/bin/sh\n"


@dataclass(frozen=True)
class Prepared:
    """What machines are prepared with; durations in seconds, keys as OpenSSH has them in files."""

    run: str
    user: str
    expires: float
    """Seconds since the epoch."""
    ttl: float
    idle: float
    login: str
    ca: str
    ca_public: str

    def text(self) -> str:
        values: dict[str, str | int] = {
            "RUN": self.run,
            "LOGIN_USER": self.user,
            "EXPIRES": math.ceil(self.expires),
            "TTL": math.ceil(self.ttl),
            "IDLE": math.ceil(self.idle),
            "LOGIN": self.login,
            "CA": self.ca.strip(),
            "CA_PUBLIC": self.ca_public,
        }
        assigned = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())
        script = resources.files(__package__).joinpath("userdata.sh").read_text()
        text = HEAD + assigned + script
        assert len(text.encode()) <= MOST
        return text


def mark(run: str) -> str:
    """What sshd's banner ends with once a machine of the run is prepared."""
    return f"fanout-{run}"
