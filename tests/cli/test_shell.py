"""`fanout shell`, read from a pipe and typed on a terminal."""

import fcntl
import os
import pty
import re
import select
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fanout.fleets.openssh import LoopbackSshd
from tests.sshd import home_of, running

pytestmark = pytest.mark.sshd
PATIENCE = 40.0  # s for any one thing to appear


def argv(sshd: LoopbackSshd, home: Path) -> list[str]:
    return [sys.executable, "-m", "fanout.cli", "shell", "--relays", "0", "-w", f"@{home_of(home, sshd)}"]


def test_it_keeps_the_tree_between_lines(sshd: LoopbackSshd, tmp_path: Path) -> None:
    seen = b'seen="$FANOUT_FOLDER/seen"; echo %s >> "$seen"; cat "$seen"\n'
    lines = seen % b"once" + b"!only n[1-2]\n" + seen % b"again" + b"!only n3 exit 5\n!all\nfalse\n"
    done = subprocess.run(argv(sshd, tmp_path), input=lines, capture_output=True,
                          env={**os.environ, "HOME": str(tmp_path)}, timeout=60)
    assert done.stdout.decode().splitlines() == [
        "n[1-3] (3): once", "n[1-2] (2):", "  once", "  again", "n3 [exit 5]:", "n[1-3] (3) [exit 1]:"], done.stderr


def test_a_line_that_is_no_command_costs_only_itself(sshd: LoopbackSshd, tmp_path: Path) -> None:
    done = subprocess.run(argv(sshd, tmp_path), input=b"echo \xff\necho \0\necho next\n", capture_output=True,
                          env={**os.environ, "HOME": str(tmp_path)}, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"n[1-3] (3): next\n"), done.stderr
    assert b"not UTF-8" in done.stderr and b"NUL" in done.stderr


def test_lines_begin_in_the_home_folder_and_what_is_too_long_is_cut(sshd: LoopbackSshd, tmp_path: Path) -> None:
    where, much = b"test . -ef ~ && echo home\n", b"head -c 300000 /dev/zero | tr '\\0' x\n"
    lines = where + b"cd /\n" + where + b"!only n1 " + much
    done = subprocess.run(argv(sshd, tmp_path), input=lines, capture_output=True,
                          env={**os.environ, "HOME": str(tmp_path)}, timeout=60)
    at_home, nothing, again, head, long, note = done.stdout.decode().splitlines()
    assert (at_home, nothing, again, head) == ("n[1-3] (3): home", "n[1-3] (3):", "n[1-3] (3): home", "n1:")
    assert set(long.strip()) == {"x"} and note.strip() == "(and 37.9 kB more that were not kept)"


def test_what_is_no_word_of_the_shell_is_said(sshd: LoopbackSshd, tmp_path: Path) -> None:
    done = subprocess.run(argv(sshd, tmp_path), input=b"!onyl n1\n!help\n", capture_output=True,
                          env={**os.environ, "HOME": str(tmp_path)}, timeout=60)
    assert done.stderr == b"fanout: there is no !onyl; there are !only, !all, !quit, !help\n"
    assert done.stdout.count(b"!only NAMES ") == 2


class Terminal:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode())

    def until(self, pattern: str) -> None:
        until = time.monotonic() + PATIENCE
        while not re.search(pattern, self.seen):
            assert time.monotonic() < until, f"no {pattern!r} in {self.seen[-2000:]!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    raise AssertionError(f"it ended: {self.seen[-2000:]!r}") from None
                if b"\x1b[6n" in data:  # where is the cursor?
                    os.write(self.fd, b"\x1b[1;1R")
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))


@contextmanager
def terminal(
    command: list[str], home: Path, **environment: str
) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                              preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C is for its group
                              env={**os.environ, "HOME": str(home), "TERM": "xterm", **environment}) as process:
            os.close(theirs)
            try:
                yield Terminal(ours), process
            finally:
                process.kill()
    finally:
        os.close(ours)


def test_on_a_terminal_ctrl_c_stops_the_command_and_not_the_shell(sshd: LoopbackSshd, tmp_path: Path) -> None:
    with terminal(argv(sshd, tmp_path), tmp_path) as (screen, process):
        screen.until(r"fanout \[3\]>")
        screen.type("test $FANOUT_ID = 0 || sleep 7272\r")
        screen.until(r"1 of 3 answered; Ctrl-C stops n\[2-3\]")
        screen.type("\x03")
        screen.until(r"n\[2-3\] \(2\) \[[^]]*TERM[^]]*\]")
        screen.until(r"fanout \[3\]>")
        assert not running(sshd, "7272")
        screen.type("something half \x03")
        screen.type("echo $((40 + 2)) alive\r")
        screen.until(r"n\[1-3\] \(3\): 42 alive")
        screen.type("!only n[2-3]\r")
        screen.until(r"fanout \[2\]>")
        screen.type("\x04")
        assert process.wait(timeout=PATIENCE) == 0
    history = tmp_path / ".local/state/fanout/history"
    assert "+echo $((40 + 2)) alive\n" in history.read_text() and "half" not in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_who_is_waited_for_is_seen_while_it_connects_and_news_does_not_mix_with_it(
    sshd: LoopbackSshd, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        command = [*argv(sshd, tmp_path), "-t", "20s"]
        with (tmp_path / "hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1:{mute.getsockname()[1]} name=mute\n")
        with terminal(command, tmp_path) as (screen, process):
            screen.until("3 of 4 machines connected")
            mute.close()
            screen.until(r"fanout \[3\]>")
            assert re.search(r"[\r\n]fanout: mute: ", screen.seen), screen.seen
            screen.type("\x04")
            assert process.wait(timeout=PATIENCE) == 0


def test_the_history_is_where_other_state_is_and_without_a_place_for_it_there_is_a_prompt(
    sshd: LoopbackSshd, tmp_path: Path
) -> None:
    command = argv(sshd, tmp_path)
    for place, said in (tmp_path / "state", ""), (Path("/dev/null"), r"not kept in /dev/null/fanout/history: Not a.*"):
        with terminal(command, tmp_path, XDG_STATE_HOME=str(place)) as (screen, process):
            screen.until(said + r"(?s:.*)fanout \[3\]>")
            screen.type("echo $((40 + 2)) alive\r")
            screen.until(r"42 alive(?s:.*)fanout \[3\]>")
            screen.type("\x04")
            assert process.wait(timeout=PATIENCE) == 0
    assert "+echo $((40 + 2)) alive\n" in (tmp_path / "state/fanout/history").read_text()
