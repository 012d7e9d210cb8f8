"""The line that tells a command has begun is taken out of its output, whatever comes before, after and in pieces."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.agent.core.preamble import KILLING_BESIDE, Preamble, announced, wrapped

TOKEN = "0123abcd"


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(1, 9))
def test_all_other_bytes_are_kept(before: bytes, after: bytes, piece: int) -> None:
    data = before + f"{TOKEN} 123\n".encode() + after
    preamble = Preamble(TOKEN)
    out = b"".join(preamble.feed(data[at : at + piece]) for at in range(0, len(data), piece)) + preamble.finish()
    assert (out, preamble.group) == (before + after, 123)


def test_it_is_found_after_whatever_a_login_prints_and_nothing_of_that_waits_for_it() -> None:
    preamble = Preamble(TOKEN)
    banner = b"welcome\n" * (1 << 14)
    assert preamble.feed(banner) == banner and preamble.feed(b"0123") == b"" and preamble.feed(b"4") == b"01234"
    assert preamble.feed(b"last words" + TOKEN.encode() + b" 1") == b"last words" and not preamble.began
    assert preamble.feed(b"2\nout") == b"out" and (preamble.began, preamble.group) == (True, 12)
    assert preamble.feed(f"{TOKEN} 3\n".encode()) == f"{TOKEN} 3\n".encode()


@pytest.mark.parametrize("said", [announced("true", TOKEN) + "\n", announced("x" * 100, TOKEN), TOKEN, f"{TOKEN} "])
def test_a_forced_command_that_quotes_what_it_was_asked_has_not_begun_it(said: str) -> None:
    for pieces in ([said], said):
        preamble = Preamble(TOKEN)
        out = b"".join(preamble.feed(piece.encode()) for piece in pieces) + preamble.finish()
        assert (out, preamble.began, preamble.group) == (said.encode(), False, None)


SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "ksh", "fish", "tcsh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_tell_that_their_command_began_and_in_which_group(shell: str, tmp_path: Path) -> None:
    pid = "echo mine $fish_pid" if shell == "fish" else "echo mine $$"
    for prefixed in (wrapped, announced):
        done = subprocess.run([shell, "-c", prefixed(pid, TOKEN)], capture_output=True, timeout=10,
                              env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
        preamble = Preamble(TOKEN)
        rest = preamble.feed(done.stdout)
        assert preamble.began and rest.startswith(b"mine ") and not done.stderr
        assert preamble.group is None if prefixed is announced else rest == b"mine %d\n" % (preamble.group or 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_else_the_same_parent_started_is_killed_from_any_shell(shell: str, tmp_path: Path) -> None:
    stubborn = 'setsid sh -c "trap : TERM; : > stubborn; while :; do sleep 0.05; done"'
    both = f'setsid sh -c ": > kind; exec sleep 7171" & {stubborn} & until [ -e kind ] && [ -e stubborn ]; do :; done'
    subprocess.run(["sh", "-c", f'{both}; "$0" -c "$1"; wait', shell, KILLING_BESIDE], timeout=30, check=True,
                   start_new_session=True, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
