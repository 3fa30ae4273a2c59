"""OTLP/HTTP logs: ids, refusals and answers are those of its specification, for any bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import FieldError, Rejection
from forebay.intake.formats import otlp_json, otlp_mapping, otlp_protobuf
from forebay.intake.formats.format import Format
from forebay.intake.formats.otlp_mapping import PARTS_MAX
from forebay.intake.limits import COPIES_BYTES_MAX
from forebay.model import PARAM_DEPTH_MAX, Admission
from unit.intake.formats.otlp_requests import (
    JSON,
    OFFICIAL,
    PROTOBUF,
    as_pairs,
    as_value,
    both,
    delimited,
    encode,
    nest,
    record,
    request,
    take,
    take_all,
    take_one,
)


@both
def test_the_same_request_has_the_same_ids_and_equal_records_in_it_have_others(form: Format) -> None:
    body = encode(form, request(record(eventName="a"), record(eventName="a")))
    other = encode(form, request(record(eventName="a"), record(eventName="b")))
    ids = [document["log_id"] for document in take_all(form, body)]
    assert ids == [document["log_id"] for document in take_all(form, body)]
    assert len({*ids, *(document["log_id"] for document in take_all(form, other))}) == 4
    assert [log_id[32:] for log_id in ids] == ["-0", "-1"]


@both
def test_a_records_own_id_is_the_id_of_its_event(form: Format) -> None:
    records = [record({"log.record.uid": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}), record({"log.record.uid": ""})]
    first, second = take_all(form, encode(form, request(*records)))
    assert first["log_id"] == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert second["log_id"].endswith("-1")


@both
def test_records_are_numbered_through_all_scopes_and_resources(form: Format) -> None:
    body = request(record(), record())
    body["resourceLogs"][0]["scopeLogs"].append({"scope": {"name": "b"}, "logRecords": [record()]})
    body["resourceLogs"].append({"scopeLogs": [{"logRecords": []}, {"scope": {"name": "c"}, "logRecords": [record()]}]})
    documents = take_all(form, encode(form, body))
    assert [document["log_id"][32:] for document in documents] == ["-0", "-1", "-2", "-3"]
    scopes = [document["event_info"].get("extra", {}).get("scope") for document in documents]
    assert scopes == [None, None, {"name": "b"}, {"name": "c"}]


@pytest.mark.parametrize("body", [b"{}", b"null", b'{"resourceLogs":[]}', b'{"resourceLogs":null}'])
def test_an_empty_request_in_json_is_a_success(body: bytes) -> None:
    assert take_all(JSON, body) == []
    assert JSON.answer([], [], Admission.CREATED) == b"{}"


@pytest.mark.parametrize("body", [b"", b"\n\x00", b"\n\x02\x12\x00"])
def test_an_empty_request_in_protobuf_is_a_success(body: bytes) -> None:
    assert take_all(PROTOBUF, body) == []
    assert PROTOBUF.answer([], [], Admission.CREATED) == b""


@both
@pytest.mark.parametrize("levels", [PARAM_DEPTH_MAX + 1, 80, 250])
def test_a_record_that_is_too_deep_costs_no_other(form: Format, levels: int) -> None:
    good, bad = record(eventName="good"), record(body=as_value(nest(levels)))
    documents, answer = take(form, encode(form, request(good, bad, good)))
    assert [isinstance(document, Rejection) for document in documents] == [False, True, False]
    assert answer["partialSuccess"]["rejectedLogRecords"] == "1"
    message = answer["partialSuccess"]["errorMessage"]
    assert message.startswith("1 of 3 log records refused; number 1, from 0: the event is not valid: ")


@both
def test_values_may_be_as_deep_as_those_of_native_events(form: Format) -> None:
    value = nest(PARAM_DEPTH_MAX - 1)
    info = take_one(form, encode(form, request(record({"x": value}, body=as_value(value)))))["event_info"]
    assert info["param"] == {"x": value}
    assert info["extra"]["body"] == value


@pytest.mark.parametrize(
    ("form", "resource"),
    [
        (JSON, b'{"resourceLogs":[{"resource":5,"scopeLogs":[{"logRecords":[{},{}]}]},'),
        (PROTOBUF, b"\n\x0a\n\x02\xff\xff"),
    ],
)
def test_a_bad_resource_or_scope_costs_its_own_records_only(form: Format, resource: bytes) -> None:
    if form is JSON:
        body = resource + b'{"scopeLogs":[{"scope":5,"logRecords":[{}]},{"logRecords":[{}]}]}]}'
    else:
        bad = delimited(b"\n", b"\n\x02\xff\xff", delimited(b"\x12", b"\x12\x00\x12\x00"))
        scopes = (delimited(b"\x12", b"\n\x02\xff\xff\x12\x00"), delimited(b"\x12", b"\x12\x00"))
        body = bad + delimited(b"\n", *scopes)
    results = take(form, body)[0]
    fields = [result.errors[0].field if isinstance(result, Rejection) else result["log_id"][32:] for result in results]
    assert fields == ["resource", "resource", "scope", "-3"]


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b"\xff"),
        (JSON, b'{"resourceLogs":5}'),
        (JSON, b'{"resourceLogs":[5]}'),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":{}}]}]}'),
        (JSON, b'{"resourceLogs":' + b"[" * 100_000),
        (PROTOBUF, b"{}"),
        (PROTOBUF, b"\n"),
        (PROTOBUF, b"\n\x05abc"),
        (PROTOBUF, b"\xff" * 100),
    ],
)
def test_a_body_that_is_no_request_is_refused(form: Format, body: bytes) -> None:
    with pytest.raises(Rejection) as refusal:
        form.decode(body)
    assert refusal.value.status == 400
    assert refusal.value.detail.startswith("the body ")


@both
def test_if_no_record_is_taken_the_request_is_refused(form: Format) -> None:
    body = encode(form, request(record(body=as_value(nest(40))), record(body=as_value(nest(40)))))
    with pytest.raises(Rejection) as refusal:
        take(form, body)
    assert refusal.value.status == 400
    assert refusal.value.detail == (
        "2 of 2 log records refused; number 0, from 0: the event is not valid: body must not nest deeper than 32"
    )


@both
def test_a_large_resource_of_many_small_records_is_refused(form: Format) -> None:
    resource = {"a": "x" * 100_000}
    fits = COPIES_BYTES_MAX // 100_100
    decoded = form.decode(encode(form, request(*[record()] * fits, resource=resource)))
    assert sum(1 for _ in decoded.events) == fits
    with pytest.raises(Rejection, match="copies of resources and scopes") as refusal:
        list(form.decode(encode(form, request(*[record()] * (fits + 2), resource=resource))).events)
    assert refusal.value.status == 413


LARGE_NAME = "x" * 100_000


@pytest.mark.parametrize(
    "place",
    [(), ("resourceLogs", 0), ("resourceLogs", 0, "resource"), ("resourceLogs", 0, "scopeLogs", 0)],
    ids=["request", "beside the resource", "resource", "beside the scope"],
)
@pytest.mark.parametrize(
    "fields",
    [{LARGE_NAME: 1}, {"\x01" * 20_000: 1}, {"a": {LARGE_NAME: 1}}, {str(number): 1 for number in range(15_000)}],
    ids=["name", "escapes", "name inside", "names"],
)
def test_names_are_copied_as_values_are(fields: dict[str, Any], place: tuple[str | int, ...]) -> None:
    body: Any = request(*[record()] * (COPIES_BYTES_MAX // 100_000 + 1), resource={"a": 1})
    part = body
    for step in place:
        part = part[step]
    part.update(fields)
    with pytest.raises(Rejection, match="copies of resources and scopes"):
        list(JSON.decode(encode(JSON, body)).events)


@both
@pytest.mark.parametrize(
    "resource", [{LARGE_NAME: 1}, {"m": {LARGE_NAME: 1}}, *({name: "x" * 50_000} for name in ("url.path", "device.id"))]
)
def test_each_copy_of_a_resources_attribute_counts(form: Format, resource: dict[str, Any]) -> None:
    body = encode(form, request(*[record()] * (COPIES_BYTES_MAX // 100_000 + 1), resource=resource))
    with pytest.raises(Rejection, match="copies of resources and scopes"):
        list(form.decode(body).events)


MANY = 200

EMPTY_SCOPES = [{"scope": {"name": "s"}, "logRecords": []}] * MANY
MANY_VALUES: list[Any] = [{}] * 5_000
LARGE_PARTS: dict[str, dict[str, Any]] = {
    "beside": {"x": MANY_VALUES, "resourceLogs": [{"scopeLogs": EMPTY_SCOPES[:1]}] * MANY},
    "beside, with records": {
        "x": MANY_VALUES[:50],
        "resourceLogs": [{"resource": {"attributes": []}, **request(record())["resourceLogs"][0]}] * MANY,
    },
    "resource": {
        "resourceLogs": [
            {
                "resource": {"attributes": as_pairs({"a": "x" * 20_000})},
                "scopeLogs": [*EMPTY_SCOPES, {"logRecords": [record()]}],
            }
        ]
    },
}


@both
@pytest.mark.parametrize("name", LARGE_PARTS)
def test_whatever_records_share_is_read_once(form: Format, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = encode(form, LARGE_PARTS[name])
    handled_bytes = 0

    def count(module: Any, function: str, size_of: Callable[[Any, Any], int]) -> None:
        inner = getattr(module, function)

        def counted(value: Any) -> Any:
            nonlocal handled_bytes
            result = inner(value)
            handled_bytes += size_of(value, result)
            return result

        monkeypatch.setattr(module, function, counted)

    count(otlp_json, "_decode_value", lambda text, _: len(bytes(text)))
    count(otlp_json, "_decode_fields", lambda text, _: len(bytes(text)))
    count(otlp_mapping, "_encode", lambda _, text: len(text))
    take_all(form, body)
    # Decoded, encoded, and measured.
    assert handled_bytes <= 3 * len(body)


@both
def test_a_resource_or_a_scope_without_records_is_not_read(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = [
        {"resource": {"attributes": as_pairs({"r": number})}, "scopeLogs": EMPTY_SCOPES} for number in range(3)
    ]
    resources[1]["scopeLogs"] = [*EMPTY_SCOPES, {"scope": {"name": "full"}, "logRecords": [record(), record()]}]
    module = otlp_json if form is JSON else otlp_protobuf
    inner = module.read_part
    found = []

    def read(name: str, part: Any) -> Any:
        found.append((name, fields := inner(name, part)))
        return fields

    monkeypatch.setattr(module, "read_part", read)
    assert len(take_all(form, encode(form, {"resourceLogs": resources}))) == 2
    assert found == [("resource", {"attributes": {"r": 1}}), ("scope", {"name": "full"})]


@both
@pytest.mark.parametrize("is_scope", [False, True])
def test_more_resources_or_scopes_than_events_are_refused(form: Format, is_scope: bool) -> None:  # noqa: FBT001
    def body(parts: int) -> bytes:
        inner: list[Any] = [{"scopeLogs": []}] * parts
        if is_scope:
            inner = [{"scopeLogs": [{"logRecords": []}] * parts}]
        return encode(form, {"resourceLogs": inner})

    assert take_all(form, body(PARTS_MAX)) == []
    with pytest.raises(Rejection) as refusal:
        form.decode(body(PARTS_MAX + 1))
    assert refusal.value.status == 413


REFUSALS = [
    Rejection(401, "a bearer token is required", headers=(("WWW-Authenticate", "Bearer"),)),
    Rejection(429, "too much", headers=(("Retry-After", "7"),)),
    Rejection(503, "later \udcff", headers=(("Retry-After", "5"),)),
    Rejection(400, "é" * 500, (FieldError("a", "must be b"), FieldError("c", "is d"))),
]


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_refusal_is_a_status_in_the_encoding_of_the_request(error: Rejection) -> None:
    status, head, body = PROTOBUF.refuse(error)
    message = Status.FromString(body)
    assert (status, message.message) == (error.status, error.detail.replace("\udcff", "?"))
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % error.status)
    assert b"content-type: application/x-protobuf" in lines
    assert b"content-length: %d" % len(body) in lines
    for name, value in error.headers:
        assert f"{name.lower()}: {value}".encode() in lines
    details = [BadRequest(), *message.details][1:]
    assert len(details) == bool(error.errors)
    for detail in details:
        violations = BadRequest()
        assert detail.Unpack(violations)
        assert [(each.field, each.description) for each in violations.field_violations] == [*error.errors]


def test_a_refusal_in_json_has_the_same_in_it() -> None:
    status, head, body = JSON.refuse(REFUSALS[-1])
    assert status == 400
    assert b"content-type: application/json\r\n" in head
    assert json.loads(body) == {
        "message": "é" * 500,
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [
                    {"field": "a", "description": "must be b"},
                    {"field": "c", "description": "is d"},
                ],
            }
        ],
    }
    assert json.loads(JSON.refuse(REFUSALS[0])[2]) == {"message": "a bearer token is required"}


@both
def test_a_refusal_that_comes_again_is_not_made_again(form: Format) -> None:
    first = form.refuse(Rejection(401, "who are you?"))
    assert form.refuse(Rejection(401, "who are you?")) is first


@both
def test_a_refusal_in_the_words_of_a_client_is_not_kept(form: Format) -> None:
    for error in (Rejection(400, "no", (FieldError("a", "must be b"),)), Rejection(400, "x" * 1_000)):
        first = form.refuse(error)
        assert form.refuse(error) == first
        assert form.refuse(error) is not first


@both
def test_an_answer_has_the_type_of_the_request(form: Format) -> None:
    assert f"content-type: {form.media_type}\r\n".encode() in form.ok_head


@both
def test_the_example_is_an_event(form: Format) -> None:
    info = take_one(form, form.example.body)["event_info"]
    assert (info["page"], info["event"], info["label"]) == ("shop", "click", "buy")


def decode_all(form: Format, body: bytes) -> None:
    try:
        take(form, body)
    except Rejection as error:
        assert error.status in (400, 413)  # noqa: PT017 - any other error fails the test by itself


OFFICIAL_JSON, OFFICIAL_PROTOBUF = encode(JSON, OFFICIAL), encode(PROTOBUF, OFFICIAL)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 4000), st.integers(0, 50))
def test_any_bytes_are_events_or_a_refusal(piece: bytes, place: int, dropped: int) -> None:
    for form, good in ((JSON, OFFICIAL_JSON), (PROTOBUF, OFFICIAL_PROTOBUF)):
        decode_all(form, piece)
        start = place % len(good)
        decode_all(form, good[:start] + piece + good[start + dropped :])


NAMES = [
    "resourceLogs",
    "resource",
    "scopeLogs",
    "scope",
    "logRecords",
    "timeUnixNano",
    "traceId",
    "eventName",
    "body",
    "attributes",
    "key",
    "value",
    "values",
    "stringValue",
    "intValue",
    "arrayValue",
    "kvlistValue",
]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(ANY_JSON)
def test_any_json_in_any_place_is_events_or_a_refusal(value: Any) -> None:
    pair = {"key": "x", "value": value}
    bodies = [
        value,
        {"resourceLogs": value},
        {"resourceLogs": [{"resource": value, "scopeLogs": [{"logRecords": [{}]}]}]},
        {"resourceLogs": [{"scopeLogs": value}]},
        {"resourceLogs": [{"scopeLogs": [{"scope": value, "logRecords": [{"attributes": [pair]}]}]}]},
        request({"body": value}),
        request({"attributes": value, "eventName": value, "timeUnixNano": value, "traceId": value}),
        request(value),
    ]
    for body in bodies:
        # `dumps` writes half a surrogate pair as an escape, as JavaScript does.
        decode_all(JSON, json.dumps(body).encode())
