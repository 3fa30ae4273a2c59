"""Compressed bodies (RFC 9110, section 8.4.1), for all formats.

A few kilobytes may unpack to gigabytes. So nothing is unpacked beyond the size that a body may have. Most bodies are
small and unpacked at once. All others take turns in a thread: one at a time, so that only one takes memory, and while
it is unpacked the event loop goes on, as the decoders run without Python's lock.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

import brotli

from forebay.errors import NotYet, Rejection
from forebay.intake.formats.format import BYTE_ORDER_MARK, Decoded, Format, WrappedFormat
from forebay.intake.limits import overloaded
from forebay.zstd import zstd

PIECE_BYTES = 64 * 1024
"""Most bytes that are unpacked in one step; and most bytes of a body that is unpacked at once, before and after."""

MEMBERS_MAX = 10_000
"""Most parts, each compressed for itself, of one body: as many as a batch usually may have events. An empty one has
eight bytes, and takes longer than many kilobytes in a single part."""

WAITING_MAX = 1_000
"""How many bodies may wait for their turn."""

ZSTD_WINDOW_LOG_MAX = 23
"""8 MB, which every decoder should support, and no more (RFC 8878, section 3.1.1.1.2)."""

GZIP = 16 + zlib.MAX_WBITS
"""For zlib: read gzip."""

ZLIB_METHOD, ZLIB_CHECK = 8, 31
"""How a zlib stream begins (RFC 1950, section 2.2); some clients send a bare deflate stream for it."""


class StillPacked(NotYet):
    """A body is too large to be unpacked at once.

    Attributes:
        unpacked: the format of the body, which has it unpacked at the end of the wait.
    """

    def __init__(self, unpacked: Unpacked, coding: str, body: bytes, bytes_max: int) -> None:
        # The format may be kept by a request that is refused for want of memory. So it does not keep the body.
        super().__init__("the body is still packed", lambda: unpacked.unpack(coding, body, bytes_max))
        self.unpacked = unpacked


class Turns:
    """Whose turn it is to be unpacked.

    Attributes:
        turn: whoever has it is unpacked.
        waiting: how many wait for it or have it.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0


class _Packed(WrappedFormat):
    """A format with bodies that are not simply there."""

    def __init__(self, inner: Format) -> None:
        super().__init__(inner)
        self.media_type = inner.media_type

    def _decode_unpacked(self, body: bytes) -> Decoded:
        # It was hidden from whoever takes it off other bodies.
        return self._inner.decode(body.removeprefix(BYTE_ORDER_MARK))


class Compressed(_Packed):
    """A format whose bodies are compressed."""

    def __init__(self, inner: Format, coding: str, bytes_max: int, turns: Turns) -> None:
        super().__init__(inner)
        self._coding = coding
        self._bytes_max = bytes_max
        self._turns = turns

    def decode(self, body: bytes) -> Decoded:
        """Return the events.

        Raises:
            Rejection: 400 if the body is not of this coding or this format, 503 if too many bodies wait.
            StillPacked: wait until the body is unpacked.
        """
        # brotli fills its whole window, up to 16 MB, before it gives the first piece: that takes up to 35 ms.
        if self._coding != BROTLI and len(body) <= PIECE_BYTES:
            try:
                unpacked = unpack(self._coding, body, min(PIECE_BYTES, self._bytes_max), members_max=1)
            except Rejection as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
            else:
                return self._decode_unpacked(unpacked)
        if self._turns.waiting >= WAITING_MAX:
            raise overloaded("too many compressed bodies wait to be unpacked")
        raise StillPacked(Unpacked(self._inner, self._turns), self._coding, body, self._bytes_max)


class Unpacked(_Packed):
    """A format whose one body is unpacked here."""

    def __init__(self, inner: Format, turns: Turns) -> None:
        super().__init__(inner)
        self._turns = turns
        # A wait that is cut off, mostly by the end of the server, leaves it so: the client is to send again.
        self._body: bytes | Rejection = overloaded("the body could not be unpacked")

    def unpack(self, coding: str, body: bytes, bytes_max: int) -> Awaitable[None]:
        """Unpack the body when it is its turn, or find out why not; it waits from this call on."""
        self._turns.waiting += 1
        return self._unpack_in_turn(coding, body, bytes_max)

    async def _unpack_in_turn(self, coding: str, body: bytes, bytes_max: int) -> None:
        try:
            async with self._turns.turn:
                self._body = await asyncio.to_thread(unpack, coding, body, bytes_max)
        except Rejection as error:
            self._body = error.without_frames()
        finally:
            self._turns.waiting -= 1

    def decode(self, body: bytes) -> Decoded:
        """Return the events of the unpacked body.

        Raises:
            Rejection: as by `unpack` or the format.
        """
        del body
        unpacked, self._body = self._body, b""
        if isinstance(unpacked, Rejection):
            raise unpacked
        return self._decode_unpacked(unpacked)


def unpack(coding: str, body: bytes, bytes_max: int, members_max: int = MEMBERS_MAX) -> bytes:
    """Return a body unpacked that is compressed with one of `CODINGS`.

    Raises:
        Rejection: 400, it is damaged, or not of this coding; 413, it is larger than so many bytes, or has more parts,
            each compressed for itself.
    """
    unpacked: list[bytes] = []
    left, end = bytes_max, 0
    for _ in range(members_max):
        try:
            pieces, end = _unpack_member(CODINGS[coding](body), body, end, left + 1)
        except (zlib.error, brotli.error, zstd.ZstdError, EOFError) as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, f"the body is not {coding}: {error}") from None
        unpacked += pieces
        left -= sum(map(len, pieces))
        if left < 0:
            raise _too_large(f"is larger than {bytes_max} bytes when it is unpacked")
        if end == len(body):
            return b"".join(unpacked)
        if coding not in HAVE_MEMBERS:
            raise Rejection(HTTPStatus.BAD_REQUEST, f"the body is not {coding}: there is something behind its end")
    raise _too_large(f"has more than {members_max} parts, each compressed for itself")


def _unpack_member(stream: _Stream, body: bytes, start: int, bytes_max: int) -> tuple[list[bytes], int]:
    """Return the pieces of a member that begins there, until these are so many bytes, and the end of the member."""
    unpacked = []
    while bytes_max > 0 and not stream.eof:
        # A decoder copies whatever is behind its end, so it gets little at once.
        piece = body[start : start + PIECE_BYTES]
        if not piece:
            raise EOFError("it ends too early")
        start += len(piece)
        unpacked.append(stream.decompress(piece, bytes_max))
        bytes_max -= len(unpacked[-1])
    return unpacked, start - len(stream.unused_data)


def _too_large(detail: str) -> Rejection:
    return Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body {detail}")


class _Stream(Protocol):
    """A decoder of one part, as zlib and zstd have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _begin_gzip(body: bytes) -> _Stream:
    del body
    return zlib.decompressobj(GZIP)


def _begin_deflate(body: bytes) -> _Stream:
    is_zlib = len(body) > 1 and body[0] & 15 == ZLIB_METHOD and int.from_bytes(body[:2]) % ZLIB_CHECK == 0
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)


def _begin_zstd(body: bytes) -> _Stream:
    del body
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX})


class _Brotli:
    """A decoder of brotli, with the interface of the others."""

    unused_data = b""
    """It is an error to brotli."""

    def __init__(self, body: bytes) -> None:
        del body
        self._stream = brotli.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        piece: bytes = self._stream.process(data, output_buffer_limit=max_length)
        return piece


BROTLI = "br"

ACCEPTED_CODINGS = "gzip, deflate, br, zstd"

CODINGS: dict[str, Callable[[bytes], _Stream]] = {
    "gzip": _begin_gzip,
    "x-gzip": _begin_gzip,  # RFC 9110, section 8.4.1.3
    "deflate": _begin_deflate,
    BROTLI: _Brotli,
    "zstd": _begin_zstd,
}
"""The decoder of each coding, for a body."""

HAVE_MEMBERS = {"gzip", "x-gzip", "zstd"}
"""Codings of which one text behind another is one text, too (RFC 1952, section 2.2; RFC 8878, section 3)."""
