"""A client's mistakes are refused with the reason, over real connections; and everything has a limit."""

from __future__ import annotations

import contextlib

import pytest

from forebay.intake.reader import HEADER_LINES_MAX
from testbed.servers.doors import BODY_BYTES_MAX, HEADER_BYTES_MAX
from testbed.servers.process_usage import resident_bytes
from testbed.traffic.requests import EVENT, PING, Client, assert_created, assert_problem, chunked, event, nested


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(b"{", [], id="cut off"),
        pytest.param(b"page=a&event=b", [], id="form"),
        pytest.param(EVENT + b"x", [], id="more behind it"),
        pytest.param(b"[]", [], id="array"),
        pytest.param(b"null", [], id="null"),
        pytest.param(b'{"page":"a","event":"b","label":"\xff"}', [], id="not UTF-8 in a field"),
        pytest.param(b'{"page":"a","event":"b","param":{"x":"\xc3\x28"}}', [], id="not UTF-8 in param"),
        pytest.param(b'{"page":"a","event":"b","x":"\xed\xa0\x80"}', [], id="half a surrogate pair in UTF-8"),
        pytest.param(b'{"page":"a","event":"b","param":{"x":NaN}}', [], id="no JSON in param"),
        pytest.param(b'{"event":"b"}', ["page"], id="page missing"),
        pytest.param(b'{"page":"a"}', ["event"], id="event missing"),
        pytest.param(b"{}", ["event", "page"], id="both missing"),
        pytest.param(b'{"page":"","event":"b"}', ["page"], id="page empty"),
        pytest.param(b'{"page":"a","event":""}', ["event"], id="event empty"),
        pytest.param(b'{"page":null,"event":7}', ["event", "page"], id="page null, event a number"),
        pytest.param(event(label=1, target=[], section={}), ["label", "section", "target"], id="wrong types"),
        pytest.param(event(log_id=5), ["log_id"], id="log_id a number"),
        pytest.param(event(log_id=""), ["log_id"], id="log_id empty"),
        pytest.param(event(log_id="x" * 513), ["log_id"], id="log_id of 513 characters"),
        pytest.param(event(log_id="日" * 171), ["log_id"], id="log_id of 513 bytes"),
        pytest.param(event(log_id="😀" * 129), ["log_id"], id="log_id of 516 bytes"),
        pytest.param(event(timestamp="yesterday"), ["timestamp"], id="timestamp no time"),
        pytest.param(event(timestamp=1e300), ["timestamp"], id="timestamp out of reach"),
        pytest.param(event(timestamp=0, sent_at=1e300), ["sent_at"], id="sent_at out of reach"),
        pytest.param(event(sent_at=True), ["sent_at"], id="sent_at no time"),
        pytest.param(b'{"page":"a","event":"b","param":%b}' % nested(33), ["param"], id="param too deep"),
        pytest.param(b'{"page":"a","event":"b","x":%b}' % nested(33), ["x"], id="unknown field too deep"),
        pytest.param(b'{"page":"a","event":"b","param":%b}' % nested(100_000), [], id="param 100,000 levels deep"),
        pytest.param(nested(100_000), [], id="body 100,000 levels deep"),
        pytest.param(b"[" * 200_000, [], id="body 200,000 levels deep and open"),
        pytest.param(
            b'{"event":5,"label":[],"log_id":"","sent_at":{},"x":%b}' % nested(40),
            ["event", "label", "log_id", "page", "sent_at", "x"],
            id="everything",
        ),
    ],
)  # fmt: skip
def test_a_bad_event_is_refused_with_every_field_at_fault(client: Client, body: bytes, fields: list[str]) -> None:
    with client.wire() as wire:
        assert_problem(wire.ask(client.request(body=body)), 400, *fields)
        assert_created(wire.ask(client.request()))


def test_a_log_id_can_be_required(other: Client) -> None:
    assert_problem(other.post(), 400, "log_id")
    assert_created(other.post(body=event(log_id="given")), "given")
    answer = other.post("/events/batch", b"[" + EVENT + b"," + event(log_id="given too") + b"]").json
    assert (answer["accepted"], answer["rejected"]) == (1, 1)


@pytest.mark.parametrize("media", ["text/html", "multipart/form-data", "application/jsonx", "json", ""])
def test_another_media_type_is_refused(client: Client, media: str) -> None:
    answer = client.post(content_type=media)
    assert_problem(answer, 415)
    accepted = answer.headers["accept"].split(", ")
    assert {"application/json", "text/plain", "application/x-www-form-urlencoded"} <= set(accepted)


@pytest.mark.parametrize("coding", ["compress", "identity, gzip"])
def test_another_coding_is_refused(client: Client, coding: str) -> None:
    answer = client.post(content_encoding=coding)
    assert_problem(answer, 415)
    assert answer.headers["accept-encoding"] == "gzip, deflate, br, zstd"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({"Content-Type": "text/html"}, 415),
        ({"Content-Encoding": "compress"}, 415),
    ],
)
def test_a_refused_head_keeps_the_connection_and_its_body_is_dropped(
    client: Client, headers: dict[str, str | None], status: int
) -> None:
    before = resident_bytes(client.server.pid)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(client.wire()) for _ in range(200)]
        body = event(log_id="never taken", param="x" * (BODY_BYTES_MAX - 1_000))
        request = client.request(body=body, headers=headers)
        for wire in wires:
            wire.send(request[:-1])
        # They would be 60 MB.
        assert wires[0].is_silent
        assert resident_bytes(client.server.pid) - before < 30_000_000
        for wire in wires[:20]:
            answer = wire.ask(request[-1:])
            assert_problem(answer, status)
            assert "connection" not in answer.headers
            assert_created(wire.ask(client.request()))
    assert client.stored("log_id = 'never taken'") == []


@pytest.mark.parametrize(("body_bytes", "is_kept"), [(BODY_BYTES_MAX, True), (3 * BODY_BYTES_MAX, False)])
def test_a_refused_head_with_a_chunked_body_keeps_the_connection_up_to_the_limit(
    client: Client, body_bytes: int, *, is_kept: bool
) -> None:
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked", "Authorization": None}
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers=headers) + chunked(b"x" * body_bytes, 50_000))
        assert_problem(wire.answer(), 401)
        if is_kept:
            assert_created(wire.ask(client.request()))
        else:
            wire.assert_closed()


def test_a_refused_head_that_announces_too_much_is_answered_at_once_with_its_own_reason(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": "10000000000", "Authorization": None}))
        assert_problem(wire.answer(), 401)
        wire.assert_closed()


# Limits


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(client: Client) -> None:
    body = EVENT + b" " * (BODY_BYTES_MAX - len(EVENT))
    assert_created(client.post(body=body))
    assert_problem(client.post(body=body + b" "), 413)


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(client: Client, path: str) -> None:
    with client.wire() as wire:
        wire.send(client.request(path, b"", {"Content-Length": str(BODY_BYTES_MAX + 1)}))
        answer = wire.answer()
        assert_problem(answer, 413)
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("length", [10**30, 2**63, 2**64])
def test_an_absurd_length_is_refused(client: Client, length: int) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": str(length)}))
        assert wire.answer().status in (400, 413)


def test_a_client_that_sends_on_still_sees_why_its_body_was_refused(client: Client) -> None:
    size = 20_000_000
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": str(size)}))
        wire.send(b"x" * size)
        assert_problem(wire.answer(), 413)
        wire.assert_closed()


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_sent(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}))
        for _ in range(100):
            wire.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        wire.send(b"0\r\n\r\n")
        assert_problem(wire.answer(), 413)
        wire.assert_closed()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X: " + b"x" * HEADER_BYTES_MAX, id="one header"),
        pytest.param(b"\r\n".join(b"X-%d: %b" % (number, b"x" * 90) for number in range(100)), id="many headers"),
        pytest.param(b"X: " + b"x" * 1_000_000, id="a huge header"),
    ],
)
def test_a_head_over_the_limit_is_refused(client: Client, head: bytes) -> None:
    with client.wire() as wire:
        wire.send_while_open(PING.removesuffix(b"\r\n") + head + b"\r\n\r\n", 1)
        answer = wire.answer()
        assert_problem(answer, 431)
        assert answer.headers["connection"] == "close"
        wire.assert_closed()


def head_of(size: int, start: bytes = PING) -> bytes:
    """Return a head of so many bytes: 50 lines, and one that fills it up."""
    lines = start.removesuffix(b"\r\n") + b"x: y\r\n" * 50
    return lines + b"z: %b\r\n\r\n" % (b"z" * (size - len(lines) - len(b"z: \r\n\r\n")))


@pytest.mark.parametrize("before", [b"", PING, PING * 200], ids=["alone", "behind one", "behind many"])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_head_at_the_limit_is_taken_and_one_byte_more_is_not(client: Client, before: bytes, pieces: int) -> None:
    for size, status in ((HEADER_BYTES_MAX, 200), (HEADER_BYTES_MAX + 1, 431)):
        data = before + head_of(size)
        with client.wire() as wire:
            step = -(-len(data) // pieces)
            for start in range(0, len(data), step):
                wire.send(data[start : start + step])
            assert [wire.answer().status for _ in range(before.count(PING))] == [200] * before.count(PING)
            assert wire.answer().status == status


@pytest.mark.parametrize("size", [HEADER_BYTES_MAX + 1_000, 17_000, 20_000, 33_000])
@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "upgrade"])
def test_a_head_over_the_limit_is_refused_however_it_is_cut(client: Client, size: int, upgrade: bytes) -> None:
    with client.wire() as wire:
        wire.send_while_open(head_of(size, PING.removesuffix(b"\r\n") + upgrade + b"\r\n"), 1)
        assert_problem(wire.answer(), 431)
        wire.assert_closed()


@pytest.mark.parametrize("before", [b"", PING], ids=["alone", "behind one"])
def test_an_open_head_over_the_limit_is_refused_though_nothing_more_comes(client: Client, before: bytes) -> None:
    with client.wire() as wire:
        wire.send(before)
        for _ in range(before.count(PING)):
            assert wire.answer().body == b"pong"
        wire.send(b"POST /events HTTP/1.1\r\nx: " + b"y" * HEADER_BYTES_MAX)
        assert_problem(wire.answer(), 431)
        wire.assert_closed()


def test_a_head_has_no_more_lines_than_the_limit(client: Client) -> None:
    def head(lines: int) -> bytes:
        return PING.removesuffix(b"\r\n") + b"x:y\r\n" * (lines - 1) + b"\r\n"

    with client.wire() as wire:
        assert wire.ask(head(HEADER_LINES_MAX)).body == b"pong"
        assert_problem(wire.ask(head(HEADER_LINES_MAX + 1) + PING), 431)
        wire.assert_closed()


def test_an_address_over_the_limit_is_refused(client: Client) -> None:
    with client.wire() as wire:
        wire.send(PING.replace(b"/ping", b"/ping?" + b"x" * HEADER_BYTES_MAX))
        assert_problem(wire.answer(), 431)


@pytest.mark.parametrize(
    "beginning", [b"GET /", b"GET /ping HTTP/1.1\r\nX: ", b"GET /ping HTTP/1.1\r\nX"], ids=["address", "value", "name"]
)
def test_a_head_without_end_is_refused_while_it_is_sent(client: Client, beginning: bytes) -> None:
    with client.wire() as wire:
        wire.send(beginning)
        wire.send_while_open(b"x" * 1_000, 1_000)
        assert_problem(wire.answer(), 431)
        wire.assert_closed()


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        pytest.param(b"0\r\n", b"x-trailer: " + b"y" * 10_000 + b"\r\n", id="trailers"),
        pytest.param(b"0\r\nx-trailer: ", b"y" * 10_000, id="one trailer"),
        pytest.param(b"5;", b"y" * 10_000, id="extension of a chunk"),
    ],
)
def test_the_lines_beside_a_chunked_body_have_a_limit_too(client: Client, beginning: bytes, piece: bytes) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}))
        wire.send(b"20\r\n" + EVENT + b"\r\n" + beginning)
        wire.send_while_open(piece, 1_000)
        assert_problem(wire.answer(), 431)
        wire.assert_closed()


def test_short_trailers_are_ignored(client: Client) -> None:
    with client.wire() as wire:
        headers = {"Content-Length": None, "Transfer-Encoding": "chunked", "Authorization": None}
        body = chunked(EVENT).removesuffix(b"\r\n") + f"Authorization: {client.bearer}\r\n\r\n".encode()
        assert_problem(wire.ask(client.request(body=b"", headers=headers) + body), 401)
