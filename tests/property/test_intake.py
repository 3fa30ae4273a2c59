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
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.event import decode_event
from forebay.intake.formats.format import Decoded
from forebay.intake.formats.lines import EventLines
from forebay.intake.formats.single import SingleEvent
from forebay.intake.month import new_log_id, uuid7_time_ms
from forebay.intake.senders import encode_sender
from forebay.model import Entry, Event, ExtendedEvent, entry_address, entry_document, split_entries
from forebay.telemetry.counters import Counters
from forebay.tokens.provider import make_own_provider
from forebay.tokens.verifier import TokenVerifier

# A loaded machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ALICE = encode_sender("alice")
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
    (result,), entries = make_all(SingleEvent().decode(body), received_at)
    if isinstance(result, Rejection):
        raise result
    ((entry,),) = entries.values()
    return entry


def make_all(
    decoded: Decoded, received_at: datetime = datetime(2026, 3, 15, tzinfo=UTC)
) -> tuple[list[bytes | Rejection], dict[str, list[Entry]]]:
    """Return the result of each event, and the entries by their index."""
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=False)
    parts, results = maker.make(decoded.events, ALICE, received_at, decoded.sent_at)
    assert all(part.entries and part.entry_bytes == sum(map(len, part.entries)) for part in parts)
    assert len(list(decoded.places)) == len(results)
    return results, {part.index: part.entries for part in parts}


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
    same, same_among = fields(alone), fields(among)
    # White space within `param` depends on its place.
    for both in (same, same_among):
        both["param"] = json.loads(both["param"] or "null")
    assert same == same_among
    assert type(alone) is Event
    assert isinstance(among, ExtendedEvent)
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
        return fields(decode_event(json.dumps(event).encode()))
    except Rejection as error:
        return error.errors


GOOD = b'{"page":"/home","event":"click"}'
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
        _, document = make(body).removesuffix(b"\n").split(b"\n")
        assert json.loads(document)["event_info"]["page"]
    except Rejection as error:
        refusals.append(error)
    assert all(error.status == 400 and error.detail for error in refusals)


@unhurried
@given(bodies | damaged | damaged.map(lambda body: b"[%b,%b]" % (body, body)))
def test_any_body_is_a_batch_or_is_refused(body: bytes) -> None:
    refusals: list[Rejection] = []
    results: list[bytes | Rejection] = []
    try:
        results, entries = make_all(EventBatch().decode(body))
        assert len(results) == sum(map(len, entries.values())) + sum(isinstance(row, Rejection) for row in results)
    except Rejection as error:
        refusals.append(error)
    refusals += [result for result in results if isinstance(result, Rejection)]
    assert all(error.status == 400 and error.detail for error in refusals)


@unhurried
@given(st.lists(bodies | damaged | st.just(GOOD), max_size=5), st.sampled_from([b"\n", b"\r\n", b" \n\n"]))
def test_any_bytes_as_lines_are_events_or_are_refused_and_cost_no_other_line(parts: list[bytes], end: bytes) -> None:
    lines = end.join(parts).split(b"\n")
    decoded = EventLines().decode(end.join(parts))
    results, _ = make_all(decoded)
    assert list(decoded.places) == [number for number, line in enumerate(lines, 1) if line.strip(b" \t\r")]
    assert all(result.status == 400 and result.detail for result in results if isinstance(result, Rejection))
    for place, result in zip(decoded.places, results, strict=True):
        # As if it had come alone.
        alone = result_of(lines[place - 1])
        assert isinstance(result, Rejection) == isinstance(alone, Rejection)
        if lines[place - 1].strip() == GOOD:
            assert isinstance(result, bytes)


def result_of(body: bytes) -> bytes | Rejection:
    """Return the result of an event that comes alone."""
    try:
        (result,), _ = make_all(SingleEvent().decode(body))
    except Rejection as error:
        return error
    return result


named = st.builds(lambda event, log_id: event | {"log_id": log_id}, events, log_ids)
faulty: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"page": "a", "log_id": "x"},
        {"page": "", "event": 5, "log_id": "x"},
        {"page": "a", "event": "b", "log_id": "x" * 513},
        {"page": "a", "event": "b", "log_id": "x", "timestamp": 1e300},
        {"page": "a", "event": "b", "log_id": "x", "param": json.loads("[" * 40 + "]" * 40)},
        {"page": "a", "event": "b", "log_id": "x", "unknown": json.loads("[" * 40 + "]" * 40)},
        {"page": "a", "event": "b", "log_id": "x", "timestamp": "2026-12-31T23:59:60Z"},
        [],
        5,
        None,
    ]
)


@unhurried
@given(st.lists(st.builds(lambda event, extra: event | extra, named, unknown) | named | faulty, max_size=6))
def test_however_events_come_they_become_the_same_entries_and_refusals(sent: list[Any]) -> None:
    texts = [json.dumps(event).encode() for event in sent]
    array = make_all(EventBatch().decode(b"[%b]" % b",".join(texts)))
    wrapped = make_all(EventBatch().decode(b'{"context":1,"events":[%b]}' % b",".join(texts)))
    lines = make_all(EventLines().decode(b"\n".join(texts)))
    # What is not JSON in another field makes the batch be split.
    split = make_all(EventBatch().decode(rb'{"context":"\ud83d","events":[%b]}' % b",".join(texts)))
    alone = [result_of(text) for text in texts]
    assert array[1] == wrapped[1] == lines[1] == split[1]
    single: dict[str, list[Entry]] = {}
    for text, result in zip(texts, alone, strict=True):
        if isinstance(result, bytes):
            for index, entries in make_all(SingleEvent().decode(text))[1].items():
                single.setdefault(index, []).extend(entries)
    assert array[1] == single
    for results in (array[0], wrapped[0], lines[0], split[0]):
        assert [explain(result) for result in results] == [explain(result) for result in alone]


def explain(result: bytes | Rejection) -> object:
    return (result.status, result.detail, result.errors) if isinstance(result, Rejection) else result


@unhurried
@given(st.none() | st.binary() | st.binary().map(lambda token: b"Bearer " + token))
def test_any_authorization_that_is_not_signed_is_refused(authorization: bytes | None) -> None:
    with pytest.raises(Rejection) as raised:
        TokenVerifier(make_own_provider(["a secret that is long enough for HS256"])).verify(authorization)
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
