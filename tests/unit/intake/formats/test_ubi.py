"""User Behavior Insights: documents stay as they were sent, and each request has ids of its own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from forebay.errors import Rejection
from forebay.intake.formats.format import Example, OwnDocument
from forebay.intake.formats.ubi import UbiEvents, UbiQueries
from forebay.model import PARAM_DEPTH_MAX, Admission

# The sample of the specification (samples/event-opensearch.json of o19s/ubi), shortened.
SAMPLE = {
    "action_name": "page_exit",
    "user_id": "1821196507152684",
    "query_id": "00112233-4455-6677-8899-aabbccddeeff",
    "session_id": "c3d22be7-6bdc-4250-91e1-fc8a92a9b1f9",
    "page_id": "/docs/latest/",
    "timestamp": "2024-05-16T12:34:56.789Z",
    "message_type": "INFO",
    "message": "On page /docs/latest/ for 3.35 seconds",
    "event_attributes": {"position": {}, "object": {"idleTimeoutMs": 5000, "isUserCurrentlyIdle": False, "calls": []}},
}
GOOD = b'{"action_name":"click","timestamp":1732665600000}'


def decode(body: bytes) -> list[OwnDocument | Rejection]:
    found = list(UbiEvents().decode(body).events)
    assert all(isinstance(event, OwnDocument | Rejection) for event in found)
    return found  # type: ignore[return-value]


def only(body: bytes) -> OwnDocument:
    (document,) = decode(body)
    assert isinstance(document, OwnDocument)
    return document


def taken(body: bytes) -> list[bool]:
    return [isinstance(event, OwnDocument) for event in decode(body)]


def test_an_event_is_the_document_that_was_sent() -> None:
    document = only(json.dumps([SAMPLE]).encode())
    assert (document.index, document.time_field) == ("ubi_events", "")
    assert json.loads(document.document) == SAMPLE


def test_a_query_goes_into_an_index_of_its_own() -> None:
    (query,) = UbiQueries().decode(b'[{"query_id":"q1","user_query":"toner"}]').events
    assert isinstance(query, OwnDocument)
    assert query.index == "ubi_queries"


@pytest.mark.parametrize("number", ["1", "1.10", "1e400", "12345678901234567890123"])
def test_a_number_keeps_its_characters(number: str) -> None:
    assert only(b'[{"a":%b}]' % number.encode()).document == b'{"a":%b}' % number.encode()


def test_an_object_alone_is_taken_as_well() -> None:
    assert json.loads(only(json.dumps(SAMPLE, indent=1).encode()).document) == SAMPLE


def test_a_document_is_on_one_line() -> None:
    assert only(b'[{"a":\n[1,\n2]}]').document == b'{"a":[1,2]}'


@pytest.mark.parametrize("field", ["", ',"timestamp":null'])
def test_an_event_without_a_time_gets_that_of_receipt(field: str) -> None:
    document = only(f'[{{"action_name":"click"{field}}}]'.encode())
    assert document.time_field == "timestamp"
    assert json.loads(document.document) == {"action_name": "click"}


@pytest.mark.parametrize("time", ['"2024-05-16T12:34:56Z"', "1716408298072", '"yesterday"', '""', "{}"])
def test_a_time_stays_as_it_was_sent(time: str) -> None:
    document = only(f'[{{"timestamp":{time}}}]'.encode())
    assert document.time_field == ""
    assert document.document == f'{{"timestamp":{time}}}'.encode()


# Ids


def ids(body: bytes, form: UbiEvents | None = None) -> list[str]:
    return [event.document_id for event in (form or UbiEvents()).decode(body).events if isinstance(event, OwnDocument)]


def test_ids_are_made_of_the_whole_request_and_the_place() -> None:
    body = b'[{"a":1},5,{"a":1}]'
    digest = hashlib.sha256(body).hexdigest()[:32]
    assert ids(body) == [f"{digest}-0", f"{digest}-2"]


def test_the_same_request_has_the_same_ids_and_another_one_others() -> None:
    assert ids(b'[{"a":1}]') == ids(b'[{"a":1}]')
    assert ids(b'[{"a":1}]') != ids(b'[{"a":1} ]')


def test_queries_with_the_same_query_id_stay_two() -> None:
    first, second = ids(b'[{"query_id":"q"},{"query_id":"q"}]', UbiQueries())
    assert first != second


# Refusals


@pytest.mark.parametrize(
    "bad",
    [
        b"5",
        b"null",
        b'"text"',
        b"[]",
        b"[{}]",
        b'{"a":}',
        b"{a}",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"\\ud800":1}',
        b'{"forebay":{}}',
        b'{"unindexed":[]}',
        b'{"a":%b}' % (b"[" * (PARAM_DEPTH_MAX + 1) + b"]" * (PARAM_DEPTH_MAX + 1)),
    ],
)
def test_a_bad_event_costs_no_other(bad: bytes) -> None:
    assert taken(b"[%b,%b,%b]" % (GOOD, bad, GOOD)) == [True, False, True]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is not JSON"),
        (b"[", "the body is not JSON"),
        (b"5", "the body is an array of objects, or one object: expected array, got int"),
        (b'"[]"', "the body is an array of objects, or one object: expected array, got str"),
        (b"\xff", "the body is not UTF-8 (byte 0)"),
        (b"[" * 100_000, "the body nests too deeply"),
    ],
)
def test_another_body_is_refused_with_the_reason(body: bytes, detail: str) -> None:
    with pytest.raises(Rejection) as refused:
        UbiEvents().decode(body)
    assert refused.value.status == 400
    assert detail in refused.value.detail


def test_a_name_that_forebay_needs_is_named() -> None:
    (refusal,) = decode(b'[{"forebay":1,"unindexed":2,"a":3}]')
    assert isinstance(refusal, Rejection)
    assert [error.field for error in refusal.errors] == ["forebay", "unindexed"]


def test_a_token_beside_the_fields_is_in_no_document() -> None:
    assert only(b'{"action_name":"click","access_token":"a.b.c"}').document == b'{"action_name":"click"}'


@pytest.mark.parametrize("body", [b"[]", b" [ ] "])
def test_there_may_be_no_event(body: bytes) -> None:
    assert decode(body) == []


# Answers


def test_the_refusal_of_the_only_event_is_that_of_the_request() -> None:
    refusal = Rejection(400, "no")
    with pytest.raises(Rejection) as raised:
        UbiEvents().answer([0], [refusal], Admission.CREATED)
    assert raised.value is refusal


def test_each_of_several_events_is_answered() -> None:
    answer = json.loads(UbiEvents().answer([0, 1], [b'"x-0"', Rejection(400, "no")], Admission.PENDING))
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert [result["status"] for result in answer["results"]] == ["pending", "rejected"]


@pytest.mark.parametrize("example", [UbiEvents.example, UbiQueries.example])
def test_an_example_has_what_the_specification_requires(example: Example) -> None:
    document: dict[str, Any] = json.loads(only(example.body).document)
    assert document["timestamp"]
    assert document["action_name" if "action_name" in document else "user_query"]
