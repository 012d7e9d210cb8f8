"""The root's own connections: SSH by asyncssh, or a child process for local machines.  The only user of asyncssh
besides `ssh_options`, which has its arguments.

A connection carries bytes: what arrives goes to a Receiver, `write` takes what may be sent while `writable`.
Foreign exceptions are turned into `Unreached` here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import socket
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from fanout.agent.core import diagnose
from fanout.agent.loop import read
from fanout.errors import UsageError
from fanout.fleets.base import Host
from fanout.root.known_hosts import broken_line
from fanout.root.settings import Settings
from fanout.root.ssh_options import Shared, UnreadableHostKey, arguments

if TYPE_CHECKING:
    from fanout.root.ssh_library import asyncssh

READ_SIZE = 256 << 10
STDERR_MOST = 4 << 10
CLOSING = 6.0  # s that an agent gets to end once its input is closed; a relay gives its children 4
SIGNALLED = 128  # and the signal's number: the exit code of what a signal ended, as in a shell
SIGNALS = (("TERM", 0.3), ("KILL", 1.0))  # what ends a session's processes, and s for each to do so
LIMITS = (64 << 10, 16 << 10)  # bytes in asyncssh's buffer at which writing pauses and goes on


class Unreached(Exception):
    """No connection came about: outcome, reason, and whether it may pass by itself."""

    def __init__(self, outcome: str, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.again = outcome, reason, again


class Receiver(Protocol):
    """Who is told what a connection does; on the event loop."""

    def received(self, data: bytes) -> None: ...

    def writable_again(self) -> None: ...

    def ended(self, code: int, stderr: str) -> None:
        """The remote program, or the connection, has ended.  Called once."""


TCP_INFO = getattr(socket, "TCP_INFO", 0)  # Linux: tcp(7); the first bytes are state, ca_state, retransmits
ESTABLISHED = 1


class Connection(Protocol):
    @property
    def writable(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def acknowledges(self) -> bool:
        """The other machine is known to take what it is sent, whatever its programs do."""

    async def also(self, command: str, wait: float) -> bool:
        """Run another command there: whether it succeeds within `wait` seconds."""

    async def close(self, wait: float = CLOSING) -> None:
        """End it; the other side gets `wait` seconds to do so itself.  Bounded in time, idempotent."""


class LocalConnection:
    """A child process on this machine."""

    def __init__(self, argv: list[str], receiver: Receiver) -> None:
        """OSError when it cannot be started."""
        self.writable = True
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out, self._err = (
            self._process.stdin.fileno(), self._process.stdout.fileno(), self._process.stderr.fileno())
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
        self._pending = bytearray()
        self._stderr = b""
        self._over = asyncio.Event()
        self._loop.add_reader(self._out, self._readable)
        self._loop.add_reader(self._err, self._complains)

    def write(self, data: bytes) -> None:
        self._pending += data
        self._flush()

    def _flush(self) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            return
        try:
            while self._pending:
                del self._pending[: os.write(self._in, self._pending[:READ_SIZE])]
        except BlockingIOError:
            if self.writable:
                self.writable = False
                self._loop.add_writer(self._in, self._flush)
            return
        except OSError:  # reading tells
            self._pending.clear()
        if not self.writable:
            self.writable = True
            self._loop.remove_writer(self._in)
            self._receiver.writable_again()

    def _readable(self) -> None:
        data = read(self._out, READ_SIZE)
        if data:
            self._receiver.received(data)
        elif data is not None:
            self._loop.remove_reader(self._out)
            self._loop.create_task(self._reap())

    def _complains(self) -> None:
        data = read(self._err, READ_SIZE)
        if data:
            self._stderr = (self._stderr + data)[-STDERR_MOST:]
        elif data is not None:
            self._loop.remove_reader(self._err)

    async def _reap(self) -> None:
        """Its output has ended: it ends within a moment, or is made to."""
        for wait in (0.0, 0.002, 0.01, 0.05, 0.2, 0.5, 1.0):
            await asyncio.sleep(wait)
            if self._process.poll() is not None:
                break
        else:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._complains()
        self._loop.remove_reader(self._err)
        if not self.writable:
            self._loop.remove_writer(self._in)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._over.set()
        self._receiver.ended(self._process.returncode, self._stderr.decode("utf-8", "replace"))

    def acknowledges(self) -> bool:
        return self._process.poll() is None

    async def also(self, command: str, wait: float) -> bool:
        process = await asyncio.create_subprocess_exec("sh", "-c", command, stdin=subprocess.DEVNULL)
        try:
            return await asyncio.wait_for(process.wait(), wait) == 0
        except TimeoutError:
            process.kill()
            return False

    async def close(self, wait: float = CLOSING) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            if not self.writable:
                self._loop.remove_writer(self._in)
                self.writable = True
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            await asyncio.wait_for(self._over.wait(), wait)
        except TimeoutError:
            self._process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 2.0)
        except asyncio.CancelledError:
            self._process.terminate()  # not killed: what an agent has started would be nobody's
            raise


class SSHConnection:
    """One SSH connection with one session on it."""

    def __init__(self, connection: asyncssh.SSHClientConnection, channel: Any, session: _Session) -> None:
        self._connection = connection
        self._channel = channel
        self._session = session

    @property
    def writable(self) -> bool:
        return self._session.writable

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a broken one is told by `ended`
            self._channel.write(data)

    def write_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.write_eof()

    async def also(self, command: str, wait: float) -> bool:
        from fanout.root.ssh_library import asyncssh

        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(wait):
                return (await self._connection.run(command, stdin=asyncssh.DEVNULL)).exit_status == 0
        return False

    async def kill(self) -> bool:
        """Ask sshd to end the process group of the session: whether the session is over then.

        Needs no shell there.  OpenSSH does it since 7.9, for root only since it separates privileges there too (after
        9.7), never for a forced command; and it does not say that it will not.
        """
        for name, wait in SIGNALS:
            with contextlib.suppress(OSError):
                self._channel.send_signal(name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._session.over.wait(), wait)
                return True
        return False

    def acknowledges(self) -> bool:
        sock = self._connection.get_extra_info("socket")
        if sock is None or self._connection.get_extra_info("remote_peername") is not None or not TCP_INFO:
            return False  # by a proxy command, or through another machine, of which it would tell
        try:
            state, _, retransmitted = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 3)
        except OSError:  # closed, and not told of yet
            return False
        return bool(state == ESTABLISHED and retransmitted == 0)

    def part(self) -> None:
        """Close it without waiting: its session is over."""
        self._connection.close()

    async def close(self, wait: float = CLOSING) -> None:
        self.write_eof()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._session.over.wait(), wait)
        self._connection.close()
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(self._connection.wait_closed(), 2.0)
        self._connection.abort()


class _Session:
    """What asyncssh calls; written out because asyncssh is only imported where SSH is used."""

    def __init__(self, receiver: Receiver, on_stderr: Callable[[bytes], None] | None) -> None:
        self.writable = True
        self.over = asyncio.Event()
        self._receiver = receiver
        self._on_stderr = on_stderr
        self._stderr = b""
        self._code = -1

    def connection_made(self, chan: Any) -> None:
        chan.set_write_buffer_limits(*LIMITS)

    def session_started(self) -> None: ...

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self._receiver.received(data)
        elif self._on_stderr is not None:
            self._on_stderr(data)
        else:
            self._stderr = (self._stderr + data)[-STDERR_MOST:]

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._receiver.writable_again()

    def exit_status_received(self, status: int) -> None:
        self._code = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._code = SIGNALLED + getattr(signals, f"SIG{signal}", 0)
        self._stderr += f"ended by SIG{signal}".encode()

    def connection_lost(self, exc: Exception | None) -> None:
        said = self._stderr.decode("utf-8", "replace")
        if exc is not None and not said:
            said = str(exc) or type(exc).__name__
        if not self.over.is_set():
            self.over.set()
            self._receiver.ended(self._code, said)


def open_local(argv: list[str], receiver: Receiver) -> LocalConnection:
    try:
        return LocalConnection(argv, receiver)
    except OSError as error:
        if error.filename:
            raise Unreached(diagnose.NO_PYTHON, f"{argv[0]} cannot be started: {error.strerror}", False) from None
        raise Unreached(diagnose.FAILED, f"the root cannot start {argv[0]}: {error.strerror}", False) from None


async def open_ssh(
    host: Host, command: str, settings: Settings, receiver: Receiver, shared: Shared | None = None,
    on_stderr: Callable[[bytes], None] | None = None,
) -> SSHConnection:
    """Connect, log in and start `command`.  Raises Unreached.

    `shared`: where many are opened.  `on_stderr`: gets what the command writes there; without, its end is kept.
    """
    from fanout.root.ssh_library import asyncssh

    try:
        options = shared.options(host) if shared is not None else None
        if options is None:
            connection = await asyncssh.connect(host.address, **arguments(host, settings))
        else:
            connection = await _connect(options)
    except (OSError, asyncssh.Error, ValueError) as error:
        raise _unreached(error, host) from None
    session = _Session(receiver, on_stderr)
    try:
        channel, _ = await connection.create_session(lambda: session, command, encoding=None)  # type: ignore[arg-type, return-value]
    except (OSError, asyncssh.Error) as error:
        connection.abort()
        raise _unreached(error, host) from None
    except asyncio.CancelledError:
        connection.abort()
        raise
    return SSHConnection(connection, channel, session)


async def _connect(options: asyncssh.SSHClientConnectionOptions) -> asyncssh.SSHClientConnection:
    """What `asyncssh.connect` does with options that are made already: it would make them anew, in a thread."""
    from fanout.root.ssh_library import asyncssh

    loop = asyncio.get_running_loop()
    options.waiter = loop.create_future()
    _, connection = await loop.create_connection(
        lambda: asyncssh.SSHClientConnection(loop, options, wait="auth"),
        options.host, options.port, family=options.family, local_addr=options.local_addr)
    try:
        await options.waiter
    except BaseException:
        connection.abort()
        raise
    return connection


def check_algorithms(kex: str | None, cipher: str | None) -> None:
    """UsageError for a key exchange or cipher (or several, with commas) that there is not; None is whatever is best."""
    if kex is None and cipher is None:
        return  # asyncssh is slow to import
    from fanout.root.ssh_library import asyncssh

    kexes, ciphers = asyncssh.kex, asyncssh.encryption
    for option, given, known, usual in (
        ("--kex", kex, kexes.get_kex_algs(), kexes.get_default_kex_algs()),
        ("--cipher", cipher, ciphers.get_encryption_algs(), ciphers.get_default_encryption_algs()),
    ):
        wrong = [name for name in given.split(",") if name.encode() not in known] if given is not None else []
        if wrong:
            names = ", ".join(name.decode() for name in usual if not name.startswith(b"gss-"))
            raise UsageError(f"{option} {given}: there is no {wrong[0]!r}; there are {names}")


def _unreached(error: Exception, host: Host) -> Unreached:
    from fanout.root.ssh_library import asyncssh

    said = str(error) or type(error).__name__
    if isinstance(error, asyncssh.PermissionDenied):
        who = f" as {host.user}" if host.user else ""
        return Unreached(
            diagnose.AUTH_FAILED,
            f"the login{who} was refused: check user, key and the machine's authorized_keys ({said})", False)
    if isinstance(error, asyncssh.HostKeyNotVerifiable) and (host.host_keys or host.host_ca):
        return Unreached(
            diagnose.HOST_KEY,
            "its host key is not one that its fleet vouches for: another machine may answer there; where it was pinned "
            "by hand, compare it with ssh-keyscan's and correct it", False)
    if isinstance(error, UnreadableHostKey):
        return Unreached(
            diagnose.HOST_KEY,
            f"the host key that it is pinned to cannot be used: {said}; compare host_key= with what ssh-keyscan shows",
            False)
    if isinstance(error, asyncssh.HostKeyNotVerifiable) and (where := broken_line(host.address, host.port or 22)):
        return Unreached(
            diagnose.HOST_KEY,
            f"its host key in {where}, is no whole key: remove that line, and add it again with ssh-keyscan, after"
            " comparing it with the machine's", False)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return Unreached(
            diagnose.HOST_KEY,
            "its host key is not in known_hosts, or not the one there: compare it with the machine's, then add it "
            "with ssh-keyscan (after ssh-keygen -R, where an old one is there)", False)
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return Unreached(diagnose.UNREACHABLE, f"no algorithm in common: set --kex or --cipher ({said})", False)
    if isinstance(error, ValueError) and "known hosts" in said:  # so it is called where asyncssh itself reads the file
        return Unreached(diagnose.HOST_KEY, f"a line of known_hosts is to be corrected, or removed: {said}", False)
    if isinstance(error, asyncssh.KeyImportError | asyncssh.ConfigParseError | FileNotFoundError | ValueError):
        return Unreached(diagnose.AUTH_FAILED, f"the SSH configuration or key cannot be used: {said}", False)
    if isinstance(error, socket.gaierror):
        return Unreached(diagnose.UNREACHABLE, f"the name {host.address} does not resolve", False)
    if isinstance(error, ConnectionRefusedError):
        return Unreached(diagnose.UNREACHABLE, "nothing listens on its SSH port: is sshd running?", True)
    if isinstance(error, asyncssh.ChannelOpenError):
        return Unreached(diagnose.UNREACHABLE, f"sshd refused a session (MaxSessions?): {said}", True)
    if isinstance(error, asyncssh.Error | ConnectionError):
        return Unreached(diagnose.UNREACHABLE, f"sshd dropped the connection (MaxStartups?): {said}", True)
    return Unreached(diagnose.UNREACHABLE, f"it cannot be reached: {said}", True)
