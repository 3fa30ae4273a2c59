"""CloudEvents in all three modes: which are events, what goes where, and which are refused.

The examples are those of the specification and of its conformance tests (github.com/cloudevents/conformance).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.errors import Rejection
from forebay.intake.formats.cloudevents import BatchedCloudEvents, BinaryCloudEvent, StructuredCloudEvent
from forebay.intake.formats.format import ForeignEvent, Format
from forebay.model import LOG_ID_BYTES_MAX, NO_PARAM, Admission, entry_address, entry_document
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from unit.intake.fakes import SECRET, FakeTransport, Server

DAY_S = 86_400
BEARER = f"Bearer {make_token(SECRET, 'alice', [Scope.WRITE], DAY_S)}"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

MINIMAL = {"specversion": "1.0", "id": "minimal", "type": "io.cloudevents.test", "source": "https://cloudevents.io"}
MINIMAL_EXTRA = {"specversion": "1.0", "source": "https://cloudevents.io"}
SOME_EVENT = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "source": "/mycontext",
    "id": "A234-1234-1234",
    "time": "2018-04-05T17:31:00Z",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
}
SOME_LINES = {
    "ce-specversion": "1.0",
    "ce-type": "com.example.someevent",
    "ce-source": "/mycontext",
    "ce-id": "A234-1234-1234",
    "ce-time": "2018-04-05T17:31:00Z",
    "ce-comexampleextension1": "value",
    "ce-comexampleothervalue": "5",
}
UUID7 = "01a20cea-e993-767e-9b6e-e60ffa0e7691"
UUID4 = "3d2f5b0e-5f0a-4a3c-9d52-6f1f3c7f8a11"
UUID5 = "74738ff5-5367-5958-9aee-98fffdcd1876"


def request(body: bytes, lines: dict[str, str] | None = None, content_type: str | None = None) -> bytes:
    named = {"Authorization": BEARER} | ({} if content_type is None else {"Content-Type": content_type}) | (lines or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST /events HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def structured(event: object) -> bytes:
    return request(json.dumps(event).encode(), None, STRUCTURED)


def batched(*events: object) -> bytes:
    return request(json.dumps(events).encode(), None, BATCHED)


def send(server: Server, *pieces: bytes) -> FakeTransport:
    connection, transport = server.connect()
    for piece in pieces:
        connection.data_received(piece)
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)
    return transport


def documents(server: Server) -> list[dict[str, Any]]:
    """Return the documents of all events that were taken, each with its `_id` and `_index`."""
    entries = [entry for taken in server.admitter.requests for part in taken.parts for entry in part.entries]
    named = [(entry_address(entry), json.loads(entry_document(entry))) for entry in entries]
    return [{"_index": address.index, "_id": address.log_id, **document} for address, document in named]


def document(*pieces: bytes) -> dict[str, Any]:
    """Return the document of the only event in a request that is taken."""
    server = Server()
    assert send(server, *pieces).statuses == [200] * len(pieces)
    (found,) = documents(server)
    return found


def info(*pieces: bytes) -> Any:
    return document(*pieces)["event_info"]


def refusal(piece: bytes) -> dict[str, str]:
    """Return the fields at fault in a request that is refused, with the reasons; an empty name is the whole request."""
    transport = send(Server(), piece)
    assert transport.statuses == [400]
    problem = json.loads(transport.written.partition(b"\r\n\r\n")[2])
    return {error["field"]: error["reason"] for error in problem.get("errors", [])} or {"": problem["detail"]}


@pytest.fixture
async def server() -> Server:
    return Server()


# What goes where


async def test_the_attributes_have_their_places_and_all_others_are_kept() -> None:
    found = document(structured(SOME_EVENT | {"dataschema": "https://a.example/s", "data": {"appinfoA": [1, "é"]}}))
    assert found.pop("received_at")
    assert found == {
        "_index": "events_test_2026-03",
        "_id": "/mycontext A234-1234-1234",
        "log_id": "A234-1234-1234",
        "@timestamp": "2018-04-05T17:31:00Z",
        "user_id": "alice",
        "event_info": {
            "page": "/mycontext",
            "event": "com.example.someevent",
            "param": {"appinfoA": [1, "é"]},
            "extra": {
                "specversion": "1.0",
                "source": "/mycontext",
                "dataschema": "https://a.example/s",
                "comexampleextension1": "value",
                "comexampleothervalue": 5,
            },
        },
    } | {"_index": found["_index"]}


async def test_the_page_is_the_subject_or_else_the_source() -> None:
    assert info(structured(MINIMAL))["page"] == "https://cloudevents.io"
    found = info(structured(MINIMAL | {"subject": "mynewfile.jpg"}))
    assert found["page"] == "mynewfile.jpg"
    assert found["extra"] == MINIMAL_EXTRA


async def test_the_same_event_is_the_same_document_in_each_mode() -> None:
    event = SOME_EVENT | {"comexampleothervalue": "5", "datacontenttype": "application/json", "subject": "a é"}
    data = {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True}
    whole = event | {"data": data}
    pieces = [
        structured(whole),
        batched(whole),
        request(json.dumps(data).encode(), SOME_LINES | {"ce-subject": "a%20%c3%A9"}, "application/json"),
    ]
    found = [document(piece) for piece in pieces]
    for one in found:
        assert one.pop("received_at")
    assert found[0] == found[1]
    assert found[0]["event_info"]["param"] == data
    # The order of names is no part of the event.
    assert found[0] == found[2]


@pytest.mark.parametrize(
    ("time", "stored"),
    [
        ("2018-04-05T17:31:00Z", "2018-04-05T17:31:00Z"),
        ("2018-04-05T17:31:00.000000000Z", "2018-04-05T17:31:00Z"),
        ("2018-04-05T18:31:00+01:00", "2018-04-05T17:31:00Z"),
        ("2018-04-05T16:31:00-01:00", "2018-04-05T17:31:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z"),
    ],
)
async def test_the_time_is_the_timestamp(time: str, stored: str) -> None:
    for piece in (structured(MINIMAL | {"time": time}), request(b"", SOME_LINES | {"ce-time": time})):
        found = document(piece)
        assert found["@timestamp"] == stored
        assert "time" not in found["event_info"]["extra"]


async def test_the_time_decides_the_month() -> None:
    assert document(structured(MINIMAL | {"time": "2024-05-06T07:08:09Z"}))["_index"] == "events_test_2024-05"
    assert document(structured(MINIMAL | {"id": UUID7}))["_index"] == "events_test_2026-11"


async def test_attributes_that_are_null_are_not_there() -> None:
    unset = dict.fromkeys(["datacontenttype", "dataschema", "subject", "time", "unsetextension", "data"])
    found, plain = document(structured(MINIMAL | unset)), document(structured(MINIMAL))
    assert (
        found["event_info"]
        == plain["event_info"]
        == {
            "page": "https://cloudevents.io",
            "event": "io.cloudevents.test",
            "extra": MINIMAL_EXTRA,
        }
    )


async def test_extensions_of_all_types_are_kept_as_they_came() -> None:
    extensions = {
        "extinteger": 10,
        "extboolean": True,
        "extstring": "text",
        "exturi": "https://cloudevents.io",
        "exturiref": "//authority/path",
        "exttimestamp": "2023-03-31T15:12:00Z",
        "extbinary": "TWE=",
    }
    assert info(structured(MINIMAL | extensions))["extra"] == MINIMAL_EXTRA | extensions


async def test_an_extension_that_breaks_the_rules_of_names_and_types_costs_no_event() -> None:
    odd = {"MyExtension": "bad", "my.extension": 1.5, "": [], "object": {"a": [None, {"b": 1}]}, "data_": 2**70}
    assert info(structured(MINIMAL | odd))["extra"] == MINIMAL_EXTRA | odd


async def test_the_token_of_a_beacon_is_kept_in_no_event() -> None:
    assert info(structured(MINIMAL | {"access_token": BEARER}))["extra"] == MINIMAL_EXTRA
    assert "access_token" not in info(request(b"", SOME_LINES | {"ce-access_token": BEARER}))["extra"]


@pytest.mark.parametrize("source", ["#fragment", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", "1-555-123-4567"])
async def test_a_source_is_any_reference(source: str) -> None:
    assert info(structured(MINIMAL | {"source": source}))["extra"]["source"] == source


async def test_the_older_version_is_taken_too() -> None:
    old = MINIMAL | {"specversion": "0.3", "schemaurl": "https://a.example/s"}
    found = info(structured(old | {"datacontentencoding": "base64", "data": "TWE="}))
    assert found["extra"] == {
        "specversion": "0.3",
        "source": "https://cloudevents.io",
        "schemaurl": "https://a.example/s",
        "datacontentencoding": "base64",
        "data_base64": "TWE=",
    }
    # In the newer one that name is an extension like any other.
    newer = info(structured(MINIMAL | {"datacontentencoding": "base64", "data": "TWE="}))
    assert newer["param"] == {"value": "TWE="}


# The user


@pytest.mark.parametrize("kind", [{}, {"authtype": "app_user"}, {"authtype": "user"}])
async def test_the_principal_is_the_user_if_it_is_one(kind: dict[str, str]) -> None:
    found = document(structured(MINIMAL | kind | {"authid": "bob", "authclaims": '{"a":1}'}))
    assert (found["user_id"], found["source"]) == ("bob", "alice")
    assert found["event_info"]["extra"] == MINIMAL_EXTRA | kind | {"authclaims": '{"a":1}'}


@pytest.mark.parametrize(
    "principal",
    [
        {"authtype": "service_account", "authid": "bob"},
        {"authtype": "api_key", "authid": "bob"},
        {"authtype": "unknown", "authid": "bob"},
        {"authtype": "customs", "authid": "bob"},
        {"authtype": 5, "authid": "bob"},
        {"authtype": "user", "authid": 5},
        {"authtype": "user", "authid": ""},
        {"authtype": "unauthenticated"},
    ],
)
async def test_another_principal_is_kept_and_the_user_is_that_of_the_token(principal: dict[str, object]) -> None:
    found = document(structured(MINIMAL | principal))
    assert found["user_id"] == "alice"
    assert "source" not in found
    assert found["event_info"]["extra"] == MINIMAL_EXTRA | principal


# The data


@pytest.mark.parametrize("content_type", [None, "application/json", "text/json", "Application/Vnd.x+JSON; a=b"])
@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"a": {"b": [1, None]}}, {"a": {"b": [1, None]}}),
        ([1, 2], {"value": [1, 2]}),
        (1.5, {"value": 1.5}),
        (False, {"value": False}),
        ("I'm just a string", {"value": "I'm just a string"}),
        ('{"not": "split"}', {"value": '{"not": "split"}'}),
    ],
)
async def test_data_that_is_json_is_the_param(content_type: str | None, data: object, param: object) -> None:
    named = {} if content_type is None else {"datacontenttype": content_type}
    body = json.dumps(data, indent=1).encode()
    packed = {"data_base64": base64.b64encode(body).decode()}
    pieces = [structured(MINIMAL | named | {"data": data}), request(b" " + body, SOME_LINES, content_type)]
    pieces += [structured(MINIMAL | named | packed)] if named else []
    for piece in pieces:
        found = info(piece)
        assert found["param"] == param
        assert "data_base64" not in found["extra"]
        assert found["extra"].get("datacontenttype") == content_type


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; charset=us-ascii",
        "TEXT/Plain; CharSet=utf-8",
        'application/xml; charset="UTF-8"',
        "application/rss+xml",
        "application/x-ndjson; charset=utf-8",
    ],
)
async def test_data_that_is_text_is_the_param_too(content_type: str) -> None:
    text = '<msg>"Hello", 🌎!\n</msg>'
    named = {"datacontenttype": content_type}
    pieces = [
        structured(MINIMAL | named | {"data": text}),
        structured(MINIMAL | named | {"data_base64": base64.b64encode(text.encode()).decode()}),
        request(text.encode(), SOME_LINES, content_type),
    ]
    for piece in pieces:
        found = info(piece)
        assert found["param"] == {"value": text}
        assert found["extra"]["datacontenttype"] == content_type


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/vnd.apache.thrift.binary", b"\x00\xff\x80"),
        ("application/octet-stream", b'{"a":1}'),
        ("image/png", b"\x89PNG\r\n\x1a\n"),
        ("text/plain", b"\xe9t\xe9"),
        ("text/plain; charset=iso-8859-1", b"abc"),
        ("application/xml; charset=utf-16", "<a/>".encode("utf-16")),
    ],
)
async def test_other_data_is_kept_in_base64(content_type: str, body: bytes) -> None:
    encoded = base64.b64encode(body).decode()
    pieces = [
        structured(MINIMAL | {"datacontenttype": content_type, "data_base64": encoded}),
        request(body, SOME_LINES, content_type),
    ]
    for piece in pieces:
        found = info(piece)
        assert found["extra"]["data_base64"] == encoded
        assert "param" not in found


async def test_about_bytes_without_a_type_nothing_is_assumed_in_json() -> None:
    found = info(structured(MINIMAL | {"data_base64": "eyAieHl6IjogMTIzIH0="}))
    assert found["extra"] == MINIMAL_EXTRA | {"data_base64": "eyAieHl6IjogMTIzIH0="}


@pytest.mark.parametrize(
    ("body", "param"),
    [(b'{ "xyz": 123 }', {"xyz": 123}), (b"hello", {"value": "hello"}), (b"1.5 m", {"value": "1.5 m"})],
)
async def test_a_body_without_a_type_is_read_if_it_can_be(body: bytes, param: object) -> None:
    assert info(request(body, SOME_LINES))["param"] == param


@pytest.mark.parametrize("body", [b"\xff\x00", b'"\xff"'])
async def test_a_body_without_a_type_that_is_no_text_is_kept_in_base64(body: bytes) -> None:
    assert info(request(body, SOME_LINES))["extra"]["data_base64"] == base64.b64encode(body).decode()


@pytest.mark.parametrize("content_type", [None, "application/json", "image/png"])
async def test_an_event_needs_no_data(content_type: str | None) -> None:
    found = info(request(b"", SOME_LINES, content_type))
    assert "param" not in found
    assert "data_base64" not in found["extra"]


# The head of binary mode


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ("%41%2Fb", "A/b"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("a+b", "a+b"),
        ("%2541", "%41"),
        ('"quoted \\"text\\" \\\\ %20"', 'quoted "text" \\  '),
        ('half "quoted"', 'half "quoted"'),
        ('"', '"'),
        ("€".encode().decode("latin-1"), "€"),
        ("a: b, c; (d)", "a: b, c; (d)"),
    ],
)
async def test_the_value_of_a_header_line_is_decoded_once(value: str, text: str) -> None:
    assert info(request(b"", SOME_LINES | {"ce-note": value}))["extra"]["note"] == text


async def test_the_names_of_header_lines_have_no_case() -> None:
    shouted = {name.title(): value for name, value in SOME_LINES.items()}
    assert info(request(b"1", shouted, "text/plain")) == info(request(b"1", SOME_LINES, "text/plain"))


@pytest.mark.parametrize("value", ["%C0%A0", "%ff", "\xe9", "%ED%A0%80"])
async def test_a_value_that_is_not_utf_8_is_refused(value: str) -> None:
    assert refusal(request(b"", SOME_LINES | {"ce-note": value})) == {"note": "is not UTF-8"}


@pytest.mark.parametrize("name", ["data", "data_base64", "datacontenttype"])
async def test_what_has_another_place_is_no_header_line(name: str) -> None:
    assert refusal(request(b"", SOME_LINES | {f"ce-{name}": "a/b"})) == {name: "must not be a header line"}


async def test_the_type_of_the_body_is_that_of_the_data() -> None:
    assert refusal(request(b"{}", SOME_LINES, "json")) == {"datacontenttype": "is not a media type"}
    assert refusal(request(b"{}", SOME_LINES, "text/\xe9")) == {"datacontenttype": "is not UTF-8"}


@pytest.mark.parametrize("body", [b"hello", b'{"a":', b'{"a":"\xff"}', b"[" * 100_000, b"NaN"])
async def test_a_body_that_is_json_only_by_its_type_is_refused(body: bytes) -> None:
    assert refusal(request(body, SOME_LINES, "application/json")).keys() == {"data"}


async def test_a_body_of_another_mode_counts_more_than_the_head() -> None:
    lines = {"ce-specversion": "1.0", "ce-id": "other", "ce-source": "/other", "ce-type": "other"}
    for content_type, body in ((STRUCTURED, MINIMAL), (f"{BATCHED}; charset=utf-8", [MINIMAL])):
        assert document(request(json.dumps(body).encode(), lines, content_type))["log_id"] == "minimal"


async def test_an_event_in_another_event_format_is_passed_on_as_binary_data() -> None:
    found = info(request(b"\x00avro", SOME_LINES, "application/cloudevents+avro"))
    assert found["extra"]["data_base64"] == base64.b64encode(b"\x00avro").decode()


async def test_without_the_marker_a_request_is_what_its_type_says(server: Server) -> None:
    assert send(server, request(b"{}", {"ce-id": "1"}, "application/json")).statuses == [400]
    assert send(server, request(b"{}", None, "application/cloudevents+avro")).statuses == [415]
    assert send(server, request(b"{}", None, "application/cloudevents")).statuses == [415]


async def test_the_body_may_be_compressed() -> None:
    body = gzip.compress(b'{"a":1}')
    found = info(request(body, SOME_LINES | {"Content-Encoding": "gzip"}, "application/json"))
    assert found["param"] == {"a": 1}


# One event beside another


async def test_no_event_is_taken_by_the_head_of_another(server: Server) -> None:
    native = b'{"page":"/","event":"native","log_id":"native%d"}'
    pieces = []
    for number in range(4):
        lines = SOME_LINES | {"ce-id": f"binary-{number}", "ce-type": f"type-{number}"}
        pieces += [
            request(native % number, None, "application/json"),
            request(b'{"n":%d}' % number, lines, "application/json"),
            structured(MINIMAL | {"id": f"structured-{number}"}),
        ]
    # Also all in one piece, the same again, and cut near the end of each.
    cut = [part for piece in pieces for part in (piece[:-3], piece[-3:])]
    for sent in (pieces, [b"".join(pieces)], pieces + pieces, cut):
        server = Server()
        connection, _ = server.connect()
        for piece in sent:
            connection.data_received(piece)
            # A long piece is read in several turns.
            for _ in range(len(pieces)):
                await asyncio.sleep(0)
        found = documents(server)
        assert len(found) == len(pieces) * (2 if sent == pieces + pieces else 1)
        for place, one in enumerate(found):
            number = place // 3 % 4
            assert one["log_id"] == [f"native{number}", f"binary-{number}", f"structured-{number}"][place % 3]
            if place % 3 == 1:
                event = one["event_info"]
                assert (event["event"], event["param"]) == (f"type-{number}", {"n": number})


@pytest.mark.parametrize("coding", [{}, {"Content-Encoding": "gzip"}])
async def test_the_head_of_a_binary_event_is_not_remembered(server: Server, coding: dict[str, str]) -> None:
    body = gzip.compress(b"1") if coding else b"1"
    send(server, request(body, SOME_LINES | coding, "application/json"))
    assert server.intake.heads._grants == {}
    send(server, structured(MINIMAL))
    assert len(server.intake.heads._grants) == 1


# One event is one document


async def test_an_id_counts_within_its_source_alone() -> None:
    server = Server()
    send(server, batched(*(MINIMAL | {"source": source, "id": "1"} for source in ("/a", "/b", "/a"))))
    assert {(one["_id"], one["log_id"]) for one in documents(server)} == {("/a 1", "1"), ("/b 1", "1")}


@pytest.mark.parametrize("event_id", [UUID4, UUID7, UUID4.upper()])
async def test_an_id_that_is_unique_by_itself_is_that_of_the_document(event_id: str) -> None:
    assert document(structured(MINIMAL | {"id": event_id}))["_id"] == event_id


@pytest.mark.parametrize("event_id", [UUID5, "00000000-0000-0000-0000-000000000000", f"{UUID4} ", f"x{UUID4}"])
async def test_an_id_that_only_looks_unique_is_not(event_id: str) -> None:
    server = Server()
    send(server, batched(*(MINIMAL | {"source": source, "id": event_id} for source in ("/a", "/b"))))
    assert len({one["_id"] for one in documents(server)}) == 2


async def test_different_pairs_of_source_and_id_have_different_documents() -> None:
    long = "x" * LOG_ID_BYTES_MAX
    pairs = [("a", "b c"), ("a b", "c"), ("a ", "b c"), ("a", " b c"), (long, "1"), (f"{long}1", "1"), (long, "2")]
    pairs += [("é" * 300, "1"), ("a", long), ("b", long), ("sha256:00", "1"), ("/a", "1"), ("/a 1", "1")]
    server = Server()
    send(server, batched(*(MINIMAL | {"source": source, "id": event_id} for source, event_id in pairs)))
    found = documents(server)
    ids = {one["_id"] for one in found}
    assert len(ids) == len(found) == len(pairs)
    assert max(len(one.encode()) for one in ids) <= LOG_ID_BYTES_MAX
    assert sorted(one["log_id"] for one in found) == sorted(event_id for _, event_id in pairs)
    # A source that looks like such a name makes none.
    (digest,) = {one["_id"] for one in found if one["event_info"]["page"] == long and one["log_id"] == "1"}
    assert digest.startswith("sha256:")
    assert document(structured(MINIMAL | {"source": digest, "id": "1"}))["_id"].startswith("sha256:")


async def test_the_same_event_has_the_same_document_in_each_mode_and_again() -> None:
    server = Server()
    send(server, structured(SOME_EVENT), request(b"", SOME_LINES), batched(SOME_EVENT, SOME_EVENT))
    places = [(one["_index"], one["_id"]) for one in documents(server)]
    assert len(places) >= 3
    assert len(set(places)) == 1


# Refusals


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"specversion": None}, {"specversion"}),
        ({"id": None}, {"id"}),
        ({"type": None}, {"type"}),
        ({"source": None}, {"source"}),
        ({"id": None, "type": "", "source": 5, "time": "now"}, {"id", "type", "source", "time"}),
        ({"time": "lunchtime"}, {"time"}),
        ({"time": "2018-04-05T18:31Z"}, {"time"}),
        ({"time": "2018-04-05T18:31:00X"}, {"time"}),
        ({"time": "2018-04-05T18:31:00+25:00"}, {"time"}),
        ({"time": "2018-04-05T18:31:00+xx:00"}, {"time"}),
        ({"time": "2018-04-05T18:31:00+05"}, {"time"}),
        ({"time": "0001-01-01T00:00:00+23:59"}, {"time"}),
        ({"time": 1522949460000}, {"time"}),
        ({"id": ""}, {"id"}),
        ({"type": ""}, {"type"}),
        ({"source": ""}, {"source"}),
        ({"specversion": ""}, {"specversion"}),
        ({"specversion": "0.9"}, {"specversion"}),
        ({"specversion": 1.0}, {"specversion"}),
        ({"datacontenttype": "xyz"}, {"datacontenttype"}),
        ({"datacontenttype": ""}, {"datacontenttype"}),
        ({"dataschema": ""}, {"dataschema"}),
        ({"subject": ""}, {"subject"}),
        ({"id": 25}, {"id"}),
        ({"id": {"xyz": "abc"}}, {"id"}),
        ({"id": "x" * 513}, {"id"}),
        ({"data": "text", "data_base64": "eyAieHl6IjogMTIzIH0="}, {"data_base64"}),
        ({"data_base64": "?"}, {"data_base64"}),
        ({"data_base64": {}}, {"data_base64"}),
        ({"data_base64": "TWE=", "datacontenttype": "application/json"}, {"data"}),
        ({"extension": json.loads("[" * 40 + "]" * 40)}, {"extension"}),
        ({"data": json.loads("[" * 40 + "]" * 40)}, {"data"}),
    ],
)
async def test_an_event_that_is_none_is_refused_by_the_names_of_its_wrong_attributes(
    wrong: dict[str, object], fields: set[str]
) -> None:
    assert refusal(structured(MINIMAL | wrong)).keys() == fields
    # Beside good events, too.
    server = Server()
    transport = send(server, batched(MINIMAL | {"id": "1"}, MINIMAL | wrong, MINIMAL | {"id": "2"}))
    answer = json.loads(transport.written.partition(b"\r\n\r\n")[2])
    assert [result["status"] for result in answer["results"]] == ["created", "rejected", "created"]
    assert {error["field"] for error in answer["results"][1]["error"]["errors"]} == fields
    assert [one["log_id"] for one in documents(server)] == ["1", "2"]


@pytest.mark.parametrize("name", ["ce-id", "ce-source", "ce-type"])
async def test_an_attribute_that_is_missing_in_the_head_is_named(name: str) -> None:
    lines = {line: value for line, value in SOME_LINES.items() if line != name}
    assert refusal(request(b"", lines)) == {name.removeprefix("ce-"): "is required"}
    assert refusal(request(b"", lines | {name: ""})) == {name.removeprefix("ce-"): "must not be empty"}


async def test_wrong_attributes_in_the_head_are_named() -> None:
    wrong = {"ce-specversion": "2.0", "ce-time": "now", "ce-dataschema": ""}
    assert refusal(request(b"", SOME_LINES | wrong)).keys() == {"specversion", "time", "dataschema"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "a CloudEvent is a JSON object"),
        (b'"event"', "a CloudEvent is a JSON object"),
        (b'{"id":"\xff"}', "not UTF-8"),
        (b'{"id":"\\ud83d"}', "surrogate"),
        (b'{"id":NaN}', "not JSON"),
    ],
)
async def test_a_body_that_is_no_event_is_refused_as_a_whole(body: bytes, detail: str) -> None:
    (reason,) = refusal(request(body, None, STRUCTURED)).values()
    assert detail in reason


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{}", "a batch of CloudEvents is a JSON array"),
        (b"null", "a batch of CloudEvents is a JSON array"),
        (b"[", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nests too deeply"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_as_a_whole(body: bytes, detail: str) -> None:
    (reason,) = refusal(request(body, None, BATCHED)).values()
    assert detail in reason


@pytest.mark.parametrize(
    "bad", [b'"not an object"', b"{}", b"null", b'{"id":"\xff"}', b"[", b"{]", b"{:}", b'{"id":"\\ud800"}', b"nonsense"]
)
async def test_a_bad_event_costs_no_other(server: Server, bad: bytes) -> None:
    good = json.dumps(MINIMAL).encode()
    transport = send(server, request(b"[%b, %b ,%b]" % (good, bad, good), None, BATCHED))
    if bad == b"[":
        # Nobody knows where it ends.
        assert transport.statuses == [400]
        return
    answer = json.loads(transport.written.partition(b"\r\n\r\n")[2])
    assert [result["status"] for result in answer["results"]] == ["created", "rejected", "created"]


async def test_a_batch_may_be_empty(server: Server) -> None:
    transport = send(server, batched())
    assert transport.statuses == [200]
    assert json.loads(transport.written.partition(b"\r\n\r\n")[2]) == {"accepted": 0, "rejected": 0, "results": []}


async def test_the_answer_is_the_usual_one(server: Server) -> None:
    for piece in (structured(MINIMAL | {"id": UUID4}), request(b"", SOME_LINES | {"ce-id": UUID4})):
        answer = send(server, piece).written.partition(b"\r\n\r\n")[2]
        assert json.loads(answer) == {"status": "created", "log_id": UUID4}
    answer = send(server, batched(MINIMAL, {})).written.partition(b"\r\n\r\n")[2]
    taken, refused = json.loads(answer)["results"]
    assert taken == {"index": 0, "log_id": "https://cloudevents.io minimal", "status": "created"}
    assert (refused["index"], refused["status"]) == (1, "rejected")


async def test_a_name_that_stands_twice_counts_as_it_stands_last() -> None:
    body = json.dumps(MINIMAL)[:-1] + ',"id":"last"}'
    assert document(request(body.encode(), None, STRUCTURED))["log_id"] == "last"


# Whatever comes


# A loaded machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)


def read(form: Format, body: bytes) -> None:
    """Decode a body to its last event; any error but a refusal fails the test."""
    with contextlib.suppress(Rejection):
        assert all(isinstance(event, ForeignEvent | Rejection) for event in form.decode(body).events)


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SOME_EVENT, "data", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
attributes = st.fixed_dictionaries(
    {},
    optional={name: json_like | st.just(value) for name, value in SOME_EVENT.items()}
    | dict.fromkeys(("data", "data_base64", "datacontenttype", "authid", "authtype", "subject"), json_like),
)


@unhurried
@given(st.binary() | attributes.map(lambda event: json.dumps(event).encode()))
def test_no_body_breaks_the_json_modes(body: bytes) -> None:
    read(StructuredCloudEvent(), body)
    read(BatchedCloudEvents(), body)
    read(BatchedCloudEvents(), b"[%b,%b]" % (body, body))


@unhurried
@given(
    st.dictionaries(st.sampled_from([*map(str.encode, SOME_LINES), b"ce-subject", b"ce-authid", b"ce-x"]), st.binary()),
    st.binary() | st.sampled_from([b"", b"application/json", b"text/plain", b"a/b;charset="]),
    st.binary(),
)
def test_no_head_and_no_body_break_the_binary_mode(lines: dict[bytes, bytes], kind: bytes, body: bytes) -> None:
    whole = {name.encode(): value.encode() for name, value in SOME_LINES.items()} | lines
    for headers in (lines, whole):
        read(BinaryCloudEvent().of_head(headers | {b"content-type": kind}), body)


@pytest.mark.parametrize("more", [{"data": ""}, {"data": "", "datacontenttype": "text/plain"}, {"data_base64": ""}])
def test_empty_data_is_none_in_every_mode(more: dict[str, str]) -> None:
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "/a", "type": "t", **more}).encode()
    (found,) = StructuredCloudEvent().decode(body).events
    assert isinstance(found, ForeignEvent)
    assert found.event.param == NO_PARAM
