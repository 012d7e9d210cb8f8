"""The bootstrap: the greeting is found in whatever comes, and what follows it is handed on whole."""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core.bootstrap import BANNER_MOST, GREETING, Bootstrap, Payload, opening, stub


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[i:j] for i, j in pairwise(at)]


BANNER = st.binary(max_size=200) | st.lists(
    st.sampled_from([b"\n", b"fanout-stage0", b"\nfanout-stage0", b" ", b"Welcome to Debian\r\n"]), max_size=10
).map(b"".join)


@settings(deadline=None)
@given(
    banner=BANNER.filter(lambda banner: GREETING not in b"\n" + banner),
    how=st.sampled_from([b"new", b"attached"]),
    rest=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_any_banner_in_any_pieces_is_passed_over(banner: bytes, how: bytes, rest: bytes, cuts: list[int]) -> None:
    bootstrap, after = Bootstrap(), None
    for piece in pieces(banner + GREETING + b"a70d0d0a 3.12.1 " + how + b"\n" + rest, cuts):
        if after is None:
            after = bootstrap.feed(piece)
        else:
            after += piece
    assert after == rest
    assert bootstrap.banner == banner
    assert (bootstrap.magic, bootstrap.version) == ("a70d0d0a", "3.12.1")
    assert bootstrap.attached == (how == b"attached")


def test_without_a_greeting_the_noise_is_kept_and_bounded() -> None:
    bootstrap = Bootstrap()
    assert bootstrap.feed(b"This account is ") is None
    assert bootstrap.feed(b"disabled.\n") is None
    assert bootstrap.noise() == b"This account is disabled.\n"
    with pytest.raises(ValueError, match="no agent started"):
        bootstrap.feed(bytes(BANNER_MOST))


def test_a_greeting_without_an_end_is_bounded() -> None:
    bootstrap = Bootstrap()
    assert bootstrap.feed(GREETING) is None
    with pytest.raises(ValueError, match="no agent started"):
        bootstrap.feed(b"x" * BANNER_MOST)


def test_an_old_python_is_told() -> None:
    with pytest.raises(ValueError, match=r"3\.6\.15; 3\.8 or newer"):
        Bootstrap().feed(GREETING[1:] + b"old 3.6.15\n")


@pytest.mark.parametrize("words", [b"", b"a", b"a b", b"a b c d", b"\xff \xfe"])
def test_a_greeting_of_other_words_is_refused(words: bytes) -> None:
    with pytest.raises(ValueError, match="greeted with"):
        Bootstrap().feed(GREETING + words + b"\n")


@pytest.mark.parametrize(("magic", "relay", "code", "source"), [
    ("aa", False, b"CODE", b""), ("aa", True, b"CODE", b"SOURCE"),
    ("bb", False, b"", b"SOURCE"), ("bb", True, b"", b"SOURCE"),
])
def test_a_machine_is_sent_what_its_python_can_use(magic: str, relay: bool, code: bytes, source: bytes) -> None:
    payload = Payload("build", b"stage", b"SOURCE", {"aa": b"CODE"})
    head, _, body = payload.offer(magic, relay).partition(b"\n")
    assert body == code + source
    sizes = head.decode().split()
    assert sizes[::2] == [str(len(code)), str(len(source))]
    assert sizes[1::2] == [blake2b(part, digest_size=32).hexdigest() for part in (code, source)]


def test_the_stub_is_one_line_that_no_shell_touches() -> None:
    text = stub(b"print(1)")
    assert not set(text) & set("'\n!\\$`")
    assert "8" in text


def test_the_line_after_stage_0_is_one_line_whatever_the_folder() -> None:
    assert opening(b"stage", None) == b"stagestart\n"
    folder = "/tmp/a b\n\u00e9"
    line = opening(b"stage", folder)
    assert line.count(b"\n") == 1
    assert bytes.fromhex(line[len(b"stageattach ") :].decode()).decode() == folder
