"""Streams of files: what is packed is opened again, in any pieces; and what lies is refused, whatever it is."""

from __future__ import annotations

import contextlib
import zlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.agent.core import codec, parcels
from fanout.agent.core.codec import ProtocolError
from fanout.root.parcels import Opener

ENTRY = st.one_of(
    st.tuples(st.just(parcels.WHOLE), st.binary(), st.integers(0, 0o7777), st.binary(max_size=5000), st.binary()),
    st.tuples(st.just(parcels.OPEN), st.binary(), st.integers(0, 0o7777), *[st.integers(0, 1 << 62)] * 2),
    st.tuples(st.just(parcels.DATA), st.integers(0, 1 << 62), st.just(b"compresses well " * 500)),
    st.tuples(st.just(parcels.SHUT), st.binary(), st.text()),
    st.tuples(st.just(parcels.LEFT), st.binary(), st.text(), st.integers(0, 1 << 62)),
    st.tuples(st.just(parcels.END)),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(ENTRY, max_size=5), max_size=5), st.integers())
def test_what_is_packed_is_opened_again_in_any_pieces(blocks: list[list[tuple]], seed: int) -> None:
    packer, opener, random = parcels.Packer(), Opener(), Random(seed)
    stream = b"".join(packer.pack([list(entry) for entry in block]) for block in blocks)
    found, at = [], 0
    while at < len(stream):
        size = random.randrange(1, 3000)
        found += opener.feed(stream[at : at + size])
        at += size
    assert found == [entry for block in blocks for entry in block]


def test_what_does_not_shrink_goes_as_it_is_and_is_not_tried_each_time() -> None:
    packer, noise = parcels.Packer(), Random(1).randbytes(20_000)
    sizes = [len(packer.pack([[parcels.TEXT, text]])) for text in (b"a" * 20_000, noise, b"a" * 20_000)]
    assert sizes[0] < 200
    assert sizes[1] > 20_000
    assert sizes[2] > 20_000


def block(body: bytes, packing: int = parcels.RAW) -> bytes:
    return parcels.HEAD.pack(len(body), packing) + body


@pytest.mark.parametrize("lie", [
    parcels.HEAD.pack(1 << 30, parcels.RAW),
    block(b"", 7),
    block(b"no zlib", parcels.ZLIB),
    block(zlib.compress(bytes(10 << 20)), parcels.ZLIB),
    block(zlib.compress(b"\x90") + b"more", parcels.ZLIB),
    block(zlib.compress(b"\x90")[:-2], parcels.ZLIB),
    block(codec.pack({})),
    block(codec.pack([[99]])),
    block(codec.pack([[parcels.END, 1]])),
    block(codec.pack([[parcels.DATA, -1, b""]])),
    block(codec.pack([[parcels.DATA, True, b""]])),
    block(codec.pack([[parcels.FOLDER, "text", 0]])),
    block(codec.pack([parcels.END])),
])  # fmt: skip
def test_a_stream_that_lies_is_refused(lie: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Opener().feed(lie))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_on_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        list(Opener().feed(noise))
