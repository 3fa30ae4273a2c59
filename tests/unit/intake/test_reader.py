"""From input to the parts of requests."""

from __future__ import annotations

import pytest

from forebay.errors import Rejection
from forebay.intake.reader import HEADER_LINES_MAX, RequestReader

HEADER_BYTES_MAX = 1_000
POST = b"POST /events?ack=disk HTTP/1.1\r\nHost: forebay\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /events/batch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
)
GET = b"GET /ping HTTP/1.1\r\nHost: forebay\r\n\r\n"


class RecordingConnection:
    """Records requests as method, address, header lines and body, and refusals as their status."""

    def __init__(self) -> None:
        self.reader = RequestReader(self, HEADER_BYTES_MAX)
        self.head: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.requests: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] = []
        self.refusals: list[int] = []

    def take_head(self) -> None:
        assert self.reader.is_in_request
        assert self.reader.head_memory_bytes == 0
        self.head = list(self.reader.headers)
        self.body = b""

    def take_body(self, data: bytes) -> None:
        self.body += data

    def end_request(self) -> None:
        assert not self.reader.is_in_request
        self.requests.append((self.reader.parser.get_method(), self.reader.url, self.head, self.body))

    def refuse(self, error: Rejection) -> None:
        self.refusals.append(error.status)
        self.reader.stop()


def read(data: bytes, piece_bytes: int = 100_000) -> RecordingConnection:
    connection = RecordingConnection()
    for start in range(0, len(data), piece_bytes):
        connection.reader.feed(data[start : start + piece_bytes])
    return connection


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 20, 64, 1_000])
def test_however_the_input_is_cut_the_requests_are_the_same(piece_bytes: int) -> None:
    connection = read(POST + GET + CHUNKED + GET, piece_bytes)
    get = (b"GET", b"/ping", [(b"Host", b"forebay")], b"")
    assert connection.requests == [
        (b"POST", b"/events?ack=disk", [(b"Host", b"forebay"), (b"Content-Length", b"5")], b"hello"),
        get,
        (b"POST", b"/events/batch", [(b"Transfer-Encoding", b"chunked")], b"abcdefg"),
        get,
    ]
    assert connection.refusals == []


@pytest.mark.parametrize("piece_bytes", [1, 100_000])
def test_a_request_for_another_protocol_is_read_as_an_ordinary_one(piece_bytes: int) -> None:
    upgrade = POST.replace(b"Host", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost")
    connection = read(upgrade + GET, piece_bytes)
    assert [(method, body) for method, _, _, body in connection.requests] == [(b"POST", b"hello"), (b"GET", b"")]
    assert (b"Upgrade", b"websocket") not in connection.requests[0][2]
    assert connection.refusals == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"garbage\r\n\r\n", 400, id="garbage"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\n\r\n", 501, id="a tunnel"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (HEADER_LINES_MAX + 1) + b"\r\n", 431, id="many lines"),
        pytest.param(b"GET /" + b"x" * HEADER_BYTES_MAX + b" HTTP/1.1\r\n\r\n", 431, id="a large address"),
        pytest.param(POST[:-5] + b"h" + CHUNKED, 400, id="a body that is followed by no request"),
    ],
)
def test_input_that_is_no_request_is_refused_and_nothing_behind_it_is_read(data: bytes, status: int) -> None:
    connection = read(GET + data + GET)
    assert connection.refusals == [status]
    assert len(connection.requests) <= 2
    connection.reader.feed(GET)
    assert len(connection.requests) <= 2


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(b"GET /" + b"x" * 50_000, id="an address without end"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 10_000, id="lines without end"),
        pytest.param(GET.replace(b"Host", b"Connection: upgrade\r\nUpgrade: h2c\r\nHost") * 500, id="other protocols"),
        pytest.param(CHUNKED * 500, id="lines behind bodies"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [7, 2_000, 100_000])
def test_a_stopped_reader_keeps_nothing_of_further_input(piece_bytes: int, behind: bytes) -> None:
    for first in (GET, GET[:-2]):
        reader = read(first).reader
        reader.stop()
        for start in range(0, len(behind), piece_bytes):
            reader.feed(behind[start : start + piece_bytes])
        assert (reader.url, reader.headers, reader.is_in_request) == (b"", [], False)
    # Stopped in the middle of a piece.
    reader = read(GET + b"CONNECT x:1 HTTP/1.1\r\n\r\n" + behind, piece_bytes).reader
    assert (reader.url, reader.headers, reader.is_in_request) == (b"", [], False)


@pytest.mark.parametrize("piece_bytes", [1, 100_000])
@pytest.mark.parametrize(("extra_bytes", "refusals"), [(0, []), (1, [431])])
def test_a_head_may_have_as_many_bytes_as_the_limit_says(
    piece_bytes: int, extra_bytes: int, refusals: list[int]
) -> None:
    padding = b"x" * (HEADER_BYTES_MAX - len(GET) - len(b"X: \r\n") + extra_bytes)
    connection = read(GET + GET.replace(b"Host", b"X: %b\r\nHost" % padding), piece_bytes)
    assert connection.refusals == refusals
    assert len(connection.requests) == 2 - len(refusals)


@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
def test_lines_without_end_are_refused_before_their_end(piece_bytes: int) -> None:
    connection = read(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * (HEADER_LINES_MAX + 2), piece_bytes)
    assert connection.refusals == [431]
    connection = read(CHUNKED.replace(b"Trailer: x", b"a:b\r\n" * (HEADER_LINES_MAX + 2))[:-4], piece_bytes)
    assert connection.refusals == [431]
    assert connection.requests == []


def test_large_bodies_count_nothing_towards_the_head() -> None:
    body = b"x" * (10 * HEADER_BYTES_MAX)
    connection = read(POST.replace(b"5\r\n\r\nhello", b"%d\r\n\r\n%b" % (len(body), body)) + GET, 300)
    assert connection.requests[0][3] == body
    assert len(connection.requests) == 2


def test_the_memory_of_a_head_is_known_while_it_arrives() -> None:
    connection = read(GET[:-2])
    assert connection.reader.is_in_request
    assert connection.reader.head_memory_bytes >= len(GET) - 2
    connection.reader.feed(GET[-2:])
    assert connection.reader.head_memory_bytes == 0


def test_a_connection_keeps_no_header_lines_of_requests_that_have_arrived() -> None:
    assert read(POST + CHUNKED).reader.headers == []


def test_the_announced_size_of_a_body_is_that_of_the_newest_request() -> None:
    assert read(POST).reader.announced_body_bytes == len(b"hello")
    assert read(POST + CHUNKED).reader.announced_body_bytes == 0
