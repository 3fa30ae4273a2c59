"""Heads that were read before: a client sends the same head with each request, but for the length of the body.

Most of the work on a single event would be to parse its head once more and to judge it once more. So the grant that a
head got is kept by the bytes of the head, and a request that repeats them is taken without the parser. It must be
whole, in one piece, at the start of a message: then the parser would come to the same result, as it sees the same bytes
in the same state. Everything else goes the usual way.
"""

from __future__ import annotations

from msgspec import Struct

from forebay.intake.formats.format import Format
from forebay.intake.rates import LimitedAs
from forebay.intake.senders import Sender
from forebay.model import Ack
from forebay.tokens.claims import Claims

HEADS_MAX = 5_000
"""How many heads are remembered."""

HEAD_BYTES_MAX = 2_000
"""Most bytes of one of them; a longer one is read each time."""

NAME = b"content-length: "
NAME_END = b"ength: "
"""The end of the name in each of its usual spellings."""

DIGITS_MAX = 9
"""Most digits of a length; no body of more is ever allowed in one piece."""

HEAD_END = b"\r\n\r\n"


class Grant(Struct, frozen=True):
    """The decisions on a head that passed the guard; they hold for every request with the same one.

    Attributes:
        claims: those of its token.
        format: how the body is read and answered.
        sender: who sends, on which device, in the words of a document.
        ack: when the client gets its answer.
        origin_lines: the lines of the answer that let a page read it.
        limited_as: the names under which its events are counted; None if no limit counts them.
        version: that of the guard when it decided; with another one it has to decide again.
        events_max: how many events a request may have, each of which has a copy of the sender.
    """

    claims: Claims
    format: Format
    sender: Sender
    ack: Ack
    origin_lines: bytes = b""
    limited_as: LimitedAs | None = None
    version: int = 0
    events_max: int = 0


class KnownHeads:
    """The grants of heads, by their bytes without the digits of `Content-Length`, and the address of the client's end.

    The address stands behind the head, which ends with an empty line: neither can be taken for a part of the other.
    """

    def __init__(self, header_bytes_max: int) -> None:
        # A larger body makes a head larger: by its digits, and its limit counts a space behind every colon only then.
        # Half of the limit leaves room for both.
        self._head_bytes_max = min(HEAD_BYTES_MAX, header_bytes_max // 2)
        self._grants: dict[bytes, Grant] = {}

    def find(self, peer: bytes, piece: bytes) -> tuple[Grant, bytes, bytes] | None:
        """Return the grant of the first head in a piece of input, the body behind it, and the rest of the piece.

        None if the head is not known, or its body not whole.
        """
        key, digits, end = _cut(piece)
        grant = self._grants.get(key + peer)
        if grant is None:
            return None
        if digits == b"%d" % (len(piece) - end):
            return grant, piece[end:], b""
        stop = _find_end(piece, digits, end)
        return (grant, piece[end:stop], piece[stop:]) if stop else None

    def remember(self, peer: bytes, request: bytes, body_bytes: int, grant: Grant) -> None:
        """Remember the head of a request that the parser found to be these bytes, with a body of that announced size.

        If anything about it is unusual it is not remembered: no length was announced, or it is written in another way.
        """
        key, digits, end = _cut(request)
        # The body ends the request, so its size gives the end of the head. If the head has `Content-Length:5`, the
        # first `ength: ` may stand in the body, and the cut has another end. Newlines behind a body, which the parser
        # drops, could make up for the difference.
        if (
            body_bytes <= 0
            or grant.format.is_for_one_request
            or end != len(request) - body_bytes
            or request.endswith((b"\r", b"\n"))
        ):
            return
        name = key[key.rfind(b"\n", 0, key.find(NAME_END)) + 1 :][: len(NAME)]
        if name.lower() != NAME or digits != b"%d" % body_bytes or end > self._head_bytes_max:
            return
        if len(self._grants) >= HEADS_MAX:
            self._grants.clear()
        self._grants[key + peer] = grant


def find_end(piece: bytes) -> int:
    """Return the place at which the first request of a piece ends, 0 if it is not whole or only the parser can tell."""
    return _find_end(piece, *_cut(piece)[1:])


def find_request_end(piece: bytes) -> int:
    """Return the place at which the first request of a piece ends, or its head if only the parser can tell more.

    0 if the place is not in the piece.
    """
    head_end = piece.find(HEAD_END) + len(HEAD_END)
    if head_end < len(HEAD_END):
        return 0
    # The length may be that of a later request.
    return find_end(piece) if NAME_END in piece[:head_end] else head_end


def _find_end(piece: bytes, digits: bytes, head_end: int) -> int:
    if not digits.isdigit() or len(digits) > DIGITS_MAX:
        return 0
    end = head_end + int(digits)
    # Another spelling of the number is left to the parser.
    return end if digits == b"%d" % int(digits) and end <= len(piece) else 0


def _cut(request: bytes) -> tuple[bytes, bytes, int]:
    """Return a head without the digits of its length, those digits, and the place at which the head ends.

    The cut depends on nothing but the head itself: two heads that are the same without the digits have their first
    `NAME_END` at the same place. Without one, or without an end, the first part is no head that was ever remembered.
    """
    start = request.find(NAME_END) + len(NAME_END)
    stop = request.find(b"\r", start)
    end = request.find(HEAD_END, stop) + len(HEAD_END)
    return request[:start] + request[stop:end], request[start:stop], end
