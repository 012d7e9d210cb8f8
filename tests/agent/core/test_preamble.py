"""The line that tells a command has begun is taken out of its output, whatever comes before, after and in pieces."""

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from fanout.agent.core.preamble import HELD_MOST, Preamble, wrapped

TOKEN = "0123abcd"


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(1, 9))
def test_all_other_bytes_are_kept(before: bytes, after: bytes, piece: int) -> None:
    data = before + f"{TOKEN} 123\n".encode() + after
    preamble = Preamble(TOKEN)
    out = b"".join(preamble.feed(data[at : at + piece]) for at in range(0, len(data), piece)) + preamble.finish()
    assert (out, preamble.group) == (before + after, 123)


def test_without_it_output_passes_as_it_is() -> None:
    preamble = Preamble(TOKEN)
    long = b"x" * (HELD_MOST + 1)
    assert preamble.feed(long) == long and preamble.feed(b"y") == b"y" and preamble.group is None


def test_shells_name_the_group_that_their_command_runs_in() -> None:
    for shell in ("sh", "bash"):
        done = subprocess.run([shell, "-c", wrapped("echo mine $$", TOKEN)], capture_output=True, timeout=10)
        preamble = Preamble(TOKEN)
        assert preamble.feed(done.stdout) == b"mine %d\n" % (preamble.group or 0)
