"""Which heads are known, and where they end."""

from __future__ import annotations

import pytest

from forebay.intake import heads
from forebay.intake.formats.single import SingleEvent
from forebay.intake.heads import HEAD_BYTES_MAX, HEADS_MAX, Grant, KnownHeads, find_end
from forebay.intake.senders import encode_sender
from forebay.model import Ack
from forebay.tokens.claims import Claims

HEADER_BYTES_MAX = 16_384
FIRST_LINE = b"POST /events HTTP/1.1\r\n"
PEER = b"192.0.2.1"
GRANT = Grant(Claims("alice", frozenset(), 0), SingleEvent(), encode_sender("alice"), Ack.DISK)
OTHER = Grant(Claims("bob", frozenset(), 0), SingleEvent(), encode_sender("bob"), Ack.MEMORY)


def request(body: bytes = b"hello", before: bytes = b"", after: bytes = b"", digits: bytes | None = None) -> bytes:
    length = b"%d" % len(body) if digits is None else digits
    return FIRST_LINE + before + b"Content-Length: " + length + b"\r\n" + after + b"\r\n" + body


@pytest.fixture
def known() -> KnownHeads:
    """That of `request()` is known."""
    known = KnownHeads(HEADER_BYTES_MAX)
    known.remember(PEER, request(), 5, GRANT)
    return known


def test_a_head_is_known_whatever_its_body(known: KnownHeads) -> None:
    for body in (b"hello", b"x", b"", b"\r\n\r\nContent-Length: 3\r\n\r\nabc\r\n", b"x" * 100_000):
        assert known.find(PEER, request(body)) == (GRANT, body, b"")


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"Content-length", b"cOnTeNt-Length"])
@pytest.mark.parametrize("after", [b"", b"X: y\r\n", b"X-Length: 7\r\n"])
@pytest.mark.parametrize("before", [b"", b"X: y\r\n"])
def test_a_head_is_known_by_all_its_bytes_but_the_digits(
    known: KnownHeads, before: bytes, after: bytes, name: bytes
) -> None:
    first, second = (
        request(body, before, after).replace(b"Content-Length", name, 1) for body in (b"hello", b"good bye")
    )
    known.remember(PEER, first, 5, OTHER)
    found = known.find(PEER, second)
    assert found == (OTHER, b"good bye", b"")
    for place in (place for place in range(len(second) - len(b"good bye")) if not second[place : place + 1].isdigit()):
        assert known.find(PEER, second[:place] + b"?" + second[place + 1 :]) is None


def test_a_request_that_is_not_whole_or_not_the_first_is_not_found(known: KnownHeads) -> None:
    whole = request(b"hello there")
    for size in range(len(whole)):
        assert known.find(PEER, whole[:size]) is None
    for before in (b"\r\n", b"\n", b"x"):
        assert known.find(PEER, before + whole) is None


def test_the_rest_behind_a_request_is_returned(known: KnownHeads) -> None:
    whole = request(b"hello there")
    assert find_end(whole) == len(whole)
    for more in (b"\r\n", b"\n", b"x", whole, request(digits=b"x")):
        assert known.find(PEER, whole + more) == (GRANT, b"hello there", more)
        assert find_end(whole + more) == len(whole)
    # Bytes that were not announced are no part of the body, but the beginning of the next request, and no good one.
    assert known.find(PEER, request(digits=b"4")) == (GRANT, b"hell", b"o")


@pytest.mark.parametrize(
    "digits",
    [
        b"",
        b"6",
        b"+5",
        b"-5",
        b"5 ",
        b" 5",
        b"5\t",
        b"5,5",
        b"5.0",
        b"0x5",
        b"1_0",
        b"5\r",
        b"5\n",
        "٥".encode(),
        b"05",
        b"5" * 10_000,
    ],
)
def test_a_length_that_is_not_that_of_the_body_in_digits_is_not_found(known: KnownHeads, digits: bytes) -> None:
    assert known.find(PEER, request(digits=digits)) is None
    assert known.find(PEER, request(b"1234", digits=digits)) is None


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param(request(b"hell\n"), id="a newline, which may be one behind the body"),
        pytest.param(request(b"hell\r"), id="the other newline"),
        pytest.param(b"\r\n\r\n" + request() + b"\r\n\r\n", id="newlines around it"),
        pytest.param(request(digits=b"5 "), id="a space behind the digits"),
        pytest.param(request(digits=b"05"), id="a zero before the digits"),
        pytest.param(request(before=b"X-Length: 5\r\n"), id="another length before it"),
        pytest.param(request(before=b"Length: 5\r\n"), id="a shorter name before it"),
        pytest.param(request().replace(b"Content", b"X-Content"), id="a longer name"),
        pytest.param(request().replace(b"\r\nContent", b"\r\n Content"), id="a name that goes on with the line above"),
        pytest.param(request().replace(b"Length: ", b"Length:"), id="no space"),
        pytest.param(request().replace(b"Length: ", b"Length:  "), id="two spaces"),
        pytest.param(request().replace(b"Length", b"LENGTH"), id="capitals"),
    ],
)
def test_an_unusual_request_is_not_remembered(unusual: bytes) -> None:
    known = KnownHeads(HEADER_BYTES_MAX)
    known.remember(PEER, unusual, 5, GRANT)
    assert known._grants == {}


@pytest.mark.parametrize("end", [b"", b"\r\n" * 12, b"\n" * 24, b"\r" * 24, b"\n\r" * 12])
def test_a_head_in_a_body_is_not_taken_for_that_of_the_request(end: bytes) -> None:
    known = KnownHeads(HEADER_BYTES_MAX)
    # With newlines behind it, it ends as many bytes before the end of the piece as the body has.
    known.remember(PEER, FIRST_LINE + b"Content-Length:29\r\n\r\n\r\nContent-Length: 29\r\n\r\nhello" + end, 29, GRANT)
    assert known._grants == {}


@pytest.mark.parametrize("body_bytes", [0, -1, 4, 6, 10])
def test_a_request_is_not_remembered_if_the_parser_found_another_length(body_bytes: int) -> None:
    known = KnownHeads(HEADER_BYTES_MAX)
    known.remember(PEER, request(), body_bytes, GRANT)
    known.remember(PEER, request(digits=b"%d" % max(0, body_bytes)), 5, GRANT)
    assert known._grants == {}


def test_a_body_without_a_length_is_not_remembered_by_the_digits_in_its_trailer() -> None:
    known = KnownHeads(HEADER_BYTES_MAX)
    known.remember(PEER, FIRST_LINE + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 0\r\n\r\n", 0, GRANT)
    assert known._grants == {}


@pytest.mark.parametrize(
    ("header_bytes_max", "head_bytes_max"),
    [(HEADER_BYTES_MAX, HEAD_BYTES_MAX), (2 * HEAD_BYTES_MAX, HEAD_BYTES_MAX), (1_024, 512)],
)
def test_a_long_head_is_not_remembered(header_bytes_max: int, head_bytes_max: int) -> None:
    room = head_bytes_max - len(request(b"", b"X: \r\n", digits=b"5"))
    for extra, is_remembered in ((0, True), (1, False)):
        known = KnownHeads(header_bytes_max)
        long = request(before=b"X: " + b"x" * (room + extra) + b"\r\n")
        known.remember(PEER, long, 5, GRANT)
        assert (known.find(PEER, long) is not None) == is_remembered


def test_heads_are_forgotten_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HEADS_MAX * HEAD_BYTES_MAX <= 10_000_000
    monkeypatch.setattr(heads, "HEADS_MAX", 3)
    known = KnownHeads(HEADER_BYTES_MAX)
    for number in range(8):
        latest = request(before=b"X: %d\r\n" % number)
        known.remember(PEER, latest, 5, GRANT)
        assert known.find(PEER, latest) is not None
        assert len(known._grants) == number % 3 + 1
