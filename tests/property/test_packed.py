"""Unpacking: what was packed comes out, however it was packed; and of any bytes at all, nothing but a refusal."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Mapping, Sequence

import brotli
from hypothesis import event, given, settings
from hypothesis import strategies as st

from forebay.errors import Rejection
from forebay.intake.formats.compressed import CODINGS, HAVE_MEMBERS, unpack
from forebay.zstd import zstd
from testbed.traffic.packing import PACK

LIMIT = 300_000

unhurried = settings(deadline=None, max_examples=200)

codings = st.sampled_from(sorted(CODINGS))
# Short ones of all kinds, and long ones, some over a piece.
texts = st.binary(max_size=300) | st.builds(
    lambda part, times: part * times, st.binary(max_size=20), st.integers(0, 9_000)
)


def deflate(pieces: Sequence[bytes], bits: int, level: int) -> bytes:
    packer = zlib.compressobj(level, wbits=bits)
    # A flush ends a block, as a client does that writes while it goes along.
    return b"".join([*(packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces), packer.flush()])


def pack_brotli(pieces: Sequence[bytes], window_log: int, quality: int) -> bytes:
    packer = brotli.Compressor(quality=quality, lgwin=window_log)
    return b"".join([*(packer.process(piece) + packer.flush() for piece in pieces), packer.finish()])


def pack_zstd(pieces: Sequence[bytes], window_log: int, level: int, *, has_checksum: bool) -> bytes:
    options: Mapping[int, int] = {
        zstd.CompressionParameter.window_log: window_log,
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: has_checksum,
    }
    packer = zstd.ZstdCompressor(options=options)
    return b"".join([*(packer.compress(piece, packer.FLUSH_BLOCK) for piece in pieces), packer.flush()])


@st.composite
def packed(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Draw a coding, a text, and the text packed in one of the ways that the coding has."""
    coding = draw(codings)
    members = draw(st.lists(st.lists(texts, max_size=3), min_size=1, max_size=4 if coding in HAVE_MEMBERS else 1))
    pack: Callable[[Sequence[bytes]], bytes]
    if coding == "br":
        window_log, quality = draw(st.integers(10, 24)), draw(st.integers(0, 9))
        pack = lambda pieces: pack_brotli(pieces, window_log, quality)  # noqa: E731
    elif coding == "zstd":
        window_log, level, has_checksum = draw(st.integers(10, 23)), draw(st.integers(-3, 9)), draw(st.booleans())
        pack = lambda pieces: pack_zstd(pieces, window_log, level, has_checksum=has_checksum)  # noqa: E731
    else:
        bits, level = draw(st.integers(9, 15)), draw(st.integers(0, 9))
        kind = draw(st.sampled_from([1, -1])) * bits if coding == "deflate" else 16 + bits
        pack = lambda pieces: deflate(pieces, kind, level)  # noqa: E731
    return coding, b"".join(map(b"".join, members)), b"".join(map(pack, members))


@unhurried
@given(packed())
def test_a_body_is_unpacked_however_it_was_packed(made: tuple[str, bytes, bytes]) -> None:
    coding, text, body = made
    event(f"{coding} {'over' if len(text) > LIMIT else 'within'} the limit")
    if len(text) <= LIMIT:
        assert unpack(coding, body, LIMIT) == text
        assert unpack(coding, body, len(text)) == text
    for bytes_max in {0, len(text) - 1, LIMIT} & {*range(len(text))}:
        with contextlib.suppress(Rejection):
            raise AssertionError(len(unpack(coding, body, bytes_max)))


@unhurried
@given(packed(), st.data())
def test_of_a_body_that_is_cut_or_followed_by_another_nothing_is_taken(
    made: tuple[str, bytes, bytes], data: st.DataObject
) -> None:
    coding, text, body = made
    cut = data.draw(st.integers(0, len(body) - 1))
    with contextlib.suppress(Rejection):
        begun = unpack(coding, body[:cut], LIMIT)
        # Members that are whole are a text of their own.
        assert coding in HAVE_MEMBERS
        assert text.startswith(begun)
    rest = data.draw(st.binary(min_size=1, max_size=20))
    with contextlib.suppress(Rejection):
        raise AssertionError(unpack(coding, body + rest, LIMIT))


@unhurried
@given(packed(), st.data())
def test_damage_ends_in_a_refusal_or_within_the_limit(made: tuple[str, bytes, bytes], data: st.DataObject) -> None:
    coding, _, body = made
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    other = data.draw(codings)
    for used in {coding, other}:
        with contextlib.suppress(Rejection):
            assert len(unpack(used, bytes(damaged), LIMIT)) <= LIMIT


@unhurried
@given(codings, st.binary(max_size=200))
def test_any_bytes_end_in_a_refusal_or_within_the_limit(coding: str, body: bytes) -> None:
    for sent in (body, PACK[coding](b"")[:6] + body):
        with contextlib.suppress(Rejection):
            assert len(unpack(coding, sent, LIMIT)) <= LIMIT
