"""Segment's calls: each field has its place, and whatever has none is kept as it came.

The bodies are made from the facts of Segment's own pages about its HTTP API and its spec.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from forebay.errors import Rejection
from forebay.intake.foreign import ForeignDocumentMaker
from forebay.intake.formats.format import ForeignEvent, Format
from forebay.intake.formats.segment import SegmentBatch, SegmentCall
from forebay.intake.formats.segment_call import CALLS
from forebay.intake.limits import COPIES_BYTES_MAX
from forebay.intake.senders import encode_sender
from forebay.model import Admission, ExtendedEvent, entry_document
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from unit.intake.fakes import SECRET, FakeTransport, Server

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
NOW_TEXT = "2026-03-15T12:00:00Z"
BATCH = SegmentBatch()
TOKEN = make_token(SECRET, "token's user", [Scope.WRITE], 86_400)
BASIC = f"Basic {base64.b64encode(f'{TOKEN}:'.encode()).decode()}"
CONTEXT = {
    "active": True,
    "app": {"name": "InitechGlobal", "version": "545", "build": "3.0.1.545", "namespace": "com.production.segment"},
    "campaign": {"name": "TPS Innovation", "source": "Newsletter", "medium": "email", "content": "image link"},
    "device": {"id": "B5372DB0-C21E", "advertisingId": "7A3CBEA0", "adTrackingEnabled": True, "type": "ios"},
    "ip": "8.8.8.8",
    "library": {"name": "analytics.js", "version": "2.11.1"},
    "location": {"city": "San Francisco", "latitude": 40.2964197, "longitude": -76.9411617, "speed": 0},
    "os": {"name": "iPhone OS", "version": "8.1.3"},
    "page": {"path": "/academy/", "referrer": "", "search": "", "title": "Academy", "url": "https://s.com/academy/"},
    "screen": {"width": 320, "height": 568, "density": 2},
    "traits": {"plan": None},
    "userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 9_1 like Mac OS X)",
}


class Taken:
    """The documents that a body becomes, and the refusals."""

    def __init__(self, form: Format, body: bytes, *, require_log_id: bool = False) -> None:
        oldest, counters = datetime(2026, 1, 1, tzinfo=UTC), Counters()
        maker = ForeignDocumentMaker("test", oldest, counters, require_log_id=require_log_id, drops_repeated=True)
        decoded = form.decode(body)
        sender = encode_sender("token's user", b"device of the head", b"1", b"2", b"a client")
        parts, results = maker.make(decoded.events, sender, NOW, decoded.sent_at)
        self.answer = form.answer(decoded.places, results, Admission.CREATED)
        self.documents = [json.loads(entry_document(entry)) for part in parts for entry in part.entries]

    @property
    def only(self) -> dict[str, Any]:
        (document,) = self.documents
        return dict(document)

    @property
    def refused(self) -> dict[int, list[str]]:
        """The wrong fields of each event that was refused, or the reason."""
        answer = json.loads(self.answer)
        return {
            row["index"]: [error["field"] for error in row["error"].get("errors", ())] or [row["error"]["detail"]]
            for row in answer.get("rejected", ())
        }


def take(kind: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a call that is sent to the address of its kind."""
    return Taken(SegmentCall(kind), json.dumps(call).encode()).only


def take_batch(*calls: Any, **shared: Any) -> Taken:
    return Taken(BATCH, json.dumps({"batch": calls, **shared}).encode())


# The examples of the documentation


def test_a_track_call_becomes_an_event_of_its_name() -> None:
    document = take(
        "track",
        {
            "userId": "019mr8mf4r",
            "event": "Item Purchased",
            "properties": {"name": "Leap to Conclusions Mat", "revenue": 14.99},
            "context": {"ip": "24.5.68.47"},
            "timestamp": "2026-03-02T00:30:12.984Z",
            "messageId": "022bb90c-bbac-11e4-8dfc-aa07a5b093db",
        },
    )
    assert document == {
        "@timestamp": "2026-03-02T00:30:12.984000Z",
        "received_at": NOW_TEXT,
        "log_id": "022bb90c-bbac-11e4-8dfc-aa07a5b093db",
        "user_id": "019mr8mf4r",
        "source": "token's user",
        "event_info": {
            "page": "unknown",
            "event": "Item Purchased",
            "param": {"name": "Leap to Conclusions Mat", "revenue": 14.99},
            "extra": {"context": {"ip": "24.5.68.47"}, "type": "track"},
        },
        "device_uuid": "device of the head",
        "app_version": "1",
        "os_version": "2",
        "user_agent": "a client",
    }


def test_an_identify_call_keeps_its_traits() -> None:
    traits = {"email": "pgibbons@example.com", "name": "Peter Gibbons", "industry": "Technology"}
    document = take("identify", {"userId": "019mr8mf4r", "traits": traits, "context": {"ip": "24.5.68.47"}})
    assert document["user_id"] == "019mr8mf4r"
    assert document["event_info"] == {
        "page": "unknown",
        "event": "identify",
        "param": traits,
        "extra": {"context": {"ip": "24.5.68.47"}, "type": "identify"},
    }


@pytest.mark.parametrize("kind", ["page", "screen"])
def test_a_page_or_screen_call_has_its_name_and_category(kind: str) -> None:
    document = take(kind, {"userId": "019mr8mf4r", "name": "Tracking HTTP API", "category": "Docs"})
    assert document["event_info"] == {
        "page": "Tracking HTTP API",
        "event": kind,
        "label": "Tracking HTTP API",
        "section": "Docs",
        "extra": {"type": kind},
    }


def test_a_group_call_keeps_its_group() -> None:
    traits = {"name": "Initech", "industry": "Technology", "employees": 420}
    document = take("group", {"userId": "019mr8mf4r", "groupId": "8e9df332ac", "traits": traits})
    assert document["event_info"] == {
        "page": "unknown",
        "event": "group",
        "param": traits,
        "extra": {"groupId": "8e9df332ac", "type": "group"},
    }


def test_an_alias_call_keeps_the_other_name() -> None:
    document = take("alias", {"previousId": "39239-239239-239239-23923", "userId": "019mr8mf4r"})
    assert document["user_id"] == "019mr8mf4r"
    assert document["event_info"] == {
        "page": "unknown",
        "event": "alias",
        "extra": {"previousId": "39239-239239-239239-23923", "type": "alias"},
    }


def test_a_batch_has_events_of_all_kinds_and_gives_each_its_context() -> None:
    shared = {"device": {"type": "phone", "name": "Apple iPhone 6"}}
    taken = take_batch(
        {"type": "identify", "userId": "019mr8mf4r", "traits": {"age": 26}, "timestamp": "2026-03-02T00:30:08.276Z"},
        {"type": "track", "userId": "019mr8mf4r", "event": "Song Played", "properties": {"name": "Fallin for You"}},
        {"type": "track", "userId": "971mj8mk7p", "event": "Song Played", "context": {"device": {"id": "d"}}},
        writeKey="abc",
        context=shared,
    )
    assert taken.answer == b'{"success":true}'
    assert [document["event_info"]["event"] for document in taken.documents] == ["identify", *["Song Played"] * 2]
    assert [document["user_id"] for document in taken.documents] == ["019mr8mf4r", "019mr8mf4r", "971mj8mk7p"]
    contexts = [document["event_info"]["extra"]["context"] for document in taken.documents]
    assert contexts == [shared, shared, {"device": {"type": "phone", "name": "Apple iPhone 6", "id": "d"}}]
    assert [document["device_uuid"] for document in taken.documents] == [*["device of the head"] * 2, "d"]


def test_the_common_fields_have_their_places_and_the_context_stays_whole() -> None:
    call = {
        "anonymousId": "507f191e810c19729de860ea",
        "context": CONTEXT,
        "integrations": {"All": True, "Mixpanel": False, "Salesforce": False},
        "messageId": "022bb90c",
        "receivedAt": "2026-03-15T11:59:59.909Z",
        "sentAt": NOW_TEXT,
        "timestamp": "2026-03-14T12:00:00Z",
        "type": "track",
        "event": "e",
        "userId": "97980cfea0067",
        "version": 2,
    }
    document = take_batch(call).only
    assert document["event_info"].pop("extra") == {
        name: call[name]
        for name in ("anonymousId", "context", "integrations", "receivedAt", "sentAt", "type", "version")
    }
    assert document == {
        "@timestamp": "2026-03-14T12:00:00Z",
        "received_at": NOW_TEXT,
        "log_id": "022bb90c",
        "user_id": "97980cfea0067",
        "source": "token's user",
        "event_info": {"page": "/academy/", "event": "e"},
        "device_uuid": "B5372DB0-C21E",
        "app_version": "545",
        "os_version": "8.1.3",
        "user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 9_1 like Mac OS X)",
    }


# Rules


@pytest.mark.parametrize(
    ("kind", "call", "page"),
    [
        ("page", {"context": {"page": {"path": "/a", "url": "u"}}, "properties": {"path": "/b"}, "name": "n"}, "/a"),
        ("page", {"context": {"page": {"url": "u"}}, "properties": {"path": "/b"}, "name": "n"}, "u"),
        ("page", {"properties": {"path": "/b", "url": "v"}, "name": "n"}, "/b"),
        ("page", {"properties": {"path": 1.50, "url": "v"}}, "1.5"),
        ("screen", {"properties": {"path": "", "url": "v"}, "name": "n"}, "v"),
        ("screen", {"properties": [], "name": "n", "context": {"page": "p"}}, "n"),
        ("screen", {"name": {}}, "unknown"),
        ("track", {"event": "e", "context": {"page": {"path": "/a"}}}, "/a"),
        ("track", {"event": "e", "properties": {"path": "/b"}, "name": "n"}, "unknown"),
        ("group", {"context": {"page": {"path": None, "url": "u"}}}, "u"),
    ],
)
def test_the_page_is_the_first_that_an_event_names(kind: str, call: dict[str, Any], page: str) -> None:
    assert take(kind, call)["event_info"]["page"] == page


def test_a_field_of_another_kind_of_call_is_kept() -> None:
    call = {"name": "n", "category": "c", "event": "x", "traits": {"a": 1}, "properties": {"b": 2}, "groupId": "g"}
    info = take("track", call)["event_info"]
    assert (info["event"], info["param"]) == ("x", {"b": 2})
    assert info["extra"] == {"name": "n", "category": "c", "traits": {"a": 1}, "groupId": "g", "type": "track"}
    info = take("group", call)["event_info"]
    assert (info["event"], info["param"]) == ("group", {"a": 1})
    assert info["extra"]["properties"] == {"b": 2}
    assert info["extra"]["event"] == "x"


def test_the_kind_of_a_call_is_the_one_that_it_names_itself() -> None:
    assert take("page", {"type": "track", "event": "e"})["event_info"]["event"] == "e"


def test_what_an_event_says_itself_counts_more_than_what_its_batch_says() -> None:
    call = {
        "type": "track",
        "event": "e",
        "context": {"app": {"version": "2"}, "ip": None, "locale": {"a": 1}, "big": 123456789012345678901234567890},
        "integrations": {"All": False},
        "other": {"a": 1},
    }
    shared = {
        "context": {"app": {"version": "1", "name": "A"}, "ip": "1.1.1.1", "locale": "de", "n": 1.10},
        "integrations": {"All": True, "Mixpanel": True},
        "other": {"b": 1},
        "more": [1],
    }
    document = take_batch(call, **shared).only
    assert document["app_version"] == "2"
    assert document["event_info"]["extra"] == {
        "type": "track",
        "context": {
            "app": {"version": "2", "name": "A"},
            "ip": None,
            "locale": {"a": 1},
            "big": 123456789012345678901234567890,
            "n": 1.1,
        },
        "integrations": {"All": False, "Mixpanel": True},
        "other": {"a": 1},
        "more": [1],
    }


def test_an_event_without_a_context_of_its_own_has_that_of_its_batch() -> None:
    call = {"type": "track", "event": "e", "context": None, "integrations": None}
    shared = {"context": {"app": {"version": "1"}, "locale": "de"}, "integrations": {"All": False}}
    document = take_batch(call, **shared).only
    assert document["app_version"] == "1"
    assert document["event_info"]["extra"] == {"type": "track"} | shared


def test_a_user_is_the_tokens_if_the_event_names_none() -> None:
    document = take("track", {"event": "e", "anonymousId": "a"})
    assert document["user_id"] == "token's user"
    assert "source" not in document
    assert document["event_info"]["extra"] == {"anonymousId": "a", "type": "track"}


def test_an_event_without_an_id_gets_one_unless_it_must_have_it() -> None:
    assert len(take("track", {"event": "e"})["log_id"]) == 36
    with pytest.raises(Rejection) as rejection:
        Taken(SegmentCall("track"), b'{"event":"e"}', require_log_id=True)
    assert rejection.value.status == 400


def test_the_same_id_twice_in_a_batch_is_one_event() -> None:
    taken = take_batch(*[{"type": "track", "event": "e", "messageId": "m"}] * 3, {"type": "alias", "messageId": "n"})
    assert [document["log_id"] for document in taken.documents] == ["m", "n"]


# Times


@pytest.mark.parametrize(
    ("times", "stored", "extra"),
    [
        ({"timestamp": "2026-03-14T10:00:00+02:00"}, "2026-03-14T08:00:00Z", {}),
        ({"timestamp": "2026-03-14T10:00:00.5+0200"}, "2026-03-14T08:00:00.500000Z", {}),
        ({"timestamp": "2026-03-14"}, "2026-03-14T00:00:00Z", {}),
        ({"timestamp": 1773482400000}, "2026-03-14T10:00:00Z", {}),
        ({"timestamp": 0}, "1970-01-01T00:00:00Z", {}),
        ({"originalTimestamp": "2026-03-14T10:00:00Z"}, "2026-03-14T10:00:00Z", {}),
        # Both are kept: one as the time of the event, one as it came.
        (
            {"timestamp": "2026-03-14T10:00:00Z", "originalTimestamp": "2026-03-14T09:00:00Z"},
            "2026-03-14T10:00:00Z",
            {"originalTimestamp": "2026-03-14T09:00:00Z"},
        ),
        # So is one that nobody can read, such as this one of Segment's own page.
        ({"timestamp": "2015-2-02T00:30:08.276Z"}, NOW_TEXT, {"timestamp": "2015-2-02T00:30:08.276Z"}),
        (
            {"timestamp": "soon", "originalTimestamp": "2026-03-14T09:00:00Z"},
            "2026-03-14T09:00:00Z",
            {"timestamp": "soon"},
        ),
    ],
)
def test_a_time_is_read_in_any_form_and_kept_if_it_cannot_be_read(
    times: dict[str, Any], stored: str, extra: dict[str, Any]
) -> None:
    document = take("track", {"event": "e", **times})
    assert document["@timestamp"] == stored
    assert document["event_info"]["extra"] == {**extra, "type": "track"}


@pytest.mark.parametrize("odd", [None, True, {}, [], 1e300, -(10**40), "", "1", "0001-01-01T00:00:00+23:59"])
def test_a_value_that_is_no_time_is_kept(odd: Any) -> None:
    document = take("track", {"event": "e", "timestamp": odd})
    assert document["@timestamp"] == NOW_TEXT
    assert document["event_info"]["extra"] == {"timestamp": odd, "type": "track"}


def test_the_time_of_sending_corrects_the_clients_clock_and_is_kept() -> None:
    call = {"type": "track", "event": "e", "timestamp": "2026-03-15T10:58:00Z"}
    for document in (
        take("track", {**call, "sentAt": "2026-03-15T11:00:00Z"}),
        take_batch(call, sentAt="2026-03-15T11:00:00Z").only,
        take_batch({**call, "sentAt": "2026-03-15T11:00:00Z"}).only,
    ):
        assert document["@timestamp"] == "2026-03-15T11:58:00Z"
        assert document["event_info"]["extra"]["sentAt"] == "2026-03-15T11:00:00Z"
    # The batch is what was sent just now.
    document = take_batch({**call, "sentAt": "2026-03-01T00:00:00Z"}, sentAt="2026-03-15T11:00:00Z").only
    assert document["@timestamp"] == "2026-03-15T11:58:00Z"
    assert document["event_info"]["extra"]["sentAt"] == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize("odd", [None, "soon", True, {}, 1e300, ""])
def test_a_time_of_sending_that_cannot_be_read_corrects_nothing(odd: Any) -> None:
    document = take_batch({"type": "track", "event": "e", "timestamp": "2026-03-15T10:58:00Z"}, sentAt=odd).only
    assert document["@timestamp"] == "2026-03-15T10:58:00Z"
    assert document["event_info"]["extra"]["sentAt"] == odd


# Odd values


@pytest.mark.parametrize("odd", [None, True, False, {}, {"a": [1]}, [], ["a"], ""])
def test_a_value_that_does_not_fit_its_place_is_kept_where_everything_else_is(odd: Any) -> None:
    call = dict.fromkeys(["userId", "messageId", "timestamp", "name", "category", "context", "integrations"], odd)
    document = take("page", call)
    extra = document["event_info"].pop("extra")
    assert extra == {**call, "type": "page"}
    assert document["event_info"] == {"page": "unknown", "event": "page"}
    assert document["user_id"] == "token's user"
    context = {"device": {"id": odd}, "app": odd, "os": {"version": odd}, "userAgent": odd, "page": {"path": odd}}
    document = take("page", {"context": context})
    assert document["event_info"]["extra"]["context"] == context
    assert document["device_uuid"] == "device of the head"


@pytest.mark.parametrize(
    ("number", "text"), [("12", "12"), ("1.50", "1.50"), ("12345678901234567890", None), ("1e2", None)]
)
def test_a_number_in_place_of_a_text_is_taken_as_it_is_written(number: str, text: str | None) -> None:
    body = f'{{"userId":{number},"messageId":{number},"event":{number},"context":{{"device":{{"id":{number}}}}}}}'
    document = Taken(SegmentCall("track"), body.encode()).only
    expected = text or number
    assert document["user_id"] == document["log_id"] == document["device_uuid"] == expected
    assert document["event_info"]["event"] == expected


@pytest.mark.parametrize("odd", ["x", 5, [1, 2], True])
def test_properties_that_are_no_object_are_kept_as_a_value(odd: Any) -> None:
    assert take("track", {"event": "e", "properties": odd})["event_info"]["param"] == {"value": odd}


def test_a_bad_event_of_a_batch_costs_no_other() -> None:
    deep: Any = 1
    for _ in range(33):
        deep = [deep]
    good = {"type": "track", "event": "e"}
    taken = take_batch(
        good,
        {"type": "track"},
        {"type": "track", "event": {}},
        {"type": "wish", "event": "e"},
        {"event": "e"},
        {"type": 5},
        7,
        None,
        [],
        {**good, "messageId": "é" * 257},
        {**good, "properties": deep},
        {**good, "context": {"a": deep}, "x": deep},
        good,
    )
    assert len(taken.documents) == 2
    not_object = ["an event is a JSON object: expected object, got "]
    assert taken.refused == {
        1: ["event"],
        2: ["event"],
        3: ["type"],
        4: ["type"],
        5: ["type"],
        6: [f"{not_object[0]}int"],
        7: [f"{not_object[0]}null"],
        8: [f"{not_object[0]}array"],
        9: ["messageId"],
        10: ["properties"],
        11: ["context", "x"],
    }
    assert json.loads(taken.answer)["success"] is True


@pytest.mark.parametrize(
    "bad", [b'{"a":NaN}', b"{a}", b"\xff", b'{"a":"\\ud83d"}', b'{"a":"\xff"}', b"nope", b'{"a" 1}']
)
def test_an_event_that_is_not_json_costs_no_other(bad: bytes) -> None:
    good = b'{"type":"track","event":"e","userId":"u"}'
    taken = Taken(BATCH, b' { "context": {"app":{"version":"7"}}, "batch":[%b, %b ,%b]}' % (good, bad, good))
    assert [document["app_version"] for document in taken.documents] == ["7", "7"]
    assert taken.refused.keys() == {1}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not UTF-8 (byte 0)"),
        (b"{}", 'a batch is {"batch": […]}: batch is missing'),
        (b"[]", 'a batch is {"batch": […]}: expected object, got array'),
        (b"1", 'a batch is {"batch": […]}: expected object, got int'),
        (b'{"batch":{}}', 'a batch is {"batch": […]}: expected array, got object'),
        (b'{"batch":null}', 'a batch is {"batch": […]}: expected array, got null'),
        (b'{"batch":[],"context":{"a":NaN}}', "the body is not JSON"),
        (b'{"batch":[],"context":"\xff"}', "the body is not UTF-8"),
        (b'{"batch":[],"context":%b}' % (b"[" * 40 + b"]" * 40), "the event is not valid"),
        (b'{"batch":[],"context":%b}' % (b"[" * 100_000 + b"]" * 100_000), "the body nests too deeply"),
    ],
)
def test_what_is_no_batch_is_refused_with_the_reason(body: bytes, detail: str) -> None:
    with pytest.raises(Rejection) as rejection:
        BATCH.decode(body)
    assert rejection.value.status == 400
    assert rejection.value.detail.startswith(detail)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"a":"\\ud83d"}', b'{"type":"x"}'])
def test_what_is_no_call_is_refused(body: bytes) -> None:
    with pytest.raises(Rejection) as rejection:
        Taken(SegmentCall("page"), body)
    assert rejection.value.status == 400


def test_an_empty_batch_is_taken() -> None:
    assert take_batch().answer == b'{"success":true}'


@pytest.mark.parametrize(
    "shared",
    [
        {"context": {"a": "x" * 10_000}},
        {"x" * 10_000: 1},
        {"\x01" * 1_666: 1},
        {str(number): 1 for number in range(1_000, 2_111)},
    ],
    ids=["value", "name", "escapes", "names"],
)
def test_the_fields_of_a_batch_make_no_more_than_a_limit(shared: dict[str, Any]) -> None:
    fitting = COPIES_BYTES_MAX // 10_100
    assert len(take_batch(*[{"type": "alias"}] * fitting, **shared).documents) == fitting
    with pytest.raises(Rejection) as rejection:
        take_batch(*[{"type": "alias"}] * (fitting + 40), **shared)
    assert rejection.value.status == 413


# The token


def request(path: str, body: bytes, **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: events.example", *lines])
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def send(server: Server, sent: bytes) -> FakeTransport:
    connection, transport = server.connect()
    connection.data_received(sent)
    for _ in range(100):
        await asyncio.sleep(0)
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)
    return transport


def stored(server: Server) -> list[dict[str, Any]]:
    entries = [entry for taken in server.admitter.requests for part in taken.parts for entry in part.entries]
    return [json.loads(entry_document(entry)) for entry in entries]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "text/plain"])
@pytest.mark.parametrize("place", ["basic", "bearer", "body"])
async def test_the_token_is_the_write_key_wherever_a_client_has_it_and_is_kept_nowhere(
    content_type: str, place: str
) -> None:
    server = Server()
    headers = {"basic": {"Authorization": BASIC}, "bearer": {"Authorization": f"Bearer {TOKEN}"}, "body": {}}[place]
    call = {"type": "track", "event": "e", "writeKey": TOKEN}
    for path in ("/v1/batch", "/v1/import", "/v1/b"):
        body = json.dumps({"batch": [call, call], "writeKey": TOKEN}).encode()
        transport = await send(server, request(path, body, Content_Type=content_type, **headers))
        assert transport.statuses == [200]
        assert transport.written.endswith(b'\r\n\r\n{"success":true}')
    for kind in CALLS:
        for path in (f"/v1/{kind}", f"/v1/{kind[0]}"):
            body = json.dumps({**call, "type": kind}).encode()
            assert (await send(server, request(path, body, Content_Type=content_type, **headers))).statuses == [200]
    assert len(stored(server)) == 3 * 2 + 6 * 2
    assert {document["user_id"] for document in stored(server)} == {"token's user"}
    assert TOKEN not in json.dumps(stored(server))


async def test_a_batch_with_its_token_only_inside_may_be_as_large_as_the_clients_make_it() -> None:
    server = Server()
    call = {"type": "track", "event": "e", "properties": {"x": "x" * 30_000}}
    body = json.dumps({"batch": [call] * 12, "writeKey": TOKEN}).encode()
    assert (await send(server, request("/v1/b", body, Content_Type="application/json"))).statuses == [200]
    assert len(stored(server)) == 12


async def test_without_a_token_that_holds_nothing_is_taken() -> None:
    server = Server()
    for body in (b'{"batch":[]}', b'{"batch":[],"writeKey":5}', b'{"batch":[],"writeKey":"x"}', b"x"):
        assert (await send(server, request("/v1/batch", body))).statuses == [401]
    assert (await send(server, request("/v1/batch", b'{"batch":[]}', Authorization="Basic !"))).statuses == [401]


async def test_a_page_may_send_once_more_what_was_not_taken() -> None:
    server = Server(origins=["https://shop.example"])
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,x-retry-count"}
    sent = request("/v1/t", b"", Origin="https://shop.example", **asks).replace(b"POST", b"OPTIONS", 1)
    transport = await send(server, sent)
    assert transport.statuses == [204]
    allowed = transport.written.partition(b"access-control-allow-headers: ")[2].partition(b"\r\n")[0].split(b", ")
    assert {b"authorization", b"content-type", b"x-retry-count"} <= set(allowed)


def test_a_refused_call_gets_the_reason() -> None:
    form = SegmentCall("track")
    refusal = Rejection(400, "not so")
    with pytest.raises(Rejection):
        form.answer(range(1), [refusal], Admission.CREATED)
    assert form.answer(range(1), [b'"id"'], Admission.CREATED) == b'{"success":true}'


def test_an_id_of_the_batch_is_no_id_of_its_events() -> None:
    body = b'{"batch":[{"type":"track","event":"a"},{"type":"track","event":"b","messageId":"m"}],"messageId":"all"}'
    found = [event.event for event in SegmentBatch().decode(body).events if isinstance(event, ForeignEvent)]
    assert [event.log_id for event in found] == [None, "m"]
    assert [event.extra["messageId"] for event in found if isinstance(event, ExtendedEvent)] == [Raw(b'"all"')] * 2
