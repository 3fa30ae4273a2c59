"""An edited document is a valid one, and only the fields that were set differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forebay.cli.editing import encode_edited, set_field
from forebay.errors import NotADocument
from forebay.model import Address, entry_address, entry_document

ADDRESS = Address("events_local_2026-11", "a")
DOCUMENT: dict[str, Any] = {
    "@timestamp": "2026-11-24T12:00:00Z",
    "received_at": "2026-11-24T12:00:00.5+01:00",
    "log_id": "a",
    "user_id": "user",
    "event_info": {"page": "/", "event": "click", "param": {"key": {"deep": 1}}},
}
BODY = json.dumps(DOCUMENT).encode()


def corrected(field: str, value: str) -> Any:
    return json.loads(entry_document(encode_edited(ADDRESS, set_field(BODY, field, value.encode()))))


def test_index_and_id_stay() -> None:
    entry = encode_edited(ADDRESS, BODY)

    assert entry_address(entry) == ADDRESS
    assert json.loads(entry_document(entry))["event_info"] == DOCUMENT["event_info"]
    assert entry.count(b"\n") == 2


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("page", '"/home"', ["event_info", "page"]),
        ("event_info.page", '"/home"', ["event_info", "page"]),
        ("param.key.deep", "2", ["event_info", "param", "key", "deep"]),
        ("param.new.deeper", '[1, {"a": null}]', ["event_info", "param", "new", "deeper"]),
        ("extra.x", "true", ["event_info", "extra", "x"]),
        ("user_id", '"somebody"', ["user_id"]),
        ("@timestamp", '"2026-01-01T00:00:00Z"', ["@timestamp"]),
    ],
)
def test_short_and_full_paths_set_the_same_field(field: str, value: str, path: list[str]) -> None:
    found = corrected(field, value)
    for name in path:
        found = found[name]

    assert found == json.loads(value)


def test_other_fields_stay_to_the_last_digit() -> None:
    body = BODY.replace(b'{"deep": 1}', b'{"deep": 1.50, "large": 12345678901234567890123}')

    entry = encode_edited(ADDRESS, set_field(body, "param.more", b"1e40"))

    assert b'"deep":1.50,"large":12345678901234567890123' in entry.replace(b" ", b"")
    assert b'"more":1e40' in entry


def test_value_over_several_lines_stays_one_document() -> None:
    entry = encode_edited(ADDRESS, set_field(BODY, "param", b'{"a":\n[1,\n2]}'))

    assert entry.count(b"\n") == 2
    assert json.loads(entry_document(entry))["event_info"]["param"] == {"a": [1, 2]}


def test_optional_field_set_to_null_is_removed() -> None:
    assert "label" not in corrected("label", "null")["event_info"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("page", '""', "event_info.page: must not be empty"),
        ("page", "home", "page: the value is not JSON"),
        ("page", "1", "event_info.page: expected str, got int"),
        ("page.deep", "1", "page.deep: there is no such field"),
        ("log_id", '"b"', "log_id: must stay a"),
        ("no_such", "1", "no_such: is not known"),
        ("event_info.no_such", "1", "event_info.no_such: is not known"),
        ("event_info", "{}", "event_info.page: is required"),
        ("@timestamp", '"2026-11-24T12:00:00"', "@timestamp: expected datetime with a timezone"),
        ("@timestamp", '"yesterday"', "@timestamp: invalid RFC3339"),
        ("received_at", "1", "received_at: expected datetime, got int"),
        ("param", "[1]", "event_info.param: must be a JSON object"),
        ("extra", "[]", "event_info.extra: expected object, got array"),
        ("user_id", "null", "user_id: expected str, got null"),
    ],
)
def test_invalid_document_names_the_field_and_the_reason(field: str, value: str, said: str) -> None:
    with pytest.raises(NotADocument) as raised:
        corrected(field, value)

    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("document", [b"", b"[]", b'{"a"', b'{"\xff":1}', b"[" * 100_000, BODY[:-1], BODY + BODY])
def test_text_that_is_not_a_json_object_is_refused(document: bytes) -> None:
    with pytest.raises(NotADocument):
        encode_edited(ADDRESS, document)


def test_missing_field_is_named() -> None:
    with pytest.raises(NotADocument, match=r"^user_id: is required$"):
        encode_edited(
            ADDRESS, json.dumps({name: value for name, value in DOCUMENT.items() if name != "user_id"}).encode()
        )
