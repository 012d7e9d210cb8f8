"""The OpenSSH client as tests use it: a pinned host key, no user configuration, a deadline."""

import subprocess
from pathlib import Path

TIMEOUT = 30.0  # s


def ssh(
    folder: Path, address: str, port: int, user: str, key: Path, host_keys: tuple[str, ...], *command: str
) -> subprocess.CompletedProcess[str]:
    """Run a command over SSH; `folder` takes the known_hosts file."""
    known = folder / "known_hosts"
    known.write_text("".join(f"* {host_key}\n" for host_key in host_keys))
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": "/dev/null",
        "KexAlgorithms": "curve25519-sha256",
        "ConnectTimeout": "10",
    }
    arguments = [f"-o{name}={value}" for name, value in options.items()]
    return subprocess.run(
        ["ssh", "-F", "none", *arguments, "-i", str(key), "-p", str(port), f"{user}@{address}", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
