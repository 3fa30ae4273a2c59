"""Heads that were read before: a client sends the same head with each request, but for the length of the body.

Most of the work on a single event would be to parse its head once more and to judge it once more. So the permit that a
head got is kept by the bytes of the head, and a request that repeats them is taken without the parser. It must have
arrived in one piece, alone, at the start of a message: then the parser would come to the same result, as it sees the
same bytes in the same state. Everything else goes the usual way.
"""

from __future__ import annotations

from msgspec import Struct

from forebay.intake.documents import Sender
from forebay.intake.formats.format import Format
from forebay.model import Ack
from forebay.tokens import Claims

HEADS_MAX = 5_000
"""How many heads are remembered."""

HEAD_BYTES_MAX = 2_000
"""Most bytes of one of them; a longer one is read each time."""

DIGITS_MAX = 9
NAME = b"content-length: "
NAME_END = b"ength: "
"""The end of the name in each of its usual spellings."""

HEAD_END = b"\r\n\r\n"
NEWLINES = (b"\r", b"\n")


class Permit(Struct, frozen=True):
    """The decisions on a head that passed the guard; they hold for every request with the same one.

    Attributes:
        claims: those of its token.
        format: how the body is read and answered.
        sender: who sends, on which device.
        ack: when the client gets its answer.
    """

    claims: Claims
    format: Format
    sender: Sender
    ack: Ack


class KnownHeads:
    """The permits of heads, by their bytes without the digits of `Content-Length`."""

    def __init__(self, header_bytes_max: int) -> None:
        # A larger body makes a head larger: by its digits, and its limit counts a space behind every colon only then.
        # Half of the limit leaves room for both.
        self._head_bytes_max = min(HEAD_BYTES_MAX, header_bytes_max // 2)
        self._permits: dict[bytes, Permit] = {}

    def find(self, request: bytes) -> tuple[Permit, int] | None:
        """Return the permit of a request's head, and the bytes of that head; None if it is not known or not whole."""
        start, stop, end = _cut(request)
        permit = self._permits.get(request[:start] + request[stop:end])
        if permit is None or not _is_length(request[start:stop], len(request) - end):
            return None
        return permit, end

    def remember(self, request: bytes, body_bytes: int, permit: Permit) -> None:
        """Remember the head of a request that the parser found to be these bytes, with a body of that announced size.

        If anything about it is unusual it is not remembered: no length was announced, or it is written in another way.
        """
        start, stop, end = _cut(request)
        name = request[request.rfind(b"\n", 0, start) + 1 : start]
        # All three together say that the head ends at `end`, and that the parser found the length in it. A body without
        # a length may have the same digits in its trailer. Newlines behind a body are dropped by the parser: they would
        # move the end into the body.
        if body_bytes <= 0 or request.endswith(NEWLINES) or end != len(request) - body_bytes:
            return
        if end > self._head_bytes_max:
            return
        if name.lower() != NAME or not _is_length(request[start:stop], body_bytes):
            return
        if len(self._permits) >= HEADS_MAX:
            self._permits.clear()
        self._permits[request[:start] + request[stop:end]] = permit


def _is_length(digits: bytes, body_bytes: int) -> bool:
    # The parser takes nothing but digits for a length either (RFC 9112, section 6.2).
    return digits.isdigit() and len(digits) <= DIGITS_MAX and int(digits) == body_bytes


def _cut(request: bytes) -> tuple[int, int, int]:
    """Return the places at which the digits of the length begin and stop, and at which the head ends.

    Requests whose heads are the same without the digits are cut at the same places, since the first `NAME_END` is.
    """
    start = request.find(NAME_END) + len(NAME_END)
    stop = request.find(b"\r", start)
    return start, stop, request.find(HEAD_END, stop) + len(HEAD_END)
