"""Both encodings become the same events, with nothing lost."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from forebay.intake.formats.format import Format
from unit.intake.formats.otlp_requests import (
    HAPPENED_AT,
    INT64_MAX,
    JSON,
    OFFICIAL,
    as_pairs,
    as_value,
    both,
    encode,
    record,
    request,
    take_all,
    take_one,
)


@both
def test_the_official_example_is_an_event_with_everything_in_it(form: Format) -> None:
    document = take_one(form, encode(form, OFFICIAL))
    assert document.pop("log_id").endswith("-0")
    assert document == {
        "@timestamp": "2018-12-13T14:51:00.300000Z",
        "received_at": "2026-03-15T12:30:00.123456Z",
        "user_id": "app",
        "device_uuid": "device of the head",
        "user_agent": "agent of the head",
        "event_info": {
            "page": "my.service",
            "event": "log",
            "label": "Example log record",
            "param": {
                "string.attribute": "some string",
                "boolean.attribute": True,
                "int.attribute": 10,
                "double.attribute": 637.704,
                "array.attribute": ["many", "values"],
                "map.attribute": {"some.map.key": "some value"},
            },
            "extra": {
                "resource": {"attributes": {"service.name": "my.service"}},
                "scope": {
                    "name": "my.library",
                    "version": "1.0.0",
                    "attributes": {"my.scope.attribute": "some scope attribute"},
                },
                "timeUnixNano": 1544712660300000000,
                "observedTimeUnixNano": 1544712660300000000,
                "severityText": "Information",
                "traceId": "5b8efff798038103d269b633813fc60c",
                "spanId": "eee19b7ec3c1b174",
            },
        },
    }


@both
@pytest.mark.parametrize(
    ("fields", "resource", "event"),
    [
        (record({"event.name": "b"}, eventName="a"), {"event.name": "c"}, "a"),
        (record({"event.name": "b"}), {"event.name": "c"}, "b"),
        (record({"event.name": ""}, eventName=""), {"event.name": "c"}, "c"),
        (record({"event.name": 5}), {}, "log"),
        (record(), {}, "log"),
    ],
)
def test_the_event_is_the_name_of_the_record(
    form: Format, fields: dict[str, Any], resource: dict[str, Any], event: str
) -> None:
    assert take_one(form, encode(form, request(fields, resource=resource)))["event_info"]["event"] == event


@both
@pytest.mark.parametrize(
    ("attributes", "resource", "page"),
    [
        ({"service.name": "c", "http.route": "b", "url.path": "a"}, {"service.name": "d"}, "a"),
        ({"service.name": "c", "http.route": "b"}, {"service.name": "d"}, "b"),
        ({"service.name": "c"}, {"service.name": "d"}, "c"),
        ({"url.path": ""}, {"service.name": "d"}, "d"),
        ({"url.path": 5}, {}, "unknown_service"),
    ],
)
def test_the_page_is_the_path_or_the_service(
    form: Format, attributes: dict[str, Any], resource: dict[str, Any], page: str
) -> None:
    body = encode(form, request(record(attributes), resource=resource))
    assert take_one(form, body)["event_info"]["page"] == page


@both
def test_user_and_device_are_those_of_the_record_and_then_of_its_resource(form: Format) -> None:
    named = {
        "enduser.id": "ada",
        "user.id": "u-1",
        "device.id": "d-1",
        "service.version": "1.2",
        "os.version": "15.1",
        "user_agent.original": "Shop/1.2",
    }
    records = [record(named), record({"device.id": "d-2", "user.id": "u-2"}), record({"device.id": 7})]
    first, second, third = take_all(form, encode(form, request(*records, resource={**named, "device.id": "d-0"})))
    assert [
        first[name] for name in ("user_id", "source", "device_uuid", "app_version", "os_version", "user_agent")
    ] == [
        "ada",
        "app",
        "d-1",
        "1.2",
        "15.1",
        "Shop/1.2",
    ]
    assert first["event_info"]["param"] == named
    assert (second["user_id"], second["device_uuid"], second["user_agent"]) == ("u-2", "d-2", "Shop/1.2")
    assert (third["user_id"], third["device_uuid"]) == ("ada", "d-0")


VALUES: list[Any] = [
    "",
    '日本 🎉 \x00\n"\\',
    True,
    False,
    0,
    -(2**63),
    INT64_MAX,
    0.5,
    -1e300,
    b"",
    b"\x00\xff",
    None,
    [],
    {},
    [None, [1, {"a": [b"x"]}]],
    {"a": {"b": None, "": "no name"}},
]


def as_json(value: Any) -> Any:
    """Return the JSON value that stands for a Python value in a document."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [as_json(item) for item in value]
        case dict():
            return {key: as_json(item) for key, item in value.items()}
    return value


@both
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_kind_of_value_is_kept_as_json(form: Format, value: Any) -> None:
    body = encode(form, request(record({"x": value}, body=as_value(value)), resource={"y": value}))
    info = take_one(form, body)["event_info"]
    assert info["param"] == {"x": as_json(value)}
    assert info["extra"]["resource"] == {"attributes": {"y": as_json(value)}}
    if isinstance(value, str):
        assert (info["label"], info["extra"].get("body")) == (value, None)
    else:
        assert ("label" in info, info["extra"].get("body")) == (False, as_json(value))


@both
@pytest.mark.parametrize(
    ("number", "text"), [(float("nan"), "NaN"), (float("inf"), "Infinity"), (-float("inf"), "-Infinity")]
)
def test_a_number_that_json_has_not_is_a_text(form: Format, number: float, text: str) -> None:
    body = request(record(attributes={}))
    body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"] = [
        {"key": "x", "value": {"doubleValue": text if form is JSON else number}}
    ]
    assert take_one(form, encode(form, body))["event_info"]["param"] == {"x": text}


@both
def test_a_key_that_is_there_twice_loses_no_value(form: Format) -> None:
    pairs = [*as_pairs({"a": 1}), *as_pairs({"a": 2, "user.id": "ada"})]
    document = take_one(form, encode(form, request({"attributes": pairs})))
    assert document["user_id"] == "ada"
    assert document["event_info"]["param"] == {
        "value": [{"key": "a", "value": 1}, {"key": "a", "value": 2}, {"key": "user.id", "value": "ada"}]
    }


@both
@pytest.mark.parametrize(
    ("times", "timestamp"),
    [
        ({"timeUnixNano": HAPPENED_AT, "observedTimeUnixNano": HAPPENED_AT + 10**9}, "2018-12-13T14:51:00.300000Z"),
        ({"observedTimeUnixNano": HAPPENED_AT + 1000}, "2018-12-13T14:51:00.300001Z"),
        ({"timeUnixNano": 1}, "1970-01-01T00:00:00Z"),
        ({"timeUnixNano": 2**64 - 1}, "2554-07-21T23:34:33.709551Z"),
        ({}, "2026-03-15T12:30:00.123456Z"),
    ],
)
def test_the_time_is_the_records_own_to_the_microsecond_and_the_nanoseconds_are_kept(
    form: Format, times: dict[str, Any], timestamp: str
) -> None:
    document = take_one(form, encode(form, request(record(**times))))
    assert document["@timestamp"] == timestamp
    assert document["event_info"]["extra"] == times


@pytest.mark.parametrize("time", [10**40, -1, "1e9", "x" * 30, "9" * 20, 1e300, [], {"a": 1}, "9" * 5000])
def test_a_time_that_is_none_costs_no_event(time: Any) -> None:
    document = take_one(JSON, encode(JSON, request(record(timeUnixNano=time, observedTimeUnixNano=HAPPENED_AT))))
    assert document["@timestamp"] == "2018-12-13T14:51:00.300000Z"
    assert document["event_info"]["extra"].get("timeUnixNano", []) == time


@pytest.mark.parametrize("time", [HAPPENED_AT, str(HAPPENED_AT), float(HAPPENED_AT)])
def test_a_64_bit_number_of_json_may_be_a_text(time: Any) -> None:
    document = take_one(JSON, encode(JSON, request(record(timeUnixNano=time))))
    assert document["@timestamp"] == "2018-12-13T14:51:00.300000Z"


@both
def test_schema_addresses_are_kept_beside_that_which_they_describe(form: Format) -> None:
    body = request(record(), resource={"a": 1})
    body["resourceLogs"][0]["schemaUrl"] = "https://a"
    body["resourceLogs"][0]["resource"]["droppedAttributesCount"] = 3
    body["resourceLogs"][0]["scopeLogs"][0]["schemaUrl"] = "https://b"
    assert take_one(form, encode(form, body))["event_info"]["extra"] == {
        "resource": {"attributes": {"a": 1}, "droppedAttributesCount": 3, "schemaUrl": "https://a"},
        "scope": {"schemaUrl": "https://b"},
    }
