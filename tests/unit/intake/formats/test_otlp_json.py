"""The JSON encoding: unknown fields and odd values stay, and a bad record costs no other."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.errors import Rejection
from forebay.model import PARAM_DEPTH_MAX
from unit.intake.formats.otlp_requests import (
    JSON,
    encode,
    record,
    request,
    take,
    take_one,
)


def test_unknown_fields_of_json_are_kept_and_a_token_is_not() -> None:
    body = request(record(newField={"a": 1}), resource={"b": 2})
    body |= {"access_token": "secret", "batch": 7}
    body["resourceLogs"][0]["resource"]["newer"] = "c"
    body["resourceLogs"][0]["beside"] = "d"
    body["resourceLogs"][0]["scopeLogs"][0]["beside"] = "e"
    assert take_one(JSON, encode(JSON, body))["event_info"]["extra"] == {
        "batch": 7,
        "resource": {"attributes": {"b": 2}, "newer": "c", "beside": "d"},
        "scope": {"beside": "e"},
        "newField": {"a": 1},
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"newValue": 1}, {"newValue": 1}),
        ({"stringValue": "a", "unit": "b"}, {"stringValue": "a", "unit": "b"}),
        ({"intValue": "many"}, "many"),
        ({"intValue": "9" * 30}, "9" * 30),
        ({"stringValue": None}, None),
        ({"arrayValue": None}, []),
        ({"arrayValue": {}}, []),
        ({"kvlistValue": {"values": None}}, {}),
        ({"arrayValue": {"values": [], "a": "b"}}, {"arrayValue": {"values": [], "a": "b"}}),
        ({"arrayValue": {"values": [{"intValue": "1"}], "a": ""}}, [1]),
        ({"kvlistValue": {"a": "b"}}, {"kvlistValue": {"a": "b"}}),
        ({"intValue": {"a": "b"}}, {"intValue": {"a": "b"}}),
        ("bare", "bare"),
        (0, 0),
    ],
    ids=repr,
)
def test_a_value_that_is_not_of_otlp_stays_as_it_came(value: Any, kept: Any) -> None:
    document = take_one(JSON, encode(JSON, request({"attributes": [{"key": "x", "value": value}]})))
    assert document["event_info"]["param"] == {"x": kept}


def test_attributes_stay_a_list_if_one_has_a_field_that_otlp_does_not_know() -> None:
    noted = {"key": "user.id", "value": {"stringValue": "ada"}, "note": "kept"}
    inner = {"key": "x", "value": {"kvlistValue": {"values": [{"key": "y", "note": {"a": 1}}]}}}
    document = take_one(JSON, encode(JSON, request({"attributes": [noted, inner]})))
    assert document["user_id"] == "ada"
    assert document["event_info"]["param"] == {
        "value": [
            {"key": "user.id", "value": "ada", "note": "kept"},
            {"key": "x", "value": [{"key": "y", "value": None, "note": {"a": 1}}]},
        ]
    }


def test_an_attribute_with_a_default_beside_it_is_as_one_without() -> None:
    pair = {"key": "x", "value": {"stringValue": "a"}, "keyStrindex": 0}
    assert take_one(JSON, encode(JSON, request({"attributes": [pair]})))["event_info"]["param"] == {"x": "a"}


@pytest.mark.parametrize(
    "bad",
    [
        b"null",
        b"5",
        b"[]",
        b'{"attributes":5}',
        b'{"attributes":{"a":1}}',
        b'{"attributes":[5]}',
        b'{"attributes":[{}]}',
        b'{"attributes":[{"key":5}]}',
        b'{"attributes":[{"key":["a"]}]}',
        b'{"attributes":[{"key":"a","value":{"kvlistValue":5}}]}',
        b'{"body":{"arrayValue":{"values":{}}}}',
        b'{"body":{"stringValue":"\\ud83d"}}',
        b'{"body":{"stringValue":"\xff"}}',
        b'{"\xff":5}',
        b'{"a":1e999}',
        b'{"a":}',
        b'{"body":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_a_bad_record_of_json_costs_no_other(bad: bytes) -> None:
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},%b,{"body":{"stringValue":"b"}}]}]}]}' % bad
    first, second, third = take(JSON, body)[0]
    assert not isinstance(first, Rejection)
    assert isinstance(second, Rejection)
    assert second.status == 400
    assert second.errors
    assert not isinstance(third, Rejection)
    assert third["event_info"]["label"] == "b"
    assert third["log_id"].endswith("-2")


def test_a_record_of_any_depth_is_an_event_or_a_refusal() -> None:
    for depth in range(1, 1_100, 9):
        for opening, closing in ((b"[", b"]"), (b'{"arrayValue":{"values":[', b"]}}")):
            body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":%b},{}]}]}]}' % (
                opening * depth + closing * depth
            )
            first, second = take(JSON, body)[0]
            assert isinstance(first, Rejection) == (depth > PARAM_DEPTH_MAX)
            assert not isinstance(second, Rejection)
