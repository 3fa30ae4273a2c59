"""Intake keeps every field of an event as it came, and no body breaks it."""

from __future__ import annotations

import json
import string
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from forebay.errors import Rejection
from forebay.intake.documents import DocumentMaker, new_log_id, uuid7_time_ms
from forebay.intake.formats.native import Batch, check_text, decode_batch, decode_event, decode_unchecked
from forebay.model import Entry, Event, Sender, entry_address, entry_document, split_entries
from forebay.telemetry.counters import Counters
from forebay.tokens import TokenVerifier

# A loaded machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ALICE = Sender("alice", None, None, None, None)
OLDEST = datetime(2024, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
KNOWN = frozenset(Event.__struct_fields__)

# A half of a surrogate pair is no Unicode text, and no JSON that could be exchanged (RFC 8259, section 8.2).
text = st.text(st.characters(exclude_categories=["Cs"]))
not_empty = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))
unknown = st.dictionaries(text.filter(lambda name: name not in KNOWN), values, max_size=4)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have none
log_ids = not_empty.filter(lambda log_id: len(log_id.encode()) <= 512)

# JSON as different clients write it: with and without escapes and white space, newlines among it.
writers: st.SearchStrategy[Callable[[Any], str]] = st.builds(
    lambda ascii_only, indent, separators: (
        lambda value: json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
    ),
    st.booleans(),
    st.sampled_from([None, 0, 2, "\t", "\r\n"]),
    st.sampled_from([None, (",", ":"), (" ,\n", "\r\n:\t")]),
)
events = st.fixed_dictionaries(
    {"page": not_empty, "event": not_empty},
    optional={
        "log_id": log_ids | st.none(),
        "label": text | st.none(),
        "target": text | st.none(),
        "section": text | st.none(),
        "param": values,
        "timestamp": st.integers(0, 4 * 10**12) | st.none(),
        "sent_at": st.integers(0, 4 * 10**12) | st.none(),
    },
)


def make(body: bytes, received_at: datetime = datetime(2026, 3, 15, tzinfo=UTC)) -> Entry:
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=False)
    return maker.make(decode_event(body), ALICE, received_at, None)[1]


def fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in KNOWN - {"param"}} | {"param": bytes(event.param)}


@unhurried
@given(events, unknown, writers)
def test_a_document_contains_the_event_as_sent(
    event: dict[str, Any], extra: dict[str, Any], write: Callable[[Any], str]
) -> None:
    entry = make(write(event | extra).encode())
    info = json.loads(entry_document(entry))["event_info"]
    for name in ("page", "event", "label", "target", "section"):
        assert info.get(name) == event.get(name)
    param = event.get("param")
    assert info.get("param") == (param if param is None or isinstance(param, dict) else {"value": param})
    assert info.get("extra", {}) == extra


@unhurried
@given(events, unknown, writers)
def test_an_entry_is_two_lines_whatever_is_in_it(
    event: dict[str, Any], extra: dict[str, Any], write: Callable[[Any], str]
) -> None:
    entry = make(write(event | extra).encode())
    action, document, rest = entry.split(b"\n")
    assert rest == b""
    assert split_entries(entry * 3) == [entry] * 3
    address = entry_address(entry)
    assert json.loads(action) == {"create": {"_index": address.index, "_id": address.log_id}}
    assert json.loads(document)["log_id"] == address.log_id
    if event.get("log_id") is not None:
        assert address.log_id == event["log_id"]


@unhurried
@given(
    st.integers() | st.decimals(allow_nan=False, allow_infinity=False).map(str).filter(lambda text: text[0] in "-123")
)
def test_a_number_keeps_every_digit_that_the_client_wrote(number: int | str) -> None:
    digits = str(number)
    try:
        json.loads(digits)
    except ValueError:
        assume(False)  # noqa: FBT003 - not every decimal is written as JSON writes numbers
    document = entry_document(make(b'{"page":"a","event":"b","param":{"n":\n%b}}' % digits.encode()))
    assert b'"n":%b}' % digits.encode() in document


@unhurried
@given(events, unknown.filter(bool), writers)
def test_a_field_that_is_not_known_changes_nothing_about_the_others(
    event: dict[str, Any], extra: dict[str, Any], write: Callable[[Any], str]
) -> None:
    alone, among = decode_event(write(event).encode()), decode_event(write(event | extra).encode())
    same, same_among = fields(alone.event), fields(among.event)
    # White space within `param` depends on its place.
    for both in (same, same_among):
        both["param"] = json.loads(both["param"] or "null")
    assert same == same_among
    assert alone.extra is None
    assert among.extra is not None
    assert {name: json.loads(bytes(raw)) for name, raw in among.extra.items()} == extra


@unhurried
@given(events.flatmap(lambda event: st.tuples(st.just(event), st.sampled_from(sorted(event)), scalars)))
def test_the_quick_decoding_and_the_one_field_by_field_refuse_the_same(
    case: tuple[dict[str, Any], str, Any],
) -> None:
    event, name, value = case
    changed = event | {name: value}
    quick, slow = (_try(changed), _try(changed | {"unknown": 1}))
    assert quick == slow


def _try(event: dict[str, Any]) -> object:
    try:
        return fields(decode_event(json.dumps(event).encode()).event)
    except Rejection as error:
        return error.errors


bodies = st.binary() | st.text(string.printable).map(str.encode)
damaged = st.builds(
    lambda event, place, length, patch: (
        (body := json.dumps(event).encode())[: place % len(body)] + patch + body[place % len(body) + length :]
    ),
    st.builds(lambda event, extra: event | extra, events, unknown),
    st.integers(0, 10_000),
    st.integers(0, 3),
    st.binary(max_size=2)
    | st.sampled_from([b'"', b"\\", b"\n", b"[", b"{", b"]", b"}", b",", b"\\u", rb"\ud83d", b"0"]),
)


@unhurried
@given(bodies | damaged)
def test_any_body_is_an_event_or_is_refused(body: bytes) -> None:
    refusals: list[Rejection] = []
    try:
        check_text(body)
        _, document = make(body).removesuffix(b"\n").split(b"\n")
        assert json.loads(document)["event_info"]["page"]
    except Rejection as error:
        refusals.append(error)
    assert all(error.status == 400 and error.detail for error in refusals)


@unhurried
@given(bodies | damaged | damaged.map(lambda body: b"[%b,%b]" % (body, body)))
def test_any_body_is_a_batch_or_is_refused(body: bytes) -> None:
    refusals: list[Rejection] = []
    batch = Batch([], None)
    try:
        batch = decode_batch(body)
    except Rejection as error:
        refusals.append(error)
    for raw in batch.events:
        try:
            (decode_event if batch.is_checked else decode_unchecked)(raw)
            json.loads(bytes(raw))
        except Rejection as error:
            refusals.append(error)
    assert all(error.status == 400 and error.detail for error in refusals)


@unhurried
@given(st.none() | st.binary() | st.binary().map(lambda token: b"Bearer " + token))
def test_any_authorization_that_is_not_signed_is_refused(authorization: bytes | None) -> None:
    with pytest.raises(Rejection) as raised:
        TokenVerifier("a secret that is long enough for HS256").verify(authorization)
    assert raised.value.status == 401
    assert raised.value.headers[0][0] == "WWW-Authenticate"


@unhurried
@given(moments, *[st.integers(-DAY_MS, 2 * DAY_MS) | st.integers(-DAY_MS, 36_500 * DAY_MS)] * 2)
def test_an_event_sent_again_whenever_it_is_leads_to_the_same_index_and_id(
    happened_at: datetime, first_ms: int, again_ms: int
) -> None:
    happened_at_ms = (happened_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    for names in ({"log_id": new_log_id(happened_at_ms)}, {"log_id": "my-1", "timestamp": happened_at_ms}):
        body = json.dumps({"page": "a", "event": "b"} | names).encode()
        # To the millisecond: a limit that lies within one is nobody's.
        sent_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=happened_at_ms)
        first = entry_address(make(body, sent_at + timedelta(milliseconds=first_ms)))
        again = entry_address(make(body, sent_at + timedelta(milliseconds=again_ms)))
        assert first == again
        assert first.index == f"events_test_{happened_at:%Y-%m}"


@unhurried
@given(st.integers(0, 2**48 - 1))
def test_a_new_log_id_gives_back_its_time(time_ms: int) -> None:
    log_id = new_log_id(time_ms)
    assert uuid7_time_ms(log_id) == time_ms
    assert str(uuid.UUID(log_id)) == log_id
