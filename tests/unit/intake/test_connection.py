"""One connection with a transport of the test's own: for moments that no real client can bring about at will."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.errors import SpoolInDoubt, SpoolUnavailable
from forebay.intake.asgi import ASGI_BYTES, ASGI_UNANSWERED_MAX, AsgiRequest
from forebay.intake.connection import PIECE_BYTES, UNANSWERED_MAX, Connection
from forebay.intake.intake import Request
from forebay.intake.reader import RequestReader
from forebay.model import Ack, Admission
from forebay.telemetry.counters import Overload
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from forebay.tokens.provider import make_own_provider
from forebay.tokens.verifier import TokenVerifier
from unit.intake.fakes import (
    IN_HAND_BYTES_MAX,
    KEEP_ALIVE_S,
    REQUEST_LIMITS,
    REQUEST_TIMEOUT_S,
    SECRET,
    FakeTransport,
    Server,
)

# Longer than any run of the tests, at whose start the token is made.
DAY_S = 86_400
AUTHORIZATION = f"Bearer {make_token(SECRET, 'alice', [Scope.WRITE], DAY_S)}".encode()
BEARER = b"Authorization: %b\r\n" % AUTHORIZATION
PING = b"GET /ping HTTP/1.1\r\n\r\n"
GARBAGE = b"garbage\r\n\r\n"
CHUNKED = b"GET /ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
GET = b"GET /x HTTP/1.1\r\n\r\n"


def event(log_id: str = "a", more: bytes = b"", head: bytes = b"") -> bytes:
    body = b'{"page":"a","event":"b","log_id":"%b"%b}' % (log_id.encode(), more)
    return b"POST /events HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (BEARER, head, len(body), body)


EVENT = event().partition(b"\r\n\r\n")[2]


def bad_batch(size: int) -> bytes:
    """Return a batch of one bad event, whose refusal is almost as large as the event: it names every field."""
    fields = b",".join(b'"%0200d":%b' % (number, b"[" * 33 + b"]" * 33) for number in range(size // 240))
    body = b'[{"page":"a","event":"b",%b}]' % fields
    return b"POST /events/batch HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (BEARER, len(body), body)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def opened(server: Server) -> tuple[Connection, FakeTransport]:
    return server.connect()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The pieces of input that the parser gets."""
    pieces = []
    feed = RequestReader.feed

    def note(reader: RequestReader, piece: bytes) -> None:
        pieces.append(piece)
        feed(reader, piece)

    monkeypatch.setattr(RequestReader, "feed", note)
    return pieces


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
async def later() -> float:
    """A time after every time limit."""
    return now() + REQUEST_TIMEOUT_S + KEEP_ALIVE_S


# Counts


async def test_a_ping_is_not_counted_among_the_responses_of_the_event_addresses(server: Server, later: float) -> None:
    ping = b"GET /ping HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    too_large = REQUEST_LIMITS.body_bytes_max + 1
    for pieces in ([PING, PING.replace(b"GET", b"HEAD")], [ping % 1], [ping % too_large, b"x" * too_large]):
        connection, transport = server.connect()
        for piece in pieces:
            connection.data_received(piece)
        connection.expire(later)
        assert set(transport.statuses) == {200}
    assert server.counters.requests == {}


def test_answers_to_events_are_counted_beside_those_to_pings(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    for piece in (event(), PING, event("", b",5"), PING, GARBAGE):
        opened[0].data_received(piece)
    server.admitter.requests[0].admitted(Admission.CREATED)
    assert opened[1].statuses == [200, 200, 400, 200, 400]
    assert server.counters.requests == {200: 1, 400: 2}


@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize(
    ("path", "body", "good_one", "bad_one"),
    [
        ("/v1/logs", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}', b"{}", b"5"),
        ("/events/batch", b"[%b]", EVENT, b"5"),
        ("/v1/batch", b'{"batch":[%b]}', b'{"type":"alias"}', b"5"),
        ("/ubi_events", b"[%b]", b"{}", b"5"),
    ],
)
def test_each_refused_event_is_counted_whether_or_not_another_is_taken(
    server: Server,
    opened: tuple[Connection, FakeTransport],
    path: str,
    body: bytes,
    good_one: bytes,
    bad_one: bytes,
    good: int,
) -> None:
    sent = body % b",".join([bad_one] * 50 + [good_one] * good)
    head = b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n"
    opened[0].data_received(head % (path.encode(), BEARER, len(sent)) + sent)
    for taken in server.admitter.requests:
        taken.admitted(Admission.CREATED)
    assert (server.counters.accepted, server.counters.rejected) == (good, 50)


# Answers in their order


def test_events_are_taken_together_and_answered_in_their_order(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    connection.data_received(event("first") + event("", head=b"X: y\r\n") + event("third") + PING)
    first, third = server.admitter.requests
    assert transport.written == b""
    third.admitted(Admission.CREATED)
    assert transport.written == b""
    first.admitted(Admission.CREATED)
    assert transport.statuses == [200, 400, 200, 200]
    assert transport.written.index(b'"first"') < transport.written.index(b'"third"')
    assert server.limits.used_bytes == 0
    assert list(server.limits.idle) == [connection]


async def test_a_client_is_not_read_while_too_many_of_its_requests_are_unanswered(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes]
) -> None:
    connection, transport = opened
    for number in range(UNANSWERED_MAX):
        assert not transport.is_paused
        connection.data_received(event(str(number)))
    assert len(parsed) == 1
    assert transport.is_paused
    server.admitter.requests[1].admitted(Admission.CREATED)
    await asyncio.sleep(0)
    assert transport.is_paused
    server.admitter.requests[0].admitted(Admission.CREATED)
    await asyncio.sleep(0)
    assert not transport.is_paused


def test_behind_an_event_in_doubt_nothing_is_answered(server: Server, opened: tuple[Connection, FakeTransport]) -> None:
    connection, transport = opened
    connection.data_received(event("before") + event("in doubt") + event("behind"))
    before, in_doubt, behind = server.admitter.requests
    in_doubt.refused(SpoolInDoubt("a sync failed"))
    assert transport.ended == ""
    before.admitted(Admission.CREATED)
    assert (transport.statuses, transport.ended) == ([200], "closed")
    behind.admitted(Admission.CREATED)
    assert (transport.statuses, server.limits.used_bytes) == ([200], 0)


def test_behind_an_event_in_doubt_nothing_is_answered_if_the_rest_was_refused(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    connection.data_received(event("in doubt") + event("behind") + event("rejected", b',"label":1') + GARBAGE)
    in_doubt, behind = server.admitter.requests
    in_doubt.refused(SpoolInDoubt("a sync failed"))
    behind.admitted(Admission.CREATED)
    assert transport.written == b""
    assert transport.is_half_closed or transport.ended
    assert server.limits.used_bytes == 0


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_answer_takes_memory_until_it_leaves(
    server: Server, opened: tuple[Connection, FakeTransport], *, is_lost: bool
) -> None:
    connection, transport = opened
    connection.data_received(event("hangs"))
    (request,) = server.admitter.requests
    before = server.limits.used_bytes
    for number in range(1, 4):
        connection.data_received(bad_batch(300_000))
        assert server.limits.used_bytes - before > number * 300_000
    # With one more they are more than all requests may use.
    connection.data_received(bad_batch(300_000))
    assert server.counters.crowded == {Overload.SLOW_REQUEST: 1}
    if is_lost:
        connection.connection_lost(None)
        assert server.limits.used_bytes == before
    request.refused(SpoolUnavailable("the disk is full"))
    assert server.limits.used_bytes == 0
    assert transport.statuses == ([] if is_lost else [503, 200, 200, 200, 503])


# Heads that were read before


async def test_a_head_that_was_read_before_is_not_parsed_again_on_any_connection(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes]
) -> None:
    connection, transport = opened
    connection.data_received(event("first"))
    connection.data_received(event("the second"))
    assert (len(server.admitter.requests), transport.is_paused) == (2, False)
    other, its_transport = server.connect()
    other.data_received(event("c"))
    assert parsed == [event("first")]
    first, second, third = server.admitter.requests
    assert first.grant is second.grant is third.grant
    assert list(third.results) == [b'"c"']
    second.admitted(Admission.CREATED)
    assert transport.written == b""
    first.admitted(Admission.CREATED)
    third.admitted(Admission.CREATED)
    assert (transport.statuses, its_transport.statuses) == ([200, 200], [200])
    assert transport.written.index(b'"first"') < transport.written.index(b'"the second"')
    assert server.counters.accepted == 3


@pytest.mark.parametrize(
    ("pieces", "statuses"),
    [
        pytest.param([event("b")[:-1], event("b")[-1:]], [200], id="two pieces"),
        pytest.param([b"\r\n" + event("b")], [200], id="a newline before it"),
        pytest.param([event("b").replace(b": 37", b": +37")], [400], id="a length that is none"),
        pytest.param([event("b", b',"label":"%b"' % (b"x" * 20_000))], [200], id="more than a piece"),
    ],
)
async def test_a_known_head_that_does_not_begin_a_piece_with_its_whole_body_is_parsed(
    server: Server,
    opened: tuple[Connection, FakeTransport],
    parsed: list[bytes],
    pieces: list[bytes],
    statuses: list[int],
) -> None:
    connection, transport = opened
    connection.data_received(event())
    for piece in pieces:
        connection.data_received(piece)
    assert b"".join(parsed) == event() + b"".join(pieces)
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    assert transport.statuses == [200, *statuses]


@pytest.mark.parametrize("rest", [PING, b"\r\n", event("b")[:-1]])
def test_what_is_behind_a_known_head_and_its_body_is_parsed(
    opened: tuple[Connection, FakeTransport], parsed: list[bytes], rest: bytes
) -> None:
    connection, _ = opened
    connection.data_received(event())
    connection.data_received(event("a") + rest)
    assert parsed == [event(), rest]


@pytest.mark.parametrize("beginning", [event("b")[:20], event("b")[:-1], PING[:5], PING[:-2]])
def test_a_known_head_in_another_request_is_a_part_of_that(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes], beginning: bytes
) -> None:
    connection, transport = opened
    connection.data_received(event())
    connection.data_received(beginning)
    connection.data_received(event())
    assert parsed == [event(), beginning, event()]
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    assert 400 in transport.statuses


@pytest.mark.parametrize("end", [GARBAGE, event("last", head=b"Connection: close\r\n")])
def test_a_known_head_behind_the_last_request_is_not_taken(
    server: Server, opened: tuple[Connection, FakeTransport], end: bytes
) -> None:
    connection, _ = opened
    connection.data_received(event())
    connection.data_received(end)
    taken = len(server.admitter.requests)
    connection.data_received(event())
    assert len(server.admitter.requests) == taken


def test_a_known_head_is_not_taken_at_the_end(server: Server, opened: tuple[Connection, FakeTransport]) -> None:
    connection, transport = opened
    connection.data_received(event())
    connection.shutdown()
    connection.data_received(event())
    (request,) = server.admitter.requests
    request.admitted(Admission.CREATED)
    assert (transport.statuses, transport.ended) == ([200], "closed")


def test_a_known_head_with_a_token_that_has_expired_since_gets_401(
    server: Server, opened: tuple[Connection, FakeTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, transport = opened
    connection.data_received(event())
    server.admitter.requests[0].admitted(Admission.CREATED)
    # Of the token itself: it is as old as this run of the tests, which may have gone on for minutes.
    valid_until = TokenVerifier(make_own_provider([SECRET])).verify(AUTHORIZATION).valid_until
    for at in (valid_until - 1, valid_until + 1):
        monkeypatch.setattr("time.time", lambda now=at: now)
        connection.data_received(event())
    server.admitter.requests[1].admitted(Admission.CREATED)
    assert transport.statuses == [200, 200, 401]
    assert server.counters.rejected == 1


def test_a_known_head_with_a_body_over_the_limit_gets_413(
    server: Server, opened: tuple[Connection, FakeTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.intake.connection.PIECE_BYTES", 1_000_000)
    connection, transport = opened
    most = REQUEST_LIMITS.body_bytes_max
    empty = len(EVENT) + len(b',"label":""')
    connection.data_received(event())
    for size in (most, most + 1):
        connection.data_received(event(more=b',"label":"%b"' % (b"x" * (size - empty))))
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    assert transport.statuses == [200, 200, 413]
    assert transport.is_half_closed


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(event(head=b"Connection: close\r\n"), id="the last of its connection"),
        pytest.param(event(head=b"Connection: keep-alive\r\n").replace(b"/1.1", b"/1.0"), id="of HTTP/1.0"),
        pytest.param(event(head=b"Expect: 100-continue\r\n"), id="whose client waits for a word"),
        pytest.param(event(head=b"Connection: upgrade\r\nUpgrade: h2c\r\n"), id="for another protocol"),
    ],
)
async def test_a_head_whose_answer_is_unlike_others_is_not_remembered(server: Server, again: bytes) -> None:
    written = []
    for _ in range(2):
        connection, transport = server.connect()
        connection.data_received(again)
        server.admitter.requests[-1].admitted(Admission.CREATED)
        written.append((transport.written, transport.ended))
    assert written[0] == written[1]
    assert server.intake.heads._grants == {}


def test_a_client_that_waits_for_a_word_gets_it_even_if_it_got_none_before(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    asking = event(head=b"Expect: 100-continue\r\n")
    connection.data_received(event())
    connection.data_received(asking)
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    assert transport.statuses == [200, 200]
    connection.data_received(asking)
    assert transport.statuses == [200, 200, 100]


def test_a_client_gets_its_word_behind_the_answers_before_it(opened: tuple[Connection, FakeTransport]) -> None:
    connection, transport = opened
    connection.data_received(PING + event(head=b"Expect: 100-continue\r\n") + PING)
    assert transport.statuses == [200, 100]


def test_answers_to_requests_that_came_together_leave_together(opened: tuple[Connection, FakeTransport]) -> None:
    connection, transport = opened
    connection.data_received(PING * 5 + b"GET /ping HTTP/9\r\n\r\n")
    assert (transport.statuses, transport.writes) == ([200] * 5 + [400], 1)
    assert transport.is_half_closed


async def test_a_head_behind_the_rest_of_a_body_is_not_remembered_with_that(server: Server) -> None:
    written = []
    for pieces in ([event()[:-1], event()[-1:] + event()], [event()[-1:] + event()]):
        connection, transport = server.connect()
        for piece in pieces:
            connection.data_received(piece)
        written.append(transport.statuses)
    assert written == [[], [400]]
    assert len(server.admitter.requests) == 2


def test_a_head_is_remembered_of_a_later_request_too(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes]
) -> None:
    connection, _ = opened
    for piece in (PING, PING + PING, event(), event()):
        connection.data_received(piece)
    assert parsed == [PING, PING, PING, event()]
    assert len(server.admitter.requests) == 2


def test_a_head_behind_one_that_only_the_parser_can_read_is_not_remembered(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, _ = opened
    connection.data_received(CHUNKED + event())
    connection.data_received(event()[:5])
    connection.data_received(event()[5:])
    assert len(server.admitter.requests) == 2
    assert server.intake.heads._grants == {}


def test_the_first_of_many_requests_is_parsed_and_the_others_have_a_known_head(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes]
) -> None:
    connection, transport = opened
    connection.data_received(event("a") + event("b") + event("c") + event("d")[:-1])
    connection.data_received(event("d")[-1:] + event("e"))
    assert parsed == [event("a"), event("d")[:-1], event("d")[-1:] + event("e")]
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    assert transport.statuses == [200] * 5


async def test_a_connection_is_busy_until_a_request_with_a_known_head_is_answered(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes], later: float
) -> None:
    connection, transport = opened
    connection.data_received(event())
    server.admitter.requests.pop().admitted(Admission.CREATED)
    assert list(server.limits.idle) == [connection]
    connection.data_received(event())
    assert parsed == [event()]
    (request,) = server.admitter.requests
    assert (list(server.limits.idle), list(server.limits.slow)) == ([], [])
    assert server.limits.used_bytes == request.used_bytes > request.entry_bytes
    connection.expire(later)
    assert transport.ended == ""
    request.admitted(Admission.CREATED)
    assert (list(server.limits.idle), server.limits.used_bytes) == ([connection], 0)
    connection.expire(now())
    assert transport.ended == ""
    connection.expire(later)
    assert transport.ended == "closed"


def test_a_request_with_a_known_head_takes_its_place_among_all_in_memory(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes]
) -> None:
    connection, transport = opened
    connection.data_received(event())
    server.limits.used_bytes += IN_HAND_BYTES_MAX
    connection.data_received(event())
    assert parsed == [event()]
    server.admitter.requests[0].admitted(Admission.CREATED)
    assert transport.statuses == [200, 503]
    assert server.counters.crowded == {Overload.NEW_REQUEST: 1}


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(event().replace(BEARER, b""), id="without a token"),
        pytest.param(event(head=b"Content-Encoding: compress\r\n"), id="compressed in an unknown way"),
        pytest.param(event().replace(b"/events", b"/ping").replace(b"POST", b"GET"), id="for another address"),
    ],
)
def test_a_head_that_is_refused_is_never_known_by_that_of_the_request_before(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes], refused: bytes
) -> None:
    connection, transport = opened
    for piece in (event()[:10], event()[10:], refused, refused):
        connection.data_received(piece)
    assert parsed[2:] == [refused, refused]
    (request,) = server.admitter.requests
    request.admitted(Admission.CREATED)
    _, first, second = transport.statuses
    assert first == second


async def test_a_known_head_is_as_limited_with_a_larger_body() -> None:
    server = Server(REQUEST_LIMITS._replace(header_bytes_max=1_024))
    connection, transport = server.connect()
    size = len(event(head=b"X: \r\n")) - len(EVENT)
    # The parser finds that the head has the limit, and two bytes more if the length has two digits more.
    head = b"X: " + b"x" * (1_024 - size) + b"\r\n"
    connection.data_received(event(head=head))
    connection.data_received(event("a" * 1_000, head=head))
    server.admitter.requests[0].admitted(Admission.CREATED)
    assert transport.statuses == [200, 431]


# Memory and time


def test_a_client_whose_input_takes_too_much_memory_still_gets_the_answers_before_it(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    pings = PIECE_BYTES // len(PING) - 30
    # The first piece ends with a request.
    padding = b"x" * (PIECE_BYTES - pings * len(PING) - len(event("before", head=b"X: \r\n")))
    first = event("before", head=b"X: %b\r\n" % padding) + PING * pings
    assert len(first) == PIECE_BYTES
    connection.data_received(first + PING)
    assert list(server.limits.slow) == [connection]
    server.limits.used_bytes += IN_HAND_BYTES_MAX
    assert not server.limits.find_room()
    assert (transport.written, transport.ended, server.counters.crowded) == (b"", "", {Overload.SLOW_REQUEST: 1})
    server.admitter.requests[0].admitted(Admission.CREATED)
    assert (transport.statuses[0], transport.statuses[-1], transport.is_half_closed) == (200, 503, True)


async def test_a_client_that_has_read_its_answers_is_slow_no_more(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    connection.data_received(PING * 90)
    transport.unsent_bytes = 100_000
    connection.pause_writing()
    assert (list(server.limits.slow), server.limits.used_bytes) == ([connection], 100_000)
    transport.unsent_bytes = 0
    connection.resume_writing()
    await asyncio.sleep(0)
    assert (list(server.limits.slow), server.limits.used_bytes) == ([], 0)
    assert not transport.is_paused


@pytest.mark.parametrize("beginning", [event()[:-1], b"GET / HTTP/1.1\r\nX: " + b"y" * 2_000])
def test_a_request_that_does_not_arrive_takes_no_memory_once_it_is_refused(
    server: Server, opened: tuple[Connection, FakeTransport], later: float, beginning: bytes
) -> None:
    connection, transport = opened
    connection.data_received(beginning)
    assert list(server.limits.slow) == [connection]
    connection.expire(later)
    assert transport.statuses == [408]
    assert (list(server.limits.slow), server.limits.used_bytes) == ([], 0)
    assert list(server.limits.idle) == [connection]


def test_a_request_takes_no_memory_as_a_slow_one_once_it_has_arrived(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, _ = opened
    connection.data_received(event()[:-1])
    assert list(server.limits.slow) == [connection]
    connection.data_received(event()[-1:])
    assert (list(server.limits.slow), connection.used_bytes) == ([], 0)


async def test_an_event_before_refused_input_is_answered_however_long_it_takes(
    server: Server, opened: tuple[Connection, FakeTransport], later: float
) -> None:
    connection, transport = opened
    connection.data_received(event("slow") + GARBAGE)
    connection.expire(later)
    assert transport.ended == ""
    server.admitter.requests[0].admitted(Admission.CREATED)
    assert transport.statuses == [200, 400]
    assert (transport.is_half_closed, transport.ended) == (True, "")
    connection.expire(now())
    assert transport.ended == ""
    connection.expire(later)
    assert transport.ended == "closed"


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(b"POST /events HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", id="refused"),
        pytest.param(event() + GARBAGE, id="refused behind an event"),
        pytest.param(event(head=b"Connection: close\r\n"), id="the last of its connection"),
        pytest.param(event(), id="the last before the end of the server"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [PIECE_BYTES - 5, 20 * PIECE_BYTES])
@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\n", b"\r\nGET / HTTP/1.1\r\nUpgrade: x\r\n"])
async def test_nothing_is_kept_of_input_that_is_dropped(
    server: Server, opened: tuple[Connection, FakeTransport], last: bytes, piece_bytes: int, beginning: bytes
) -> None:
    connection, _ = opened
    connection.data_received(last)
    connection.shutdown()
    before = server.limits.used_bytes
    connection.data_received(beginning)
    for _ in range(10):
        connection.data_received(b"a:b\r\n" * (piece_bytes // 5))
        reader = connection._reader
        assert (reader.url, reader.headers, connection._unparsed) == (b"", [], b"")
        assert server.limits.used_bytes == before


async def test_what_is_behind_the_last_request_in_a_large_piece_takes_no_memory(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, _ = opened
    connection.data_received(event(head=b"Connection: close\r\n") + b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 50_000)
    (request,) = server.admitter.requests
    assert (connection._unparsed, connection._reader.headers) == (b"", [])
    assert server.limits.used_bytes == request.used_bytes


async def test_input_behind_a_body_that_is_dropped_is_read_in_pieces(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    length = 300_000
    head = b"POST /events HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length
    connection.data_received(head + b"x" * (length - 1))
    while transport.is_paused:
        await asyncio.sleep(0)
    assert (transport.written, server.limits.used_bytes) == (b"", 0)
    connection.data_received(b"x" + PING * (2 * PIECE_BYTES // len(PING)))
    assert len(transport.statuses) <= PIECE_BYTES // len(PING) + 2
    assert transport.statuses[0] == 401
    while transport.is_paused:
        await asyncio.sleep(0)
    assert len(transport.statuses) == 2 * PIECE_BYTES // len(PING) + 1


@pytest.mark.parametrize("length", [b"x", b"9" * 3_000, b"-5", b"5"])
async def test_a_length_behind_a_chunked_body_is_refused(
    opened: tuple[Connection, FakeTransport], length: bytes
) -> None:
    connection, transport = opened
    head = b"POST /events HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % BEARER
    connection.data_received(head + b"5\r\nabcde\r\n0\r\nContent-Length: %b\r\nX: y\r\n" % length)
    connection.data_received(b"X: z\r\n" * 5 + b"\r\n" + PING * 2_000)
    assert (transport.statuses, transport.ended) == ([400], "")


# Answers of the application, and answers that nobody reads


async def answer(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def turns() -> None:
    for _ in range(1_000):
        await asyncio.sleep(0)


@pytest.mark.parametrize("first", [b"", PING, event()], ids=["nothing", "a ping", "an event"])
async def test_few_requests_for_the_application_wait_at_once_and_all_are_answered(server: Server, first: bytes) -> None:
    connection, transport = server.connect(answer)
    connection.data_received(first + GET * 100)
    assert len(connection._queue) <= ASGI_UNANSWERED_MAX + 1
    assert sum(isinstance(turn, AsgiRequest) for turn in connection._queue) == ASGI_UNANSWERED_MAX
    assert server.limits.used_bytes > ASGI_UNANSWERED_MAX * ASGI_BYTES + 80 * len(GET)
    assert transport.is_paused
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    await turns()
    assert transport.statuses == [200] * bool(first) + [204] * 100
    assert (server.limits.used_bytes, transport.is_paused, list(server.limits.idle)) == (0, False, [connection])


@pytest.mark.parametrize("is_head", [False, True])
async def test_more_requests_for_the_application_than_may_wait_are_refused_if_they_cannot_be_left_unread(
    server: Server, *, is_head: bool
) -> None:
    connection, transport = server.connect(answer)
    request = GET.replace(b"GET", b"HEAD") if is_head else GET
    connection.data_received(CHUNKED[:-2])
    connection.data_received(b"\r\n" + request * 50 + PING)
    await turns()
    assert transport.statuses == [200] + [204] * ASGI_UNANSWERED_MAX + [503] * (50 - ASGI_UNANSWERED_MAX) + [200]
    assert (b"too many requests of the connection" in transport.written) is not is_head
    assert server.limits.used_bytes == 0


async def test_a_request_for_the_application_waits_for_nobody_if_there_is_no_memory(server: Server) -> None:
    connection, transport = server.connect(answer)
    server.limits.used_bytes += IN_HAND_BYTES_MAX + 1
    connection.data_received(GET)
    await turns()
    assert transport.statuses == [204]
    connection.data_received(GET + GET)
    await turns()
    assert transport.statuses == [204, 204, 503]
    assert server.limits.used_bytes == IN_HAND_BYTES_MAX + 1


async def test_the_bodies_of_requests_for_the_application_take_no_memory(server: Server) -> None:
    connection, transport = server.connect(answer)
    connection.data_received(event())
    before = server.limits.used_bytes
    connection.data_received(b"POST /x HTTP/1.1\r\nContent-Length: 250000\r\n\r\n" + b"x" * 250_000 + PING)
    await turns()
    assert before + ASGI_BYTES < server.limits.used_bytes < before + 2 * ASGI_BYTES
    assert not transport.is_paused
    server.admitter.requests[0].admitted(Admission.CREATED)
    await turns()
    assert (transport.statuses, server.limits.used_bytes) == ([200, 204, 200], 0)


@pytest.mark.parametrize("is_first", [False, True])
async def test_requests_for_the_application_take_no_memory_once_their_client_is_gone(
    server: Server, *, is_first: bool
) -> None:
    connection, _ = server.connect(answer)
    connection.data_received((b"" if is_first else event()) + GET * 5)
    assert server.limits.used_bytes > 5 * ASGI_BYTES
    connection.connection_lost(None)
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    await turns()
    assert server.limits.used_bytes == 0


async def test_a_slow_client_that_gives_way_frees_its_requests_for_the_application_at_once(server: Server) -> None:
    connection, transport = server.connect(answer)
    connection.pause_writing()
    connection.data_received(GET * 5)
    connection.drop_slow_request()
    assert (transport.ended, server.limits.used_bytes) == ("aborted", 0)


@pytest.mark.parametrize("request_", [GET, PING, event()], ids=["the application", "a ping", "an event"])
async def test_a_client_that_reads_no_answers_has_a_limit_in_time(
    server: Server, request_: bytes, later: float
) -> None:
    connection, transport = server.connect(answer)
    connection.data_received(PING)
    transport.unsent_bytes = 100_000
    connection.pause_writing()
    connection.data_received(request_ * 3)
    await turns()
    connection.expire(now() + REQUEST_TIMEOUT_S - 1)
    assert transport.ended == ""
    transport.unsent_bytes -= 1
    connection.expire(later)
    connection.expire(later + REQUEST_TIMEOUT_S - 1)
    assert transport.ended == ""
    # More answers are no reason to wait longer.
    transport.unsent_bytes += 1_000
    connection.expire(later + REQUEST_TIMEOUT_S)
    assert transport.ended == "aborted"
    connection.connection_lost(None)
    for request in server.admitter.requests:
        request.admitted(Admission.CREATED)
    await turns()
    assert server.limits.used_bytes == 0


async def test_a_client_that_has_read_its_answers_may_take_as_long_for_the_next(server: Server) -> None:
    connection, transport = server.connect(answer)
    transport.unsent_bytes = 100_000
    connection.pause_writing()
    connection.resume_writing()
    connection.data_received(event())
    connection.expire(now() + 10 * REQUEST_TIMEOUT_S)
    assert transport.ended == ""


async def test_answers_that_come_while_nobody_reads_them_count(server: Server) -> None:
    connection, transport = server.connect()
    transport.unsent_bytes = 100_000
    connection.pause_writing()
    transport.unsent_bytes = 500_000
    connection.expire(now())
    assert server.limits.used_bytes == 500_000


# The end


def test_a_request_that_is_arriving_is_finished_before_the_end(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    connection.data_received(event("whole") + event("late")[:-1])
    connection.shutdown()
    assert transport.ended == ""
    connection.data_received(event("late")[-1:] + event("never"))
    whole, late = server.admitter.requests
    whole.admitted(Admission.CREATED)
    assert transport.ended == ""
    late.admitted(Admission.CREATED)
    assert (transport.statuses, transport.ended) == ([200, 200], "closed")
    assert transport.written.count(b"connection: close") == 1


@pytest.mark.parametrize(
    "beginning",
    [event("late")[:-1], event("late")[:9], PING[:-2], b"X Y\r\n\r\n"],
    ids=["a body", "a line", "a head", "refused input"],
)
def test_if_the_end_is_due_nobody_waits_for_the_client(
    server: Server, opened: tuple[Connection, FakeTransport], beginning: bytes
) -> None:
    connection, transport = opened
    connection.data_received(beginning)
    connection.shutdown()
    assert transport.ended != "aborted"
    connection.stop_waiting()
    assert transport.ended == "aborted"
    assert server.admitter.requests == []


def test_if_the_end_is_due_an_event_in_hand_is_still_answered(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, transport = opened
    connection.data_received(event())
    connection.shutdown()
    connection.stop_waiting()
    assert transport.ended == ""
    server.admitter.requests[0].admitted(Admission.CREATED)
    assert (transport.statuses, transport.ended) == ([200], "closed")


def test_an_idle_connection_ends_at_once(opened: tuple[Connection, FakeTransport]) -> None:
    connection, transport = opened
    connection.data_received(PING)
    connection.shutdown()
    assert transport.ended == "closed"


def test_the_memory_of_an_event_is_kept_until_the_pipeline_answers_even_if_the_client_is_gone(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    connection, _ = opened
    connection.data_received(event() + event()[:-1])
    connection.connection_lost(None)
    (request,) = server.admitter.requests
    assert server.limits.used_bytes == request.used_bytes > 0
    assert (list(server.limits.idle), list(server.limits.slow)) == ([], [])
    request.admitted(Admission.CREATED)
    assert server.limits.used_bytes == 0


def test_a_fault_of_our_own_is_answered_and_ends_the_connection(
    server: Server, opened: tuple[Connection, FakeTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, transport = opened

    monkeypatch.setattr(server.admitter, "admit", fail)
    connection.data_received(event() + PING)
    assert (transport.statuses, transport.ended) == ([500], "closed")


def test_a_fault_of_our_own_is_logged_with_its_address_whether_the_head_was_known(
    server: Server, opened: tuple[Connection, FakeTransport], parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, _ = opened
    connection.data_received(event())
    connection.data_received(PING)
    monkeypatch.setattr(server.admitter, "admit", fail)
    with capture_logs() as lines:
        connection.data_received(event())
    assert parsed == [event(), PING]
    assert [(line["event"], line["path"]) for line in lines] == [("request_failed", "/events")]


def fail(request: Request, ack: Ack) -> None:
    raise RuntimeError(request, ack)


@pytest.mark.parametrize(
    "bad",
    [b'"param":' + b"[" * 40 + b"]" * 40, b'"timestamp":1e300', b'"label":5', b'"label":"\\ud83d"', b'"label":"\xff"'],
)
@pytest.mark.parametrize("path", [b"/events/batch", b"/events"])
async def test_a_refused_event_leaves_nothing_for_the_collector_of_cycles(
    server: Server, bad: bytes, path: bytes
) -> None:
    connection, transport = server.connect()
    body = b'{"page":"a","event":"b",%b}' % bad
    if path == b"/events/batch":
        body = b"[%b]" % body
    request = b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (path, BEARER, len(body), body)
    connection.data_received(request)
    gc.collect()
    gc.disable()
    try:
        connection.data_received(request)
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert transport.statuses == [200 if path == b"/events/batch" else 400] * 2


def test_two_content_codings_are_refused_also_on_two_lines(opened: tuple[Connection, FakeTransport]) -> None:
    connection, transport = opened
    connection.data_received(event(head=b"Content-Encoding: br\r\nContent-Encoding: gzip\r\n"))
    assert transport.statuses == [415]


@pytest.mark.parametrize(
    ("coding", "status"), [(b"gzip, chunked", 501), (b"chunked, chunked", 400), (b"gzip", 400), (b"identity", 400)]
)
def test_another_transfer_coding_than_chunked_is_refused(
    opened: tuple[Connection, FakeTransport], coding: bytes, status: int
) -> None:
    connection, transport = opened
    head = event().partition(b"Content-Length")[0] + b"Transfer-Encoding: " + coding + b"\r\n\r\n"
    connection.data_received(head + b"0\r\n\r\n")
    assert transport.statuses == [status]
