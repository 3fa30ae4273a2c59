"""Compressed requests on one connection, most of which wait until they are unpacked, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator

import jwt
import pytest
from structlog.testing import capture_logs

from forebay.intake.connection import EVENT_BYTES, Connection
from forebay.intake.formats import compressed
from forebay.intake.formats.compressed import CODINGS, PIECE_BYTES, Compressed
from forebay.intake.formats.format import Format, FormatOfHead
from forebay.intake.formats.registry import FORMATS
from forebay.intake.limits import RequestLimits
from forebay.model import Admission
from forebay.telemetry.counters import Overload
from forebay.tokens.claims import Scope
from forebay.tokens.keys import Key
from forebay.tokens.making import make_token
from forebay.tokens.provider import Provider
from testbed.traffic.packing import MIB, PACK, bomb
from unit.intake.fakes import REQUEST_LIMITS, SECRET, FakeTransport, LateKeys, Server

ISSUER = "https://id.example"
THEIR_SECRET = "another secret that is long enough"
OURS = make_token(SECRET, "alice", [Scope.WRITE], 86_400)
THEIRS = make_token(THEIR_SECRET, "bob", [Scope.WRITE], 86_400, iss=ISSUER)
KEY = Key("new", frozenset({"HS256"}), THEIR_SECRET, jwt.api_jws.decode)
EVENT = b'{"page":"/home","event":"click"}'
LARGE = b'{"page":"/home","event":"click","label":"%b"}' % (b"x" * 2 * PIECE_BYTES)
LIMIT = REQUEST_LIMITS.body_bytes_max

every_coding = pytest.mark.parametrize("coding", CODINGS)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def opened(server: Server) -> tuple[Connection, FakeTransport]:
    return server.connect()


@pytest.fixture(autouse=True)
def _nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens, it must not end in the log of asyncio or of Forebay."""
    with capture_logs() as lines, caplog.at_level("ERROR", "asyncio"):
        yield
    assert [*caplog.messages, *(line["event"] for line in lines if line["log_level"] == "error")] == []


def request(
    body: bytes, coding: str | None = "gzip", token: str | None = OURS, url: str = "/events", **headers: str
) -> bytes:
    """Return a request whose body is compressed already."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if coding is not None:
        lines.append(f"Content-Encoding: {coding}")
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"POST {url} HTTP/1.1", *lines, "", ""]).encode() + body


def send(opened: tuple[Connection, FakeTransport], *sent: bytes) -> None:
    for piece in sent:
        opened[0].data_received(piece)


async def unpack_all(server: Server) -> None:
    """Wait until nothing is packed any more, and everything of it is taken; the pipeline takes it as safe."""
    while server.intake.guard._unpacking.waiting:
        await asyncio.sleep(0.001)
    for _ in range(100):
        await asyncio.sleep(0)
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)


def labels(server: Server) -> list[int]:
    """Return the length of the label of each event that was taken."""
    documents = [
        json.loads(entry.split(b"\n")[1])
        for taken in server.admitter.requests
        for part in taken.parts
        for entry in part.entries
    ]
    return [len(document["event_info"].get("label", "")) for document in documents]


# Taken


@every_coding
@pytest.mark.parametrize("body", [EVENT, LARGE])
async def test_a_compressed_event_is_taken(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str, body: bytes
) -> None:
    send(opened, request(PACK[coding](body), coding.upper()))
    await unpack_all(server)
    assert (opened[1].statuses, server.limits.used_bytes) == ([200], 0)
    assert labels(server) == [2 * PIECE_BYTES if body is LARGE else 0]
    assert (server.counters.accepted, server.counters.rejected) == (1, 0)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.name}-{form.media_type}")
@pytest.mark.parametrize("coding", [coding for coding in CODINGS if coding != "x-gzip"])
async def test_every_format_may_be_compressed(form: Format, coding: str) -> None:
    taken = []
    path = form.example.path or form.paths[0]
    headers = {"Content-Type": form.media_type, **form.example.headers}
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    if isinstance(form, FormatOfHead) and "content-type" not in {name.lower() for name in form.example.headers}:
        del named["Content_Type"]
    for used, body in ((None, form.example.body), (coding, PACK[coding](form.example.body))):
        server = Server()
        opened = server.connect()
        send(opened, request(body, used, url=path, **named))
        await unpack_all(server)
        assert opened[1].statuses == [200], opened[1].written
        taken.append([request.events for request in server.admitter.requests])
    assert taken[0] == taken[1] != []


@every_coding
async def test_a_request_in_any_pieces_is_taken(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str
) -> None:
    sent = request(PACK[coding](LARGE), coding)
    for cut in (1, len(sent) // 2, len(sent) - 1):
        send(opened, sent[:cut], sent[cut:])
    send(opened, *(sent[place : place + 1] for place in range(len(sent))))
    await unpack_all(server)
    assert (opened[1].statuses, len(labels(server)), server.limits.used_bytes) == ([200] * 4, 4, 0)


@every_coding
@pytest.mark.parametrize("body", [EVENT, LARGE])
async def test_chunks_are_put_together_before_they_are_unpacked(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str, body: bytes
) -> None:
    packed = PACK[coding](body)
    chunks = b"".join(b"1\r\n%b\r\n" % packed[place : place + 1] for place in range(len(packed))) + b"0\r\n\r\n"
    send(opened, request(chunks, coding, Transfer_Encoding="chunked"))
    await unpack_all(server)
    assert (opened[1].statuses, len(labels(server)), server.limits.used_bytes) == ([200], 1, 0)


@pytest.mark.parametrize("body", [EVENT, LARGE])
async def test_a_client_that_asks_first_may_send_its_body(
    server: Server, opened: tuple[Connection, FakeTransport], body: bytes
) -> None:
    head, end, packed = request(PACK["gzip"](body), Expect="100-continue").partition(b"\r\n\r\n")
    send(opened, head + end)
    assert opened[1].statuses == [100]
    send(opened, packed)
    await unpack_all(server)
    assert (opened[1].statuses, len(labels(server))) == ([100, 200], 1)


@pytest.mark.parametrize("coding", ["identity", "Identity", " ", ""])
async def test_a_body_without_a_coding_may_say_so(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str
) -> None:
    send(opened, request(EVENT, coding))
    await unpack_all(server)
    assert opened[1].statuses == [200]


# Refused


@pytest.mark.parametrize("coding", ["compress", "gzip, br", "gzip,gzip", "identity, gzip", "gzip;q=1", "aws-chunked"])
@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}])
async def test_unknown_codings_and_several_at_once_are_refused(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str, expect: dict[str, str]
) -> None:
    send(opened, request(PACK["gzip"](EVENT), coding, **expect))
    assert opened[1].statuses == [415]
    assert b"accept-encoding: gzip, deflate, br, zstd\r\n" in opened[1].written
    assert (server.admitter.requests, server.limits.used_bytes) == ([], 0)


@every_coding
@pytest.mark.parametrize("url", ["/events", "/events/batch"])
async def test_a_bomb_is_refused(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str, url: str
) -> None:
    send(opened, request(bomb(coding, 10 * MIB), coding, url=url), request(EVENT, None))
    await unpack_all(server)
    assert (opened[1].statuses, server.limits.used_bytes) == ([413, 200], 0)
    assert (server.counters.rejected, server.counters.accepted) == (1, 1)


@every_coding
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_the_limit_is_that_of_a_plain_body(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str, size: int, status: int
) -> None:
    body = EVENT + b" " * (size - len(EVENT))
    send(opened, request(PACK[coding](body), coding))
    await unpack_all(server)
    assert (opened[1].statuses, server.limits.used_bytes) == ([status], 0)


@every_coding
@pytest.mark.parametrize("body", [EVENT, LARGE])
async def test_a_damaged_body_is_refused(
    server: Server, opened: tuple[Connection, FakeTransport], coding: str, body: bytes
) -> None:
    packed = PACK[coding](body)
    send(opened, request(packed[:-1], coding), request(packed + b"x", coding), request(body, coding))
    await unpack_all(server)
    assert (opened[1].statuses, server.limits.used_bytes) == ([400] * 3, 0)
    assert server.admitter.requests == []


async def test_a_compressed_body_is_limited_itself(opened: tuple[Connection, FakeTransport]) -> None:
    send(opened, request(b"x" * (LIMIT + 1)))
    assert opened[1].statuses == [413]


# Tokens


@pytest.mark.parametrize("body", [EVENT, LARGE])
@pytest.mark.parametrize("url", ["/events", f"/events?access_token={OURS}"])
async def test_a_beacon_may_be_compressed_if_its_token_is_in_the_head(
    server: Server, opened: tuple[Connection, FakeTransport], body: bytes, url: str
) -> None:
    token = None if "?" in url else OURS
    send(opened, request(PACK["gzip"](body), token=token, url=url, Content_Type="text/plain"))
    await unpack_all(server)
    assert (opened[1].statuses, len(labels(server))) == ([200], 1)


async def test_a_token_is_not_unpacked(server: Server, opened: tuple[Connection, FakeTransport]) -> None:
    body = json.dumps({"page": "/home", "event": "click", "access_token": OURS}).encode()
    send(opened, request(PACK["gzip"](body), token=None, Content_Type="text/plain"))
    assert (opened[1].statuses, server.admitter.requests) == ([401], [])


@pytest.mark.parametrize("body", [EVENT, LARGE])
@pytest.mark.parametrize(("keys_there", "status"), [((KEY,), 200), ((), 401)])
async def test_a_body_is_unpacked_once_the_key_of_its_token_is_there(
    server: Server, opened: tuple[Connection, FakeTransport], body: bytes, keys_there: tuple[Key, ...], status: int
) -> None:
    keys = LateKeys()
    server.verifier.add(ISSUER, Provider(keys, frozenset({"HS256"}), ISSUER))
    packed = PACK["gzip"](body)
    send(opened, request(packed, token=THEIRS))
    await unpack_all(server)
    assert (opened[1].statuses, keys.waiting, server.limits.used_bytes) == ([], 1, len(packed))
    keys.publish(*keys_there)
    for _ in range(10):
        await asyncio.sleep(0)
    await unpack_all(server)
    assert (opened[1].statuses, server.limits.used_bytes) == ([status], 0)
    assert [taken.grant.claims.user_id for taken in server.admitter.requests] == ["bob"] * (status == 200)


# Known heads


@pytest.mark.parametrize("body", [EVENT, LARGE])
async def test_a_known_head_is_good_for_every_body(
    server: Server, opened: tuple[Connection, FakeTransport], body: bytes
) -> None:
    for number in range(4):
        send(opened, request(PACK["gzip"](body.replace(b"/home", b"/%d" % number))))
    await unpack_all(server)
    assert opened[1].statuses == [200] * 4
    pages = [entry.split(b'"page":"')[1][:2] for taken in server.admitter.requests for entry in taken.parts[0].entries]
    assert sorted(pages) == [b"/0", b"/1", b"/2", b"/3"]
    (grant,) = server.intake.heads._grants.values()
    assert type(grant.format) is Compressed


async def test_one_head_for_plain_and_one_for_compressed_bodies(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    for _ in range(2):
        send(opened, request(PACK["gzip"](EVENT)), request(EVENT, None), request(PACK["zstd"](EVENT), "zstd"))
    await unpack_all(server)
    assert (opened[1].statuses, len(server.intake.heads._grants)) == ([200] * 6, 3)


# Waiting


async def test_answers_leave_in_the_order_of_their_requests(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    packed, broken = (request(PACK["br"](body), "br") for body in (LARGE, b"{"))
    send(opened, packed, request(EVENT, None), broken, request(b"{", None), packed)
    assert len(server.admitter.requests) == 1
    for taken in server.admitter.requests:
        taken.admitted(Admission.CREATED)
    assert opened[1].written == b""
    await unpack_all(server)
    assert opened[1].statuses == [200, 200, 400, 400, 200]
    assert server.limits.used_bytes == 0


async def test_others_are_served_meanwhile(server: Server, opened: tuple[Connection, FakeTransport]) -> None:
    send(opened, *[request(bomb("br", 10 * MIB), "br")] * 20)
    other = server.connect()
    while server.intake.guard._unpacking.waiting:
        send(other, request(EVENT, None))
        server.admitter.requests[-1].admitted(Admission.CREATED)
        await asyncio.sleep(0)
    assert len(other[1].statuses) > 1
    await unpack_all(server)
    assert (set(other[1].statuses), opened[1].statuses) == ({200}, [413] * 20)


async def test_a_body_takes_its_memory_while_it_waits_and_its_events_until_they_are_answered(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    packed = PACK["gzip"](LARGE)
    send(opened, request(packed))
    assert server.limits.used_bytes == len(packed)
    while not server.admitter.requests:
        await asyncio.sleep(0.001)
    (taken,) = server.admitter.requests
    assert server.limits.used_bytes == taken.entry_bytes + EVENT_BYTES > 2 * PIECE_BYTES
    taken.admitted(Admission.CREATED)
    assert (opened[1].statuses, server.limits.used_bytes) == ([200], 0)


async def test_those_who_wait_leave_half_of_the_memory_to_others() -> None:
    server = Server(in_hand_bytes_max=LIMIT)
    opened = server.connect()
    packed = PACK["gzip"](LARGE) + PACK["gzip"](b" ")
    fitting = LIMIT // 2 // len(packed)
    server.limits.used_bytes += (fitting - 1) * len(packed)
    send(opened, *[request(packed)] * 2)
    await unpack_all(server)
    assert opened[1].statuses == [200, 503]
    assert server.counters.crowded == {Overload.NEW_REQUEST: 1}
    assert server.limits.used_bytes == (fitting - 1) * len(packed)


async def test_too_many_who_wait_may_come_again(
    monkeypatch: pytest.MonkeyPatch, server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    monkeypatch.setattr(compressed, "WAITING_MAX", 3)
    send(opened, *[request(PACK["gzip"](LARGE))] * 5, request(PACK["gzip"](EVENT)))
    await unpack_all(server)
    assert opened[1].statuses == [200, 200, 200, 503, 503, 200]
    assert opened[1].written.count(b"retry-after: 2\r\n") == 2
    assert server.limits.used_bytes == 0


@pytest.mark.parametrize("body", [LARGE, bytes(LIMIT + 1)])
async def test_if_the_client_leaves_meanwhile_nothing_is_taken(
    server: Server, opened: tuple[Connection, FakeTransport], body: bytes
) -> None:
    send(opened, *[request(PACK["gzip"](body))] * 2, request(PACK["gzip"](body))[:-5])
    opened[1].abort()
    opened[0].connection_lost(None)
    await unpack_all(server)
    assert (server.admitter.requests, opened[1].written, server.limits.used_bytes) == ([], b"", 0)
    assert server.counters.requests == {}


async def test_a_client_that_sends_nothing_more_gets_its_answer(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    send(opened, request(PACK["gzip"](LARGE)))
    assert opened[0].eof_received()
    await unpack_all(server)
    assert (opened[1].statuses, opened[1].ended) == ([200], "closed")


@pytest.mark.parametrize(("body", "status"), [(LARGE, 200), (bytes(LIMIT + 1), 413)])
async def test_at_the_end_a_request_that_waits_is_finished(
    server: Server, opened: tuple[Connection, FakeTransport], body: bytes, status: int
) -> None:
    send(opened, request(PACK["gzip"](body)))
    opened[0].shutdown()
    assert opened[1].ended == ""
    await unpack_all(server)
    assert (opened[1].statuses, opened[1].ended, server.limits.used_bytes) == ([status], "closed", 0)


async def test_if_somebody_is_shut_out_meanwhile_the_client_is_to_send_again(
    server: Server, opened: tuple[Connection, FakeTransport]
) -> None:
    send(opened, request(PACK["gzip"](LARGE)))
    server.denials.version += 1
    await unpack_all(server)
    assert (opened[1].statuses, server.limits.used_bytes) == ([503], 0)
    assert b"retry-after: 1\r\n" in opened[1].written
    send(opened, request(PACK["gzip"](LARGE)))
    await unpack_all(server)
    assert opened[1].statuses == [503, 200]


# Rates


@pytest.fixture
async def limited() -> tuple[Server, tuple[Connection, FakeTransport]]:
    server = Server(token_quota_per_day=3)
    return server, server.connect()


def counted(server: Server) -> float:
    ((_, events),) = server.intake.guard.rates._counts["token"].items()
    return events


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_events_are_counted_once(limited: tuple[Server, tuple[Connection, FakeTransport]], coding: str) -> None:
    server, opened = limited
    sent = request(PACK[coding](b"[%b,%b]" % (LARGE, EVENT)), coding, url="/events/batch")
    send(opened, sent)
    assert counted(server) == 0
    await unpack_all(server)
    assert counted(server) == 2
    send(opened, sent, sent)
    await unpack_all(server)
    # The second was taken whole, as there was room for one event; the third had to wait until then.
    assert (counted(server), opened[1].statuses) == (4, [200, 200, 429])
    send(opened, sent)
    assert (opened[1].statuses, server.limits.used_bytes) == ([200, 200, 429, 429], 0)


async def test_bombs_and_those_who_may_come_again_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, limited: tuple[Server, tuple[Connection, FakeTransport]]
) -> None:
    monkeypatch.setattr(compressed, "WAITING_MAX", 2)
    server, opened = limited
    send(opened, *[request(PACK["gzip"](bytes(LIMIT + 1)))] * 3, request(PACK["gzip"](EVENT)[:-1]))
    await unpack_all(server)
    assert (opened[1].statuses, counted(server)) == ([413, 413, 503, 400], 0)


async def test_if_the_client_leaves_its_events_are_not_counted(
    limited: tuple[Server, tuple[Connection, FakeTransport]],
) -> None:
    server, opened = limited
    send(opened, request(PACK["gzip"](LARGE)))
    opened[1].abort()
    opened[0].connection_lost(None)
    await unpack_all(server)
    assert counted(server) == 0


# Cycles


@pytest.mark.parametrize(("body", "status"), [(EVENT, 200), (LARGE, 200), (b"{", 400), (bytes(LIMIT + 1), 413)])
@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_a_compressed_request_leaves_nothing_for_the_collector_of_cycles(
    body: bytes, status: int, coding: str
) -> None:
    for is_first in (True, False):
        server = Server()
        opened = server.connect()
        gc.collect()
        gc.disable()
        try:
            send(opened, request(PACK[coding](body), coding), request(PACK[coding](EVENT)[:-1], coding))
            await unpack_all(server)
            assert opened[1].statuses == [status, 400]
            assert is_first or gc.collect() == 0
        finally:
            gc.enable()


async def test_limits_of_a_small_server_hold(opened: tuple[Connection, FakeTransport]) -> None:
    del opened
    server = Server(RequestLimits(header_bytes_max=4_000, body_bytes_max=1_024, batch_events_max=2))
    small = server.connect()
    three = b"[%b]" % b",".join([EVENT] * 3)
    send(small, request(PACK["gzip"](three), url="/events/batch"), request(PACK["gzip"](bytes(1_025))))
    await unpack_all(server)
    assert small[1].statuses == [413, 413]
