"""Compressed bodies (RFC 9110, section 8.4.1), for all formats.

A few kilobytes may unpack to gigabytes. So a body is unpacked piece by piece, and refused as soon as the pieces are
more than a body may have. A body that fits into the first piece is unpacked at once. All others take turns: one at a
time, so that only one takes memory, and between two of its pieces every other connection gets a turn.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from http import HTTPStatus

import brotli

from forebay.errors import NotYet, Rejection
from forebay.intake.answers import Answer
from forebay.intake.formats.format import Decoded, Format, Result
from forebay.model import Admission
from forebay.zstd import zstd

PIECE_BYTES = 64 * 1024

ZSTD_WINDOW_LOG_MAX = 23
"""8 MB, which every decoder should support, and no more (RFC 8878, section 3.1.1.1.2)."""

GZIP = 16 + zlib.MAX_WBITS
"""For zlib: read gzip."""

ZLIB_METHOD, ZLIB_CHECK = 8, 31
"""How a zlib stream begins (RFC 1950, section 2.2); some clients send a bare deflate stream for it."""


class StillPacked(NotYet):
    """A body has more than one piece.

    Attributes:
        unpacked: the format of the body, which has it unpacked at the end of the wait.
    """

    def __init__(self, unpacked: Unpacked) -> None:
        super().__init__("the body is still packed", unpacked.unpack)
        self.unpacked = unpacked


class _Wrapped(Format):
    """A format with bodies that are not simply there."""

    def __init__(self, inner: Format) -> None:
        self._inner = inner
        self.name = inner.name
        self.paths = inner.paths
        self.media_type = inner.media_type
        self.summary = inner.summary
        self.example = inner.example
        self.ok_head = inner.ok_head
        self.is_for_one_request = inner.is_for_one_request

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the answer of the format."""
        return self._inner.answer(places, results, admission)

    def refuse(self, error: Rejection) -> Answer:
        """Return the refusal of the format."""
        return self._inner.refuse(error)


class Compressed(_Wrapped):
    """A format whose bodies are compressed; those who wait for their turn wait for the lock."""

    def __init__(self, inner: Format, coding: str, bytes_max: int, turn: asyncio.Lock) -> None:
        super().__init__(inner)
        self._coding = coding
        self._bytes_max = bytes_max
        self._turn = turn

    def decode(self, body: bytes) -> Decoded:
        """Return the events.

        Raises:
            Rejection: 400 if the body is not of this coding or this format, 413 if it is too large.
            StillPacked: wait until the body is unpacked.
        """
        pieces = unpack(self._coding, body, self._bytes_max)
        first = next(pieces, b"")
        if next(pieces, None) is None:
            return self._inner.decode(first)
        raise StillPacked(Unpacked(self._inner, unpack(self._coding, body, self._bytes_max), self._turn))


class Unpacked(_Wrapped):
    """A format whose one body is unpacked here."""

    def __init__(self, inner: Format, pieces: Iterator[bytes], turn: asyncio.Lock) -> None:
        super().__init__(inner)
        self._pieces = pieces
        self._turn = turn
        self._body: bytes | Rejection = b""

    async def unpack(self) -> None:
        """Unpack the body, or find out why not."""
        async with self._turn:
            body = bytearray()
            try:
                for piece in self._pieces:
                    body += piece
                    await asyncio.sleep(0)
            except Rejection as error:
                self._body = error.without_frames()
            else:
                self._body = bytes(body)

    def decode(self, body: bytes) -> Decoded:
        """Return the events of the unpacked body."""
        del body
        unpacked, self._body = self._body, b""
        if isinstance(unpacked, Rejection):
            raise unpacked
        return self._inner.decode(unpacked)


def unpack(coding: str, body: bytes, bytes_max: int) -> Iterator[bytes]:
    """Yield the pieces of a body that is compressed with one of `CODINGS`, each of a limited size.

    Raises:
        Rejection: 400, it is damaged, or not of this coding; 413, it is larger than so many bytes.
    """
    left = bytes_max
    try:
        for piece in CODINGS[coding](body):
            left -= len(piece)
            if left < 0:
                detail = f"the body is larger than {bytes_max} bytes when it is unpacked"
                raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            yield piece
    except (zlib.error, brotli.error, zstd.ZstdError, EOFError) as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"the body is not {coding}: {error}") from None


def _unpack_gzip(body: bytes) -> Iterator[bytes]:
    # One member behind another is one text (RFC 1952, section 2.2).
    while body:
        body = yield from _inflate(body, GZIP)


def _unpack_deflate(body: bytes) -> Iterator[bytes]:
    is_zlib = len(body) > 1 and body[0] & 15 == ZLIB_METHOD and int.from_bytes(body[:2]) % ZLIB_CHECK == 0
    if (yield from _inflate(body, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)):
        raise EOFError("there is something behind its end")


def _inflate(body: bytes, window_bits: int) -> Generator[bytes, None, bytes]:
    """Yield the pieces of a stream, and return the bytes behind it."""
    stream = zlib.decompressobj(window_bits)
    while not stream.eof:
        piece = stream.decompress(body, PIECE_BYTES)
        body = stream.unconsumed_tail
        if not (piece or body or stream.eof):
            raise EOFError("it ends too early")
        yield piece
    return stream.unused_data


def _unpack_zstd(body: bytes) -> Iterator[bytes]:
    # One frame behind another is one text, too (RFC 8878, section 3).
    while body:
        stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX})
        while not stream.eof:
            piece = stream.decompress(body, PIECE_BYTES)
            body = b""
            if not piece and stream.needs_input:
                raise EOFError("it ends too early")
            yield piece
        body = stream.unused_data


def _unpack_brotli(body: bytes) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    while not stream.is_finished():
        piece = stream.process(body, output_buffer_limit=PIECE_BYTES)
        body = b""
        if not piece and not stream.is_finished() and stream.can_accept_more_data():
            raise EOFError("it ends too early")
        yield piece


ACCEPTED_CODINGS = "gzip, deflate, br, zstd"

CODINGS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _unpack_gzip,
    "x-gzip": _unpack_gzip,  # RFC 9110, section 8.4.1.3
    "deflate": _unpack_deflate,
    "br": _unpack_brotli,
    "zstd": _unpack_zstd,
}
