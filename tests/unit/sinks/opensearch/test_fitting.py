"""A document of UBI that was refused keeps every value, and of its fields those that fit the mapping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forebay.model import Entry, entry_document
from forebay.sinks.opensearch.repair import may_overwhelm, repair

RECEIPT = {"received_at": "2026-11-24T00:00:00Z", "source": "alice"}
TIME = "2026-11-24T12:00:00.000Z"
STRICT_TIMES = [TIME, "2026-11-24T12:00:00.1Z", "2026-11-24T12:00:00.123456+05:30"]


def make(document: str, index: str = "ubi_events") -> Entry:
    text = f"{document[:-1]}{',' if len(document) > 2 else ''}" + f'"forebay":{json.dumps(RECEIPT)}}}'
    return b'{"create":{"_index":"%b","_id":"d-0"}}\n%b\n' % (index.encode(), text.encode())


def repaired(document: str, index: str = "ubi_events") -> tuple[Any, dict[str, Any]]:
    """Return the rest of a refused document, and the values that were moved by their paths."""
    changed = repair(make(document, index), is_refused=True)
    assert repair(changed, is_refused=True) is changed
    found = json.loads(entry_document(changed))
    assert found.pop("forebay") == RECEIPT
    return found, {each["path"]: json.loads(each["json"]) for each in found.pop("unindexed", [])}


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        '{"action_name":"click","client_id":7,"message":null,"message_type":["a","b"],"user_query":true}',
        f'{{"timestamp":"{TIME}"}}',
        '{"event_attributes":{"position":{"ordinal":3,"x":"4","y":5.9,"trail":"a"},"object":{"object_id":1,"name":"n"}}}',
        '{"event_attributes":null}',
        f'{{"event_attributes":{{"object":{{"description":"{"x " * 40_000}"}}}}}}',
    ],
)
def test_fields_that_fit_stay(document: str) -> None:
    assert repaired(document) == (json.loads(document), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page_id", "/docs"),
        ("session_id", {"a": [1, {"b": None}]}),
        ("", 1),
        (".", {"a": 1}),
        ("event_attributes.object", {"a": 1}),
        ("a/b~c", 1.5),
        ("action_name", {"a": 1}),
        ("message", ["a", {"b": 1}]),
        ("user_query", "x" * 32_766),
        ("timestamp", "yesterday"),
        ("timestamp", {}),
        ("timestamp", True),
        ("timestamp", "2026-13-41T12:00:00.000Z"),
        ("event_attributes", "text"),
        ("event_attributes", [{"position": {"ordinal": 1}}]),
    ],
)
def test_a_field_that_is_not_known_or_does_not_fit_is_moved(name: str, value: Any) -> None:
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    document = json.dumps({"application": "shop", name: value})
    assert repaired(document) == ({"application": "shop"}, {pointer: value})


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, "three", True, {"index": 1}, "1e999", [1, "x"]])
def test_a_number_that_is_none_is_moved(value: Any) -> None:
    document = json.dumps({"event_attributes": {"position": {"ordinal": value, "x": 1}, "dwell_time": 2.5}})
    rest, moved = repaired(document)
    assert rest == {"event_attributes": {"position": {"x": 1}}}
    assert moved == {"/event_attributes/position/ordinal": value, "/event_attributes/dwell_time": 2.5}


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (1_732_665_600_000, "2024-11-27T00:00:00.000Z"),
        ("1732665600000", "2024-11-27T00:00:00.000Z"),
        (-1.5, "1969-12-31T23:59:59.998Z"),
        ("2018-11-13T20:20:39+00:00", "2018-11-13T20:20:39.000Z"),
        ("2018-11-13T20:20:39", "2018-11-13T20:20:39.000Z"),
        ("2018-11-13", "2018-11-13T00:00:00.000Z"),
        ("2018-11-13T20:20:39.5+0200", "2018-11-13T18:20:39.500Z"),
    ],
)
def test_a_time_of_another_form_is_written_in_that_of_every_index_and_kept(time: Any, written: str) -> None:
    assert repaired(json.dumps({"timestamp": time})) == ({"timestamp": written}, {"/timestamp": time})


@pytest.mark.parametrize("time", STRICT_TIMES)
def test_a_time_of_that_form_stays(time: str) -> None:
    assert repaired(json.dumps({"timestamp": time})) == ({"timestamp": time}, {})


@pytest.mark.parametrize("time", [1e300, -1e300, "9" * 400, "nan", "-inf", "0001-01-01T00:00:00+14:00"])
def test_a_time_out_of_all_calendars_is_moved(time: Any) -> None:
    assert repaired(json.dumps({"timestamp": time})) == ({}, {"/timestamp": time})


def test_of_a_query_the_attributes_are_kept_as_far_as_they_are_terms() -> None:
    document = json.dumps({"user_query": "toner", "query_attributes": {"a": 1, "b": "x" * 40_000}, "indexes": "i"})
    assert repaired(document, "ubi_queries") == (
        {"user_query": "toner", "query_attributes": {"a": 1}},
        {"/indexes": "i", "/query_attributes/b": "x" * 40_000},
    )


def test_attributes_that_are_no_object_are_moved() -> None:
    assert repaired('{"query_attributes":[1]}', "ubi_queries") == ({}, {"/query_attributes": [1]})


# Before it is refused


@pytest.mark.parametrize("index", ["ubi_events", "ubi_queries"])
def test_what_was_not_refused_stays_as_it_is(index: str) -> None:
    entry = make(json.dumps({"page_id": [*range(10_000)], "timestamp": 1, "action_name": {}}), index)
    assert may_overwhelm(entry)
    assert repair(entry) is entry


def test_a_query_over_which_opensearch_would_end_is_repaired_before() -> None:
    attributes = {"k" * 8_000: [*range(8_000)]}
    entry = make(json.dumps({"message": "m", "query_attributes": attributes}), "ubi_queries")
    assert may_overwhelm(entry)
    document = json.loads(entry_document(repair(entry)))
    assert document["message"] == "m"
    assert json.loads(document["unindexed"][0]["json"]) == attributes
    assert "query_attributes" not in document


def test_a_key_that_stands_twice_is_kept_once() -> None:
    assert repaired('{"action_name":"a","action_name":"b"}') == ({"action_name": "b"}, {})
