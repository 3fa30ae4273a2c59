"""The way in, over real connections to the real server: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http
import json
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from servers.forebay import SECRET, ForebayServer, ForebayStartError
from servers.ports import HOST, free_ports

BODY_BYTES_MAX = 300_000
HEADER_BYTES_MAX = 8_192
BATCH_EVENTS_MAX = 50
LIMITS = {
    "FOREBAY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
    "FOREBAY_HEADER_BYTES_MAX": str(HEADER_BYTES_MAX),
    "FOREBAY_BATCH_EVENTS_MAX": str(BATCH_EVENTS_MAX),
    "FOREBAY_BULK_INTERVAL_S": "0.1",
}
TIMEOUT_S = 15.0
EVENT = b'{"page":"/home","event":"click"}'
PING = b"GET /ping HTTP/1.1\r\nHost: forebay\r\n\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: forebay\r\n\r\n"
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection on which every byte is the test's own."""

    def __init__(self, server: ForebayServer, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect((HOST, server.port))
        except OSError:
            self.socket.close()
            raise
        # Each piece is to arrive as one.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_while_open(self, data: bytes, times: int) -> None:
        """Send on and on, as a client does that looks at the answer only when it has sent everything."""
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                self.socket.sendall(data)

    def answer(self, *, to_head: bool = False) -> Answer:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, phrase = first.split(" ", 2)
        assert (version, phrase) == ("HTTP/1.1", http.HTTPStatus(int(status)).phrase)
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if to_head else int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(int(status), headers, body)

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come that was not read."""
        self.socket.setblocking(False)  # noqa: FBT003 - positional only
        try:
            return not self._received and not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT_S)

    def assert_closed(self) -> None:
        """Wait for the end of the connection, before which nothing more may come."""
        assert self._received == b""
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1_000) == b""

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError(f"closed after {self._received!r}")
        self._received += data


class Client:
    """Makes requests for one server, with a valid token unless the test says otherwise."""

    def __init__(self, server: ForebayServer, bearer: str | None = None) -> None:
        self.server = server
        self.bearer = bearer or f"Bearer {server.token()}"

    def request(
        self,
        path: str = "/events",
        body: bytes | None = EVENT,
        headers: Mapping[str, str | None] | None = None,
        method: str = "POST",
        version: str = "1.1",
    ) -> bytes:
        """Return a request; a header that is None is left out."""
        lines: dict[str, str | None] = {"Host": "forebay", "Authorization": self.bearer}
        if body is not None:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + (body or b"")

    def wire(self) -> Wire:
        return Wire(self.server)

    def post(self, path: str = "/events", body: bytes = EVENT, **headers: str | None) -> Answer:
        """Send one request on a connection of its own; underscores in names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.wire() as wire:
            return wire.ask(self.request(path, body, named))

    def get(self, path: str, authorization: str | None = None, method: str = "GET") -> Answer:
        with self.wire() as wire:
            wire.send(self.request(path, None, {"Authorization": authorization}, method))
            return wire.answer(to_head=method == "HEAD")

    def document(self, log_id: str) -> Any:
        """Wait for an event to arrive in the embedded store, and return its document."""
        return self.documents([log_id])[0]

    def documents(self, log_ids: list[str]) -> list[Any]:
        deadline = time.monotonic() + TIMEOUT_S
        found: dict[str, str] = {}
        while time.monotonic() < deadline:
            # The server makes the store behind its start.
            with contextlib.suppress(sqlite3.OperationalError):
                found = dict(self.stored(f"log_id IN ({','.join('?' * len(log_ids))})", log_ids))
            if len(found) == len(set(log_ids)):
                return [json.loads(found[log_id]) for log_id in log_ids]
            time.sleep(0.02)
        raise AssertionError(f"not delivered: {set(log_ids) - found.keys()}")

    def stored(self, condition: str, values: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Return `log_id` and document of events in the embedded store, as they are now."""
        uri = f"{(self.server.folder / 'spool-events.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as store:
            return store.execute(f"SELECT log_id, document FROM events WHERE {condition}", values).fetchall()  # noqa: S608


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with small limits and the usual patience."""
    with ForebayServer(tmp_path_factory.mktemp("server"), LIMITS) as server:
        server.start()
        yield Client(server)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that waits for nobody."""
    settings = {**LIMITS, "FOREBAY_REQUEST_TIMEOUT_S": "0.5", "FOREBAY_KEEP_ALIVE_S": "0.5"}
    with ForebayServer(tmp_path_factory.mktemp("hasty"), settings) as server:
        server.start()
        yield Client(server)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with the settings that are off elsewhere."""
    settings = {
        **LIMITS,
        "FOREBAY_REQUIRE_LOG_ID": "true",
        "FOREBAY_METRICS_OPEN": "true",
        "FOREBAY_ACK": "memory",
        "FOREBAY_LOG_FORMAT": "text",
    }
    with ForebayServer(tmp_path_factory.mktemp("other"), settings) as server:
        server.start()
        yield Client(server)


def assert_problem(answer: Answer, status: int, *fields: str) -> None:
    """Look at a refusal as a client sees it: problem details, with exactly these fields to blame."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    errors = problem.pop("errors", [])
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert (problem["type"], problem["title"]) == ("about:blank", http.HTTPStatus(status).phrase)
    assert problem["status"] == status
    assert problem["detail"]
    assert [error["field"] for error in errors] == list(fields)
    assert all(error.keys() == {"field", "reason"} and error["reason"] for error in errors)


def assert_created(answer: Answer, log_id: str | None = None) -> str:
    """Look at the answer to an event that was taken, and return its `log_id`."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert body.keys() == {"status", "log_id"}
    assert body["status"] == "created"
    if log_id is not None:
        assert body["log_id"] == log_id
    return str(body["log_id"])


def event(**fields: Any) -> bytes:
    return json.dumps({"page": "/home", "event": "click"} | fields, ensure_ascii=False).encode()


def chunked(body: bytes, size: int = 7) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# Ping


@pytest.mark.parametrize("target", ["/ping", "/ping?x=1", "/p%69ng", "http://forebay/ping", "http://forebay:1/ping?x"])
def test_ping_is_answered_without_a_token(client: Client, target: str) -> None:
    answer = client.get(target)
    assert (answer.status, answer.body) == (200, b"pong")
    assert answer.headers["date"].endswith(" GMT")


def test_ping_by_head_has_no_body_and_leaves_the_connection_open(client: Client) -> None:
    with client.wire() as wire:
        for _ in range(3):
            wire.send(PING.replace(b"GET", b"HEAD"))
            answer = wire.answer(to_head=True)
            assert (answer.status, answer.headers["content-length"]) == (200, "4")
        assert wire.ask(PING).body == b"pong"


# Events that are taken


@pytest.mark.parametrize("log_id", ["my-1", "01a20cea-e993-767e-9b6e-e60ffa0e7691", '日本 😀 " \\ \n \x00', "x" * 512])
def test_an_event_is_answered_with_its_own_log_id(client: Client, log_id: str) -> None:
    assert_created(client.post(body=event(log_id=log_id)), log_id)
    assert client.document(log_id)["log_id"] == log_id


def test_an_event_without_log_id_is_answered_with_a_new_uuid7(client: Client) -> None:
    first, second = (assert_created(client.post()) for _ in range(2))
    assert first != second
    for log_id in (first, second):
        parsed = uuid.UUID(log_id)
        assert parsed.version == 7
        assert abs((parsed.int >> 80) / 1000 - time.time()) < 60
        assert client.document(log_id)["log_id"] == log_id


def test_a_document_says_what_was_sent_and_by_whom(client: Client) -> None:
    sent = event(label="l", param={"k": [1.50, "日本"]}, experiment={"arm": 2}, timestamp="2026-01-02T03:04:05+09:00")
    answer = client.post(
        body=sent, device_uuid="3f0a", app_version="4.2.1", os_version="iOS 19", user_agent="app/1 (日本)"
    )
    document = client.document(assert_created(answer))
    assert document["user_id"] == "tester"
    assert (document["device_uuid"], document["app_version"], document["os_version"]) == ("3f0a", "4.2.1", "iOS 19")
    assert document["user_agent"] == "app/1 (日本)"
    assert document["@timestamp"] == "2026-01-01T18:04:05Z"
    assert document["event_info"] == {
        "page": "/home",
        "event": "click",
        "label": "l",
        "param": {"k": [1.5, "日本"]},
        "extra": {"experiment": {"arm": 2}},
    }


def test_newlines_within_an_event_split_nothing(client: Client) -> None:
    body = b'{\n"page": "a",\r\n"event": "b",\n"log_id": "lines",\n"param": {\n"k":\n[\n1]\n}\n}\n'
    assert_created(client.post(body=body), "lines")
    assert client.document("lines")["event_info"]["param"] == {"k": [1]}


def test_an_event_sent_twice_is_there_once(client: Client) -> None:
    for _ in range(2):
        assert_created(client.post(body=event(log_id="twice")), "twice")
    assert client.document("twice")
    assert_created(client.post(body=event(log_id="after twice")))
    client.document("after twice")
    assert len(client.stored("log_id = 'twice'")) == 1


@pytest.mark.parametrize(
    "media", [None, "application/json", "application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_may_be_called_so_in_many_ways(client: Client, media: str | None) -> None:
    assert_created(client.post(content_type=media))


@pytest.mark.parametrize("coding", ["", "identity"])
def test_a_body_that_is_not_compressed_may_say_so(client: Client, coding: str) -> None:
    assert_created(client.post(content_encoding=coding))


# Batches


def test_a_batch_is_an_array(client: Client) -> None:
    answer = client.post("/events/batch", b"[" + event(log_id="array-1") + b"," + EVENT + b"]")
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejected"]) == (2, 0)
    first, second = answer.json["results"]
    assert first == {"index": 0, "log_id": "array-1", "status": "created"}
    assert (second["index"], second["status"], uuid.UUID(second["log_id"]).version) == (1, "created", 7)
    client.documents(["array-1", second["log_id"]])


def test_a_batch_is_an_object_with_the_clients_clock(client: Client) -> None:
    an_hour_ago = int((time.time() - 3600) * 1000)
    wrong = 10**12
    events = event(log_id="clock", timestamp=wrong)
    answer = client.post("/events/batch", b'{"events":[%b],"sent_at":%d}' % (events, wrong + 3_600_000))
    assert answer.json["accepted"] == 1
    happened_at = client.document("clock")["@timestamp"]
    assert (
        abs(time.mktime(time.strptime(happened_at[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - an_hour_ago / 1000) < 60
    )


def test_bad_events_of_a_batch_are_named_by_their_index_and_good_ones_taken(client: Client) -> None:
    events = [
        event(log_id="good-0"),
        b'{"event":"click"}',
        b"5",
        event(log_id="x" * 513),
        event(log_id="good-4", param={"nested": [1]}),
        b'{"page":"","event":[],"label":1}',
        b'{"page":"a","event":"b","param":%b}' % nested(33),
        event(log_id="good-7"),
    ]
    answer = client.post("/events/batch", b"[" + b",".join(events) + b"]")
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejected"]) == (3, 5)
    results = answer.json["results"]
    assert [result["index"] for result in results] == list(range(8))
    assert [result["status"] for result in results] == [
        "created", "rejected", "rejected", "rejected", "created", "rejected", "rejected", "created",
    ]  # fmt: skip
    assert [[error["field"] for error in result.get("error", {}).get("errors", [])] for result in results] == [
        [], ["page"], [], ["log_id"], [], ["event", "label", "page"], ["param"], [],
    ]  # fmt: skip
    assert all(result["error"]["detail"] for result in results if result["status"] == "rejected")
    client.documents(["good-0", "good-4", "good-7"])


def test_an_empty_batch_is_no_mistake(client: Client) -> None:
    for body in (b"[]", b'{"events":[]}'):
        assert client.post("/events/batch", body).json == {"accepted": 0, "rejected": 0, "results": []}


def test_a_batch_of_bad_events_only_is_answered_too(client: Client) -> None:
    assert client.post("/events/batch", b"[1,2]").json["rejected"] == 2


def test_a_batch_has_no_more_events_than_the_limit(client: Client) -> None:
    most = b"[" + b",".join([EVENT] * BATCH_EVENTS_MAX) + b"]"
    assert client.post("/events/batch", most).json["accepted"] == BATCH_EVENTS_MAX
    assert_problem(client.post("/events/batch", most[:-1] + b"," + EVENT + b"]"), 413)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"5", b'"x"', b"[", b"[1,", b'{"events":5}', b'{"events":[],"sent_at":"x"}', nested(100_000)]
)
def test_what_is_no_batch_is_refused_as_a_whole(client: Client, body: bytes) -> None:
    assert_problem(client.post("/events/batch", body), 400)


# Bad input


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
def test_a_bad_event_is_refused_with_every_field_that_is_to_blame(
    client: Client, body: bytes, fields: list[str]
) -> None:
    with client.wire() as wire:
        assert_problem(wire.ask(client.request(body=body)), 400, *fields)
        assert_created(wire.ask(client.request()))


def test_a_log_id_can_be_made_a_duty(other: Client) -> None:
    assert_problem(other.post(), 400, "log_id")
    assert_created(other.post(body=event(log_id="given")), "given")
    answer = other.post("/events/batch", b"[" + EVENT + b"," + event(log_id="given too") + b"]").json
    assert (answer["accepted"], answer["rejected"]) == (1, 1)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", ""])
def test_another_media_type_is_refused(client: Client, media: str) -> None:
    answer = client.post(content_type=media)
    assert_problem(answer, 415)
    assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "identity, gzip"])
def test_a_compressed_body_is_refused(client: Client, coding: str) -> None:
    answer = client.post(content_encoding=coding)
    assert_problem(answer, 415)
    assert answer.headers["accept-encoding"] == "identity"


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
def test_a_length_beyond_all_numbers_is_refused(client: Client, length: int) -> None:
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
def test_what_stands_beside_a_chunked_body_has_a_limit_too(client: Client, beginning: bytes, piece: bytes) -> None:
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


# Addresses and methods


@pytest.mark.parametrize("path", ["/", "/event", "/events/", "/events/batch/", "/events//batch", "/EVENTS", "//events"])
def test_an_unknown_address_is_told_to_those_with_a_token_only(client: Client, path: str) -> None:
    assert_problem(client.get(path, client.bearer), 404)
    answer = client.get(path)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_an_event_address_says_which_method_it_takes(client: Client, path: str, method: str) -> None:
    answer = client.get(path, client.bearer, method)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert_problem(client.get(path, None, method), 401)


def test_ping_says_which_methods_it_takes(client: Client) -> None:
    answer = client.get("/ping", None, "DELETE")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "target", ["http://forebay/events", "http://user@[::1]:80/events?x=1", "/%65vents", "/events?"]
)
def test_an_address_may_be_written_in_many_ways(client: Client, target: str) -> None:
    assert_created(client.post(target))


@pytest.mark.parametrize("target", ["http://forebay", "http://", "http://forebay:99999/ping", "http://[/ping", "ping"])
def test_what_is_no_address_is_refused(client: Client, target: str) -> None:
    with client.wire() as wire:
        wire.send(client.request(target, None, method="GET"))
        assert_problem(wire.answer(), 400)
        wire.assert_closed()


# Acknowledgement


@pytest.mark.parametrize("query", ["ack=memory", "ack=disk", "ack=", "x=1", "ack=disk&ack=memory", "ack=mem%6Fry"])
def test_a_request_may_choose_its_acknowledgement(client: Client, query: str) -> None:
    log_id = f"query {query}"
    assert_created(client.post(f"/events?{query}", event(log_id=log_id)), log_id)
    assert client.post(f"/events/batch?{query}", b"[" + EVENT + b"]").json["accepted"] == 1
    client.document(log_id)


@pytest.mark.parametrize("query", ["ack=nonsense", "ack=MEMORY", "ack=memory&ack=tape", "ack=%ff"])
def test_an_acknowledgement_that_there_is_not_is_refused(client: Client, query: str) -> None:
    assert_problem(client.post(f"/events?{query}"), 400, "ack")


def test_acknowledgement_from_memory_can_be_the_rule(other: Client) -> None:
    assert_created(other.post(body=event(log_id="from memory")), "from memory")
    assert_created(other.post("/events?ack=disk", event(log_id="from disk")), "from disk")
    other.documents(["from memory", "from disk"])


# Tokens


def forge(header: bytes, secret: bytes, **claims: Any) -> str:
    """Return a token that no library would make."""
    payload = json.dumps({"sub": "mallory", "exp": int(time.time()) + 3600} | claims).encode()
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def sign_by_rs256() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return jwt.encode({"sub": "mallory", "exp": int(time.time()) + 3600}, key, "RS256")


def confuse_with_public_key() -> str:
    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return forge(b'{"alg":"HS256"}', pem)


HS256 = b'{"alg":"HS256","typ":"JWT"}'
BAD_TOKENS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no token": lambda: "nonsense",
    "three dots": lambda: "a.b.c",
    "not ASCII": lambda: "日本.日本.日本",
    "wrong signature": lambda: forge(HS256, b"another key, which is long enough too"),
    "no signature": lambda: forge(HS256, b""),
    "expired": lambda: forge(HS256, SECRET.encode(), exp=int(time.time()) - 1),
    "not yet valid": lambda: forge(HS256, SECRET.encode(), nbf=int(time.time()) + 3600),
    "alg none": lambda: forge(b'{"alg":"none"}', b""),
    "alg none, signed": lambda: forge(b'{"alg":"none"}', SECRET.encode()),
    "alg HS512": lambda: jwt.encode({"sub": "a", "exp": int(time.time()) + 3600}, SECRET * 2, "HS512"),
    "alg HS512 by name only": lambda: forge(b'{"alg":"HS512"}', SECRET.encode()),
    "alg RS256": sign_by_rs256,
    "alg RS256 by name only": lambda: forge(b'{"alg":"RS256"}', SECRET.encode()),
    "signed with a public key": confuse_with_public_key,
    "no alg": lambda: forge(b"{}", SECRET.encode()),
    "no exp": lambda: forge(HS256, SECRET.encode(), exp=None),
    "exp no time": lambda: forge(HS256, SECRET.encode(), exp="later"),
    "exp beyond all numbers": lambda: forge(HS256, SECRET.encode(), exp=10**400),
    "no sub": lambda: forge(HS256, SECRET.encode(), sub=None),
    "empty sub": lambda: forge(HS256, SECRET.encode(), sub=""),
    "sub no text": lambda: forge(HS256, SECRET.encode(), sub=5),
    "sub that fits into no document": lambda: forge(HS256, SECRET.encode(), sub="\ud83d"),
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_token_that_is_not_valid_is_refused(client: Client, token: Callable[[], str]) -> None:
    for path in ("/events", "/events/batch"):
        answer = client.post(path, Authorization=f"Bearer {token()}")
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


def test_a_request_without_a_token_is_refused(client: Client) -> None:
    for path in ("/events", "/events/batch"):
        answer = client.post(path, Authorization=None)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic dXNlcjpwYXNz", "Token x", "bearer: x"])
def test_an_authorization_of_another_kind_is_refused(client: Client, authorization: str) -> None:
    assert_problem(client.post(Authorization=authorization), 401)


def test_a_token_that_expires_is_refused_from_then_on(client: Client) -> None:
    token = f"Bearer {client.server.token(exp=int(time.time()) + 2)}"
    assert_created(client.post(Authorization=token))
    deadline = time.monotonic() + TIMEOUT_S
    while client.post(Authorization=token).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert_problem(client.post(Authorization=token), 401)


@pytest.mark.parametrize("scope", ["events:read", "admin", "events:read admin", "", "events:writer"])
def test_a_token_without_the_scope_cannot_send(client: Client, scope: str) -> None:
    answer = client.post(Authorization=f"Bearer {client.server.token(scope=scope)}")
    assert_problem(answer, 403)
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="events:write"'


def test_a_token_with_the_scope_among_others_can_send(client: Client) -> None:
    assert_created(client.post(Authorization=f"Bearer {client.server.token(scope='admin events:write')}"))


def test_the_sub_of_the_token_is_the_user(client: Client) -> None:
    name = '日本 " 😀'
    answer = client.post(Authorization=f"Bearer {client.server.token(sub=name)}")
    assert client.document(assert_created(answer))["user_id"] == name


def test_a_token_that_can_only_send_sees_nothing_of_the_server(client: Client) -> None:
    assert_problem(client.get("/metrics"), 401)
    assert_problem(client.get("/metrics", client.bearer), 403)
    assert client.get("/health/ready", client.bearer).json == {"status": "ready"}


@pytest.mark.parametrize("scope", ["events:read", "admin"])
def test_a_token_that_can_read_sees_the_metrics(client: Client, scope: str) -> None:
    answer = client.get("/metrics", f"Bearer {client.server.token(scope=scope)}")
    assert answer.status == 200
    assert b"\nforebay_events_accepted_total " in answer.body


def test_open_metrics_ask_for_no_token(other: Client) -> None:
    assert other.get("/metrics").status == 200
    assert_problem(other.post(Authorization=None), 401)


def test_metrics_count_what_clients_were_told(client: Client) -> None:
    def counts() -> list[float]:
        body = client.get("/metrics", f"Bearer {client.server.token(scope='admin')}").body.decode()
        samples = dict(line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
        names = ("events_accepted_total", "events_rejected_total", 'requests_total{status="400"}')
        return [float(samples[f"forebay_{name}"]) for name in names]

    client.post(body=b"")
    before = counts()
    client.post()
    client.post("/events/batch", b"[" + EVENT + b"," + EVENT + b",1]")
    client.post(body=b"{}")
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [3, 2, 1]


# HTTP


def test_a_connection_is_kept_for_the_next_request(client: Client) -> None:
    with client.wire() as wire:
        for number in range(50):
            log_id = f"kept {number}"
            answer = wire.ask(client.request(body=event(log_id=log_id)))
            assert_created(answer, log_id)
            assert "connection" not in answer.headers
        assert_problem(wire.ask(client.request(body=b"{}")), 400, "event", "page")
        assert wire.ask(LIVE).json == {"status": "alive"}
        assert wire.ask(PING).body == b"pong"


@pytest.mark.parametrize(
    ("version", "connection"), [("1.1", "close"), ("1.1", "Close"), ("1.0", None), ("1.0", "close")]
)
def test_a_connection_is_closed_where_the_client_wants_it(client: Client, version: str, connection: str | None) -> None:
    for request, status in (
        (client.request(headers={"Connection": connection}, version=version), 200),
        (client.request(body=b"{}", headers={"Connection": connection}, version=version), 400),
        (client.request("/ping", None, {"Connection": connection}, "GET", version), 200),
        (client.request("/health/live", None, {"Connection": connection}, "GET", version), 200),
    ):
        with client.wire() as wire:
            answer = wire.ask(request)
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            wire.assert_closed()


def test_a_client_of_http_1_0_may_keep_its_connection(client: Client) -> None:
    with client.wire() as wire:
        for _ in range(3):
            assert_created(wire.ask(client.request(headers={"Connection": "keep-alive"}, version="1.0")))


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_chunked_body_is_put_together(client: Client, size: int) -> None:
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    with client.wire() as wire:
        for number in range(2):
            log_id = f"chunked {size} {number}"
            head = client.request(body=b"", headers=headers)
            assert_created(wire.ask(head + chunked(event(log_id=log_id), size)), log_id)


def test_a_request_may_arrive_byte_by_byte(client: Client) -> None:
    with client.wire() as wire:
        for byte in client.request(body=event(log_id="byte by byte", param={"k": "日本"})):
            wire.send(bytes([byte]))
        assert_created(wire.answer(), "byte by byte")
    assert client.document("byte by byte")["event_info"]["param"] == {"k": "日本"}


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(client: Client) -> None:
    with client.wire() as wire:
        for _ in range(2):
            wire.send(client.request(body=b"", headers={"Content-Length": str(len(EVENT)), "Expect": "100-continue"}))
            assert wire.answer() == (100, {}, b"")
            assert_created(wire.ask(EVENT))


def test_a_client_that_asks_before_it_sends_too_much_is_refused(client: Client) -> None:
    with client.wire() as wire:
        headers = {"Content-Length": str(BODY_BYTES_MAX + 1), "Expect": "100-continue"}
        assert_problem(wire.ask(client.request(body=b"", headers=headers)), 413)


def test_a_client_of_http_1_0_is_never_told_to_go_on(client: Client) -> None:
    with client.wire() as wire:
        assert_created(wire.ask(client.request(headers={"Expect": "100-continue"}, version="1.0")))


def test_a_client_that_will_send_no_more_still_gets_its_answer(client: Client) -> None:
    for request in (client.request(body=event(log_id="half")), PING + LIVE + client.request()):
        with client.wire() as wire:
            wire.send(request)
            wire.socket.shutdown(socket.SHUT_WR)
            for _ in range(request.count(b" HTTP/1.1")):
                assert wire.answer().status == 200
            wire.assert_closed()


def test_a_client_that_goes_away_in_the_middle_of_a_request_leaves_nothing(client: Client) -> None:
    for end in (1, 20, -1):
        with client.wire() as wire:
            wire.send(client.request(body=event(log_id=f"cut off at {end}"))[:end])
    assert_created(client.post(body=event(log_id="after all that")))
    client.document("after all that")
    assert client.stored("log_id LIKE 'cut off%'") == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /ping HTTP\r\n\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"FETCH /ping HTTP/1.1\r\n\r\n",
        b"GET /p\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_connection_closed(client: Client, garbage: bytes) -> None:
    with client.wire() as wire:
        answer = wire.ask(garbage)
        assert_problem(answer, 400)
        assert answer.headers["connection"] == "close"
        wire.assert_closed()


def test_a_body_that_stops_being_http_is_refused_once(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=b"", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}))
        wire.send(b"5\r\nabcde\r\n")
        assert_problem(wire.ask(b"no size\r\n"), 400)
        wire.assert_closed()


# Requests that ask for another protocol, as Java's HttpClient does by itself


def test_a_client_that_would_like_http_2_is_answered_in_http_1(client: Client) -> None:
    with client.wire() as wire:
        for number in range(3):
            log_id = f"upgrade {number}"
            assert_created(wire.ask(client.request(body=event(log_id=log_id), headers=H2C)), log_id)
            assert wire.ask(client.request("/ping", None, H2C, "GET")).body == b"pong"
            assert wire.ask(client.request("/health/live", None, H2C, "GET")).json == {"status": "alive"}
            assert_created(wire.ask(client.request()))


def test_requests_that_ask_for_another_protocol_may_come_in_any_pieces(client: Client) -> None:
    headers = {**H2C, "Content-Length": None, "Transfer-Encoding": "chunked"}
    request = client.request(body=event(log_id="upgrade a"), headers=H2C)
    request += client.request(body=b"", headers=headers) + chunked(event(log_id="upgrade b")) + PING
    for size in (1, 100, len(request)):
        with client.wire() as wire:
            for start in range(0, len(request), size):
                wire.send(request[start : start + size])
            assert_created(wire.answer(), "upgrade a")
            assert_created(wire.answer(), "upgrade b")
            assert wire.answer().body == b"pong"


def test_what_asks_for_another_protocol_is_still_checked(client: Client) -> None:
    with client.wire() as wire:
        assert_problem(wire.ask(client.request(headers={**H2C, "Authorization": None})), 401)
        assert_problem(wire.ask(client.request("/nothing", None, H2C, "GET")), 404)
        assert_created(wire.ask(client.request(headers={**H2C, "Connection": "upgrade, close"})))
        wire.assert_closed()


def test_no_tunnel_is_offered(client: Client) -> None:
    with client.wire() as wire:
        assert_problem(wire.ask(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n"), 501)
        wire.assert_closed()


# Pipelining


def test_requests_in_one_packet_are_answered_in_their_order(client: Client) -> None:
    with client.wire() as wire:
        wire.send(
            client.request(body=event(log_id="first"))
            + PING
            + LIVE
            + client.request(body=event(log_id="second"))
            + client.request(body=b"{}")
            + client.request("/nothing", EVENT)
            + PING.replace(b"GET", b"DELETE")
            + client.request("/events/batch", b"[" + event(log_id="third") + b"]")
            + LIVE
            + client.request("/events?ack=memory", event(log_id="fourth"))
            + client.request(body=b"", headers={"Content-Length": None, "Transfer-Encoding": "chunked"})
            + chunked(event(log_id="fifth"))
            + PING
        )
        assert_created(wire.answer(), "first")
        assert wire.answer().body == b"pong"
        assert wire.answer().json == {"status": "alive"}
        assert_created(wire.answer(), "second")
        assert_problem(wire.answer(), 400, "event", "page")
        assert_problem(wire.answer(), 404)
        assert_problem(wire.answer(), 405)
        assert wire.answer().json["results"][0]["log_id"] == "third"
        assert wire.answer().json == {"status": "alive"}
        assert_created(wire.answer(), "fourth")
        assert_created(wire.answer(), "fifth")
        assert wire.answer().body == b"pong"
        assert wire.is_silent


def test_thousands_of_pings_behind_an_event_are_all_answered(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="before the pings")) + PING * 5_000)
        assert_created(wire.answer(), "before the pings")
        for _ in range(5_000):
            assert wire.answer().body == b"pong"
        assert_created(wire.ask(client.request()))


def test_a_thousand_events_in_one_packet_are_answered_in_their_order(client: Client) -> None:
    log_ids = [f"packed {number}" for number in range(1_000)]
    with client.wire() as wire:
        wire.send(b"".join(client.request(body=event(log_id=log_id)) for log_id in log_ids))
        for log_id in log_ids:
            assert_created(wire.answer(), log_id)
    client.documents(log_ids)


def test_a_body_that_is_still_on_its_way_is_waited_for_behind_other_requests(client: Client) -> None:
    with client.wire() as wire:
        request = client.request(body=event(log_id="the slow one", param="x" * 200_000))
        wire.send(client.request(body=event(log_id="the quick one")) + PING + request[:500])
        assert_created(wire.answer(), "the quick one")
        assert wire.answer().body == b"pong"
        wire.send(request[500:] + PING)
        assert_created(wire.answer(), "the slow one")
        assert wire.answer().body == b"pong"


def test_a_body_over_the_limit_behind_an_event_is_refused_behind_it(client: Client) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="small")) + client.request(body=b" " * (BODY_BYTES_MAX + 1)))
        assert_created(wire.answer(), "small")
        assert_problem(wire.answer(), 413)
        wire.assert_closed()


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        pytest.param(b"garbage\r\n\r\n", 400, id="garbage"),
        pytest.param(PING.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), 431, id="a large head"),
        pytest.param(b"GET http://x HTTP/1.1\r\n\r\n", 400, id="no address"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\n\r\n", 501, id="a tunnel"),
    ],
)
def test_what_cannot_be_taken_takes_nothing_from_the_event_before_it(
    client: Client, behind: bytes, status: int
) -> None:
    with client.wire() as wire:
        wire.send(client.request(body=event(log_id="before it")) + LIVE + behind + PING)
        assert_created(wire.answer(), "before it")
        assert wire.answer().json == {"status": "alive"}
        assert_problem(wire.answer(), status)
        wire.assert_closed()


def test_nothing_is_answered_behind_the_request_that_closes(client: Client) -> None:
    for last in (client.request(headers={"Connection": "close"}), PING.replace(b"Host", b"Connection: close\r\nHost")):
        with client.wire() as wire:
            wire.send(PING + last + PING)
            assert wire.answer().body == b"pong"
            assert wire.answer().status == 200
            wire.assert_closed()


# Time


@pytest.mark.parametrize(
    "beginning", [b"G", b"POST /events HTTP/1.1\r\n", b"POST /events HTTP/1.1\r\nHost: forebay\r\nX"]
)
def test_a_head_that_never_ends_is_answered_with_408(hasty: Client, beginning: bytes) -> None:
    with hasty.wire() as wire:
        answer = wire.ask(beginning)
        assert_problem(answer, 408)
        assert answer.headers["connection"] == "close"
        wire.assert_closed()


def test_a_body_that_never_ends_is_answered_with_408(hasty: Client) -> None:
    with hasty.wire() as wire:
        assert_problem(wire.ask(hasty.request()[:-1]), 408)
        wire.assert_closed()


def test_a_body_that_comes_drop_by_drop_is_answered_with_408(hasty: Client) -> None:
    with hasty.wire() as wire:
        wire.send(hasty.request(body=b"", headers={"Content-Length": "1000"}))
        deadline = time.monotonic() + TIMEOUT_S
        while wire.is_silent:
            assert time.monotonic() < deadline
            wire.send(b" ")
            time.sleep(0.02)
        assert_problem(wire.answer(), 408)


def test_a_request_that_never_ends_takes_nothing_from_the_event_before_it(hasty: Client) -> None:
    with hasty.wire() as wire:
        wire.send(hasty.request(body=event(log_id="before the endless one")) + PING[:-2])
        assert_created(wire.answer(), "before the endless one")
        assert_problem(wire.answer(), 408)
        wire.assert_closed()


def test_an_idle_connection_is_closed_without_a_word(hasty: Client) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(hasty.wire()) for _ in range(4)]
        for wire, request in zip(wires, (PING, hasty.request(), LIVE, hasty.request(body=b"{}")), strict=True):
            wire.ask(request)
        for wire in wires:
            wire.assert_closed()


def test_a_connection_that_never_says_anything_is_closed_without_a_word(hasty: Client) -> None:
    with hasty.wire() as wire, hasty.wire() as newlines:
        newlines.send(b"\r\n")
        wire.assert_closed()
        newlines.assert_closed()


def test_a_body_that_comes_after_its_answer_leaves_an_idle_connection(hasty: Client) -> None:
    with hasty.wire() as wire:
        assert_problem(wire.ask(hasty.request("/nothing", b"", {"Content-Length": "1"})), 404)
        wire.send(b"x")
        wire.assert_closed()


def test_a_body_that_never_comes_after_its_answer_gets_no_second_one(hasty: Client) -> None:
    for path, status in (("/nothing", 404), ("/events", 413)):
        with hasty.wire() as wire:
            length = str(BODY_BYTES_MAX + 1)
            assert_problem(wire.ask(hasty.request(path, b"", {"Content-Length": length})), status)
            wire.assert_closed()


def test_a_client_that_reads_no_answers_does_not_keep_its_connection(hasty: Client) -> None:
    def sockets() -> int:
        return sum(
            link.is_symlink() and str(link.readlink()).startswith("socket:")
            for link in Path(f"/proc/{hasty.server.pid}/fd").iterdir()
        )

    before = sockets()
    with Wire(hasty.server, receive_buffer=4_096) as wire:
        wire.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(1_000):
                wire.send(PING * 1_000)
        deadline = time.monotonic() + TIMEOUT_S
        while sockets() > before:
            assert time.monotonic() < deadline, "its connection is still there"
            time.sleep(0.05)


# Start and end


def failure_to_start(folder: Path, settings: Mapping[str, str] | None = None) -> tuple[int | None, str]:
    """Return the exit code of a server that cannot start, and the one thing that it says."""
    with ForebayServer(folder, settings) as server:
        with pytest.raises(ForebayStartError) as raised:
            server.start()
        assert server.output == ""
        return raised.value.exit_code, server.log


def test_a_port_in_use_is_said_on_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, free_ports(1)[0]))
        port = taken.getsockname()[1]
        code, said = failure_to_start(tmp_path, {"SERVER_PORT": str(port)})
    assert code == 2
    assert said == f"forebay: SERVER_PORT: cannot listen on {HOST} port {port}: Address already in use\n"


def test_a_database_of_another_server_is_said_on_one_line(client: Client, tmp_path: Path) -> None:
    database = client.server.settings["DATABASE_URL"]
    code, said = failure_to_start(tmp_path, {"DATABASE_URL": database})
    assert code == 1
    assert said.startswith("forebay: DATABASE_URL: ")
    assert f"belongs to another process (pid {client.server.pid})" in said
    assert said.count("\n") == 1
    assert_created(client.post())


def test_a_database_of_another_program_is_said_on_one_line_and_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "spool.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE accounts (id)")
    content = database.read_bytes()
    code, said = failure_to_start(tmp_path)
    assert code == 1
    assert said == f"forebay: DATABASE_URL: {database} is a database of another program; it was left untouched\n"
    assert database.read_bytes() == content


def test_a_file_that_is_no_database_is_said_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"these are no pages of SQLite " * 500)
    code, said = failure_to_start(tmp_path)
    assert code == 1
    assert said == f"forebay: DATABASE_URL: {tmp_path}/spool.db cannot be opened: file is not a database\n"


def test_every_wrong_setting_is_said_on_a_line_of_its_own(tmp_path: Path) -> None:
    code, said = failure_to_start(
        tmp_path,
        {"FOREBAY_ACK": "tape", "OPEN_SEARCH_DNS": "https://admin:hunter2@x:y", "FOREBAY_BULK_WORKERS": "0"},
    )
    assert code == 2
    assert "hunter2" not in said
    assert [line.split(" is not allowed")[0] for line in said.splitlines()] == [
        "forebay: OPEN_SEARCH_DNS: the value",
        "forebay: FOREBAY_ACK: 'tape'",
        "forebay: FOREBAY_BULK_WORKERS: '0'",
    ]


def test_a_host_that_cannot_be_found_is_said_on_one_line(tmp_path: Path) -> None:
    code, said = failure_to_start(tmp_path, {"FOREBAY_HOST": "ü" * 70})
    assert code == 2
    assert said.startswith("forebay: FOREBAY_HOST: cannot listen on ")
    assert said.count("\n") == 1


def test_a_server_without_a_secret_does_not_start_outside_a_local_environment(tmp_path: Path) -> None:
    code, said = failure_to_start(tmp_path, {"JWT_SECRET": "", "SERVER_ENVIRONMENT": "production"})
    assert code == 2
    assert said == "forebay: JWT_SECRET: not set; it may be left out only with SERVER_ENVIRONMENT=local\n"


def test_a_newcomer_is_shown_a_request_that_works(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"JWT_SECRET": "", "FOREBAY_BULK_INTERVAL_S": "0.1"}) as server:
        server.start()
        assert f"http://localhost:{server.port}/events" in server.output
        token = server.output.partition("Authorization: Bearer ")[2].partition("'")[0]
        client = Client(server, f"Bearer {token}")
        assert client.document(assert_created(client.post()))["user_id"] == "trial"
        assert token not in server.log
        assert (tmp_path / "spool.db.secret").read_text() not in server.log + server.output
        # The secret that was made is the same after a new start.
        assert server.stop() == 0
        server.start()
        assert_created(client.post())


@pytest.mark.filterwarnings("ignore:The HMAC key is 5 bytes long")
def test_settings_come_from_the_env_file_too_and_strange_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FOREBAY_REQUIRE_LOG_ID=true\n")
    with ForebayServer(tmp_path, {"FOREBAY_ACKS": "disk", "JWT_SECRET": "short"}) as server:
        server.start()
        assert_problem(Client(server).post(), 400, "log_id")
        entries = [json.loads(line) for line in server.log.splitlines()]
    warnings = {entry["event"]: entry for entry in entries if entry["level"] == "warning"}
    assert warnings["unknown_setting"]["name"] == "FOREBAY_ACKS"
    assert warnings["unknown_setting"]["meant"] == "FOREBAY_ACK"
    assert warnings["short_secret"]["name"] == "JWT_SECRET"


def test_a_server_that_is_told_to_end_answers_and_delivers_first(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_BULK_INTERVAL_S": "60"}) as server:
        server.start()
        client = Client(server)
        with client.wire() as idle, client.wire() as wire:
            assert idle.ask(PING).body == b"pong"
            for number in range(20):
                wire.send(client.request(body=event(log_id=f"at the end {number}")))
            for number in range(20):
                assert_created(wire.answer(), f"at the end {number}")
            assert server.stop() == 0
            idle.assert_closed()
            wire.assert_closed()
        client.documents([f"at the end {number}" for number in range(20)])
        with pytest.raises(ConnectionRefusedError):
            client.wire()


def test_an_event_that_was_answered_outlives_the_server_that_is_killed(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_BULK_INTERVAL_S": "60"}) as server:
        server.start()
        client = Client(server)
        log_ids = [f"survivor {number}" for number in range(20)]
        for log_id in log_ids:
            assert_created(client.post(body=event(log_id=log_id)), log_id)
        server.kill()
        server.start()
        assert server.stop() == 0
        client.documents(log_ids)


@pytest.mark.parametrize("name", ["client", "hasty", "other"])
def test_no_secret_no_token_and_no_fault_is_in_the_log(name: str, request: pytest.FixtureRequest) -> None:
    client: Client = request.getfixturevalue(name)
    client.post()
    client.post(Authorization=f"{client.bearer}x")
    log = client.server.log
    assert SECRET not in log
    assert client.bearer.rpartition(".")[2] not in log
    assert "eyJ" not in log
    assert "Traceback" not in log
    assert "exception" not in log
