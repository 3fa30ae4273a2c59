"""Valid events, and the reasons against invalid ones."""

from __future__ import annotations

import json
import time
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from forebay.errors import FieldError, Rejection
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.event import check_text, decode_event
from forebay.intake.senders import encode_sender
from forebay.model import LOG_ID_BYTES_MAX, PARAM_DEPTH_MAX, Event, ExtendedEvent
from forebay.telemetry.counters import Counters

SMALLEST: dict[str, Any] = {"page": "/home", "event": "click"}


def take(body: bytes) -> Event:
    """Return an event of which a document can be made."""
    maker = DocumentMaker("test", datetime(2024, 1, 1, tzinfo=UTC), Counters(), require_log_id=False)
    sender = encode_sender("alice")
    # The maker uses the event up.
    (result,) = maker.make([decode_event(body, "body")], sender, datetime(2026, 3, 15, tzinfo=UTC), None)[1]
    if isinstance(result, Rejection):
        raise result
    return decode_event(body, "body")


def decode(**fields: Any) -> Event:
    return take(json.dumps(SMALLEST | fields, ensure_ascii=False).encode())


def refusal(body: bytes) -> Rejection:
    with pytest.raises(Rejection) as raised:
        take(body)
    assert raised.value.status == 400
    return raised.value


def blame(**fields: Any) -> dict[str, str]:
    """Return the reasons, by field, against an event with these fields."""
    error = refusal(json.dumps(SMALLEST | fields).encode())
    assert error.detail == "the event is not valid"
    return dict(error.errors)


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


def test_the_smallest_event_has_a_page_and_an_event() -> None:
    event = decode()
    assert (event.page, event.event, event.log_id, event.label) == ("/home", "click", None, None)
    assert type(event) is Event


def test_every_field_is_taken_as_it_was_sent() -> None:
    event = decode(
        log_id="a-1", label="", target="#id", section="日本", param={"k": [1, None]}, timestamp=0, sent_at=1.5
    )
    assert (event.log_id, event.label, event.target, event.section) == ("a-1", "", "#id", "日本")
    assert json.loads(bytes(event.param)) == {"k": [1, None]}
    assert (event.timestamp, event.sent_at) == (0, 1.5)
    assert type(event) is Event


@pytest.mark.parametrize("field", ["log_id", "label", "target", "section", "timestamp", "sent_at"])
def test_null_is_as_good_as_leaving_an_optional_field_out(field: str) -> None:
    assert getattr(decode(**{field: None}), field) is None


def test_a_time_is_rfc_3339_or_milliseconds() -> None:
    assert decode(timestamp="2026-01-02T03:04:05.678Z").timestamp == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert decode(timestamp=1_767_323_045_678).timestamp == 1_767_323_045_678


LEAP_SECONDS = [
    ("1990-12-31T23:59:60Z", datetime(1990, 12, 31, 23, 59, 59, 999_999, UTC)),
    ("1990-12-31t23:59:60.25z", datetime(1990, 12, 31, 23, 59, 59, 999_999, UTC)),
    ("2017-01-01 00:59:60+01:00", datetime(2016, 12, 31, 23, 59, 59, 999_999, UTC)),
]


@pytest.mark.parametrize(("written", "moment"), LEAP_SECONDS)
def test_a_leap_second_is_the_end_of_its_minute(written: str, moment: datetime) -> None:
    event = decode(timestamp=written, sent_at=written)
    assert (event.timestamp, event.sent_at) == (moment, moment)
    assert EventBatch().decode(b'{"events":[],"sent_at":"%b"}' % written.encode()).sent_at == moment


@pytest.mark.parametrize("field", ["timestamp", "sent_at"])
@pytest.mark.parametrize(
    "written", ["1990-12-31T23:59:61Z", "1990-12-31T23:60:60Z", "1990-13-31T23:59:60Z", "1990-12-31T23:59:60x", ":60"]
)
def test_a_time_that_only_looks_like_a_leap_second_is_rejected(field: str, written: str) -> None:
    assert list(blame(**{field: written})) == [field]


def test_fields_that_are_not_known_are_kept() -> None:
    event = decode(label="l", experiment={"arm": 2}, **{"": None, "Page": "x"})
    assert event.label == "l"
    assert isinstance(event, ExtendedEvent)
    assert {name: json.loads(bytes(raw)) for name, raw in event.extra.items()} == {
        "experiment": {"arm": 2},
        "": None,
        "Page": "x",
    }


@pytest.mark.parametrize("field", ["page", "event"])
@pytest.mark.parametrize(
    ("value", "reason"), [("", "must not be empty"), (None, "expected str, got null"), (5, "expected str, got int")]
)
def test_page_and_event_are_text_and_not_empty(field: str, value: object, reason: str) -> None:
    assert blame(**{field: value}) == {field: reason}


@pytest.mark.parametrize("field", ["page", "event"])
def test_page_and_event_are_required(field: str) -> None:
    event = {name: value for name, value in SMALLEST.items() if name != field}
    assert refusal(json.dumps(event).encode()).errors == (FieldError(field, "is required"),)


@pytest.mark.parametrize("field", ["log_id", "label", "target", "section"])
@pytest.mark.parametrize("value", [1, True, ["x"], {"x": 1}])
def test_a_text_field_takes_only_text(field: str, value: object) -> None:
    assert "expected str" in blame(**{field: value})[field]


@pytest.mark.parametrize("field", ["timestamp", "sent_at"])
@pytest.mark.parametrize("value", ["yesterday", "", True, [], {}, "2026-13-01T00:00:00Z"])
def test_a_time_field_takes_only_a_time(field: str, value: object) -> None:
    assert list(blame(**{field: value})) == [field]


def test_an_empty_log_id_is_refused() -> None:
    assert blame(log_id="") == {"log_id": "must not be empty"}


def test_every_faulty_field_is_named_at_once() -> None:
    body = json.dumps({"event": 5, "label": [], "log_id": "", "timestamp": "x", "deep": nested(40)}).encode()
    errors = refusal(body).errors
    assert [error.field for error in errors] == ["deep", "event", "label", "log_id", "page", "timestamp"]
    assert all(error.reason for error in errors)


@pytest.mark.parametrize("character", ["a", "é", "日", "😀"])
def test_a_log_id_is_measured_in_bytes(character: str) -> None:
    fits = LOG_ID_BYTES_MAX // len(character.encode())
    log_id = character * fits + "x" * (LOG_ID_BYTES_MAX - fits * len(character.encode()))
    assert decode(log_id=log_id).log_id == log_id
    assert blame(log_id=log_id + "x") == {"log_id": "must not be longer than 512 bytes"}


@pytest.mark.parametrize("field", ["param", "unknown"])
def test_a_value_nests_32_levels_at_most(field: str) -> None:
    decode(**{field: nested(PARAM_DEPTH_MAX)})
    assert blame(**{field: nested(PARAM_DEPTH_MAX + 1)}) == {field: "must not nest deeper than 32"}


def test_brackets_side_by_side_or_in_text_do_not_count_as_depth() -> None:
    decode(param=[[]] * 1_000, wide={str(number): {} for number in range(100)}, text='"[{\\' * 200)
    assert "param" in blame(param=['"[{\\' * 200, nested(PARAM_DEPTH_MAX)])


@pytest.mark.parametrize("levels", [1_000, 100_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("frame", [b'{"page":"a","event":"b","param":%b}', b'{"page":"a","event":"b","x":%b}', b"%b"])
def test_any_depth_is_refused_without_harm(frame: bytes, opening: bytes, closing: bytes, levels: int) -> None:
    refusal(frame % (opening * levels + b"1" + closing * levels))
    refusal(frame % (opening * levels))


@pytest.mark.parametrize("text", [b"x" * 2_000_000, rb"\n" * 1_000_000], ids=["plain", "escaped"])
def test_a_long_text_beside_many_brackets_costs_neither_memory_nor_time(text: bytes) -> None:
    body = b'{"page":"a","event":"b","param":{"text":"%b","list":[%b[]]}}' % (text, b"[]," * 40)
    tracemalloc.start()
    began_at = time.perf_counter()
    try:
        take(body)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
        assert time.perf_counter() - began_at < 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"page":"a","event":"b"',
        b'{"page":"a","event":"b"}x',
        b'{"page":"a","event":"b"}{}',
        b'{"page":"a","event":"b",}',
        b'\xef\xbb\xbf{"page":"a","event":"b"}',
        b"page=a&event=b",
        b"{'page':'a','event':'b'}",
        b'{"page":"a\nb","event":"b"}',
        b'{"page":"a","event":"b","param":NaN}',
        b'{"page":"a","event":"b","param":01}',
        b'{"page":"a","event":"b","param":[1,]}',
        b'{"page":"a","event":"b","param":{1:2}}',
        b'{"page":"a","event":"b","param":{"x":"\n"}}',
        rb'{"page":"a","event":"b","param":{"x":"\q"}}',
        rb'{"page":"a","event":"b","param":{"x":"\u12"}}',
        b'{"page":"a","event":"b","x":{"y":tru}}',
        b'{"page":"a","event":"b","param":' + b"1" * 100 + b"x}",
    ],
)
def test_a_body_that_is_not_json_is_rejected_as_such(body: bytes) -> None:
    error = refusal(body)
    assert error.errors == ()
    assert error.detail.startswith("the body is not JSON: ")
    assert "jSON" not in error.detail


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true"])
def test_an_event_is_an_object(body: bytes) -> None:
    assert refusal(body).detail.startswith("an event is a JSON object: ")


def test_a_key_may_be_written_with_escapes() -> None:
    event = decode_event(rb'{"p\u0061ge":"/home","\u0065vent":"click"}')
    assert (event.page, event.event, type(event)) == ("/home", "click", Event)


def test_the_last_of_two_equal_fields_counts() -> None:
    body = b'{"page":"a","event":"b","label":"x","label":"y"%b}'
    assert decode_event(body % b"").label == decode_event(body % b',"unknown":1').label == "y"


def test_a_body_of_any_language_is_text() -> None:
    check_text("ascii, é, 日本, 😀, \u2028".encode())


@pytest.mark.parametrize(
    ("body", "place"),
    [(b"\xff", 0), (b'{"page":"\xc3"}', 9), (b"ab\xed\xa0\x80", 2), (b"\xc0\xaf", 0), (b"abc\xf4\x90\x80\x80", 3)],
)
def test_the_first_byte_that_is_not_utf_8_is_named_by_its_position(body: bytes, place: int) -> None:
    with pytest.raises(Rejection, match=f"not UTF-8 .byte {place}.") as raised:
        check_text(body)
    assert raised.value.status == 400
