"""A broker as a process of its own, as `fanout broker serve` starts it: to be killed, restarted, asked by TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.broker.serving import Client
from tests.patience import PATIENCE

PROJECT = Path(__file__).parents[2]


def fanout(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fanout.cli", *arguments], env=_environment(environment), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60.0, check=False,
    )  # fmt: skip


class Process:
    def __init__(self, store: str, *arguments: str, **environment: str) -> None:
        """Serves when this returns."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fanout.cli", "broker", "serve", "--store", store, "--listen", "127.0.0.1:0",
             *arguments],
            env=_environment(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._process.stdout and self._process.stderr
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        first = self._process.stdout.readline()
        watchdog.cancel()
        assert first.startswith("listening on "), first + (self._process.stderr.read() if not first else "")
        self.url = first.split()[-1]
        self.said: list[str] = []
        self._reader = threading.Thread(target=lambda stream: self.said.extend(stream), args=(self._process.stderr,))
        self._reader.start()

    def client(self, token: str) -> Client:
        return Client(self.url, token)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """What it said."""
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        return "".join(self.said)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process.poll() is None:
            self.end()


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fanout test broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", **more}
