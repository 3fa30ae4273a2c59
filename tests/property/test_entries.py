"""A spliced entry is byte for byte the one that an encoder makes, in the index that the rule names."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import Rejection
from forebay.intake import month
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.format import Decoded
from forebay.intake.formats.lines import EventLines
from forebay.intake.formats.single import SingleEvent
from forebay.intake.senders import encode_sender
from forebay.model import Address, Entry, Event
from forebay.telemetry.counters import Counters

# A loaded machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
OLDEST = datetime(2025, 12, 1, tzinfo=UTC)
KNOWN = frozenset(Event.__struct_fields__)
HEX = frozenset("0123456789abcdefABCDEF")
CACHED_MAX = 3

Named: TypeAlias = tuple[str, *tuple[bytes | None, ...]]
"""A sender: the user, and the values of his headers."""

# Reference


def uuid7_ms(log_id: str) -> int | None:
    """Return the time in a UUIDv7 as RFC 9562 draws it, or None."""
    dashes = all(log_id[place : place + 1] == "-" for place in (8, 13, 18, 23))
    digits = log_id.replace("-", "")
    if len(log_id) != 36 or not dashes or len(digits) != 32 or not HEX.issuperset(digits):
        return None
    return int(digits[:12], 16) if digits[12] == "7" and digits[16] in "89abAB" else None


def find_index(log_id: str, happened_at: datetime | None, received_at: datetime) -> str:
    """Return the index: the time in the UUIDv7, else the timestamp, if it counts, else the time of receipt."""
    received_ms = (received_at - EPOCH) // MILLISECOND
    for time_ms in (uuid7_ms(log_id), None if happened_at is None else (happened_at - EPOCH) // MILLISECOND):
        if time_ms is not None and (OLDEST - EPOCH) // MILLISECOND <= time_ms <= received_ms + 86_400_000:
            return f"events_test_{EPOCH + timedelta(milliseconds=time_ms):%Y-%m}"
    return f"events_test_{received_at:%Y-%m}"


def read_time(value: Any) -> datetime:
    if isinstance(value, str | datetime):
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return EPOCH + timedelta(milliseconds=value)


def correct(happened_at: datetime, sent_at: Any, received_at: datetime) -> datetime:
    if sent_at is None:
        return happened_at
    error = received_at - read_time(sent_at)
    return happened_at + error if abs(error) <= timedelta(days=7) else happened_at


def as_text(value: bytes | None) -> str | None:
    if not value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def encode(text: bytes, log_id: str, sender: Named, received_at: datetime, batch_sent_at: Any) -> tuple[str, Entry]:
    """Return the index and the entry of an event, made by encoding the whole document."""
    sent = json.loads(text)
    raw = msgspec.json.decode(text, type=dict[str, Raw])
    happened_at = None if sent.get("timestamp") is None else read_time(sent["timestamp"])
    timestamp = received_at
    if happened_at is not None:
        sent_at = sent.get("sent_at") if batch_sent_at is None else batch_sent_at
        timestamp = correct(happened_at, sent_at, received_at)
    param = raw.get("param")
    if sent.get("param") is not None and not isinstance(sent["param"], dict):
        assert param is not None
        param = Raw(b'{"value":%b}' % bytes(param))
    user_id, *headers = sender
    info = EventInfo(
        page=sent["page"],
        event=sent["event"],
        label=sent.get("label"),
        target=sent.get("target"),
        section=sent.get("section"),
        param=UNSET if param is None or sent.get("param") is None else param,
        extra={name: value for name, value in raw.items() if name not in KNOWN} or UNSET,
    )
    document = Document(timestamp, received_at, log_id, user_id, info, *map(as_text, headers))
    index = find_index(log_id, happened_at, received_at)
    return index, encode_entry(Address(index, log_id), document)


# Events

text = st.text(st.characters(exclude_categories=["Cs"]))
not_empty = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
unknown = st.dictionaries(text.filter(lambda name: name not in KNOWN), values, max_size=3)
writers: st.SearchStrategy[Callable[[Any], str]] = st.builds(
    lambda ascii_only, indent, separators: (
        lambda value: json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
    ),
    st.booleans(),
    st.sampled_from([None, 0, 2, "\t", "\r\n", " \n"]),
    st.sampled_from([None, (",", ":"), (" ,\n", "\r\n:\t"), (", ", "\r:  ")]),
)
spaces = st.sampled_from([b"", b" ", b"\n", b"\r\n\t "])

# Few and close to the borders of days and months, so that events share the beginnings of their UUIDs.
borders = st.sampled_from(
    [
        OLDEST,
        datetime(2025, 12, 31, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 15, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(2026, 2, 2, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
        # The first digits of a UUIDv7 change here, in the middle of a day.
        EPOCH + timedelta(milliseconds=(0x019C << 32) | (1 << 24)),
    ]
)
moments = st.builds(
    lambda border, offset_ms: border + timedelta(milliseconds=offset_ms),
    borders,
    st.sampled_from([-65_536, -1_000, -1, 0, 1, 1_000, 65_535, 65_536]) | st.integers(-200_000, 200_000),
)
receipts = st.builds(lambda moment, micros: moment + timedelta(microseconds=micros), moments, st.integers(0, 999))


def write_uuid7(moment: datetime, tail: int, variant: str) -> str:
    digits = f"{(moment - EPOCH) // MILLISECOND:012x}7{tail % 4096:03x}{variant}{tail:015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def swap_some(log_id: str, places: int) -> str:
    return "".join(sign.upper() if places >> place & 1 else sign for place, sign in enumerate(log_id))


uuid7s = st.builds(write_uuid7, moments, st.integers(0, 2**60 - 1), st.sampled_from("89ab"))
mixed = st.builds(swap_some, uuid7s, st.integers(0, 2**36 - 1))
not_uuid7s = st.builds(
    lambda log_id, place, sign: log_id[:place] + sign + log_id[place + 1 :],
    mixed,
    st.sampled_from([0, 7, 8, 9, 12, 13, 14, 18, 19, 23, 35]),
    st.sampled_from(["", "4", "c", "g", "-", "\n", "\uff11", "--", "+", "_", " ", "7"]),
)
beginnings = st.builds(lambda log_id, length, rest: log_id[:length] + rest, mixed, st.integers(7, 20), text)
log_ids = (uuid7s | mixed | not_uuid7s | beginnings | not_empty).filter(lambda log_id: 0 < len(log_id.encode()) <= 512)

zones = st.sampled_from([UTC, None, timezone(timedelta(hours=9)), timezone(-timedelta(hours=11, minutes=30))])
times = (
    st.none()
    | moments.map(lambda moment: (moment - EPOCH) // MILLISECOND)
    | st.integers(-(10**13), 10**14)
    | st.floats(-1e13, 1e14)
    | st.builds(
        lambda moment, zone: (moment.replace(tzinfo=None) if zone is None else moment.astimezone(zone)).isoformat(),
        receipts,
        zones,
    )
)
events = st.fixed_dictionaries(
    {"page": not_empty, "event": not_empty},
    optional={
        "log_id": log_ids | st.none(),
        "label": text | st.none(),
        "target": text | st.none(),
        "section": text | st.none(),
        "param": values,
        "timestamp": times,
        "sent_at": times,
    },
)
headers = (
    st.none() | st.binary(max_size=20) | text.map(str.encode) | st.sampled_from([b"", b"\xe9", "é".encode(), b'"\\'])
)
senders: st.SearchStrategy[Named] = st.tuples(not_empty, headers, headers, headers, headers)


class Sent(NamedTuple):
    """One request: the events as they are written, and what comes with them."""

    texts: list[bytes]
    sender: Named
    received_at: datetime
    sent_at: Any = None


texts = st.builds(
    lambda event, extra, write, before, behind, first: (
        before + write(extra | event if first else event | extra).encode() + behind
    ),
    events,
    unknown | st.just({}),
    writers,
    spaces,
    spaces,
    st.booleans(),
)
requests = st.builds(Sent, st.lists(texts, min_size=1, max_size=4), senders, receipts, times)


def check(maker: DocumentMaker, decoded: Decoded, sent: Sent) -> None:
    """Check the entries of a request against the reference."""
    parts, results = maker.make(decoded.events, encode_sender(*sent.sender), sent.received_at, decoded.sent_at)
    wanted: dict[str, list[Entry]] = {}
    for body, result in zip(sent.texts, results, strict=True):
        assert not isinstance(result, Rejection), result.errors
        log_id = json.loads(result)
        named = json.loads(body).get("log_id")
        if named is None:
            assert uuid7_ms(log_id) == (sent.received_at - EPOCH) // MILLISECOND
        else:
            assert log_id == named
        index, entry = encode(body, log_id, sent.sender, sent.received_at, decoded.sent_at)
        assert result == msgspec.json.encode(log_id)
        wanted.setdefault(index, []).append(entry)
    assert {part.index: part.entries for part in parts} == wanted
    assert [part.entry_bytes for part in parts] == [sum(map(len, part.entries)) for part in parts]


def make_maker() -> DocumentMaker:
    return DocumentMaker("test", OLDEST, Counters(), require_log_id=False)


@unhurried
@given(requests)
def test_a_spliced_entry_is_the_one_that_an_encoder_makes(sent: Sent) -> None:
    for body in sent.texts:
        check(make_maker(), SingleEvent().decode(body), sent._replace(texts=[body]))
    array = b",".join(sent.texts)
    check(make_maker(), EventBatch().decode(b"[%b]" % array), sent)
    sent_at = json.dumps(sent.sent_at).encode()
    check(make_maker(), EventBatch().decode(b'{"sent_at":%b,"events":[%b]}' % (sent_at, array)), sent)
    check(make_maker(), EventBatch().decode(rb'{"a":"\ud83d","sent_at":%b,"events":[%b]}' % (sent_at, array)), sent)
    lines = [msgspec.json.format(body, indent=-1) for body in sent.texts]
    check(make_maker(), EventLines().decode(b"\r\n".join(lines)), sent._replace(texts=lines))


@unhurried
@given(st.lists(requests, min_size=2, max_size=12), st.lists(senders, min_size=1, max_size=6))
def test_what_a_maker_remembers_changes_no_entry(sent: list[Sent], regulars: list[Named]) -> None:
    maker = make_maker()
    with patch.object(month, "PREFIXES_MAX", CACHED_MAX):
        for number, request in enumerate(sent):
            # The clock goes forward and back over midnight, and senders come again.
            request = request._replace(sender=regulars[number % len(regulars)])  # noqa: PLW2901 - the same one
            check(maker, EventBatch().decode(b"[%b]" % b",".join(request.texts)), request)


closely = st.sampled_from([datetime(2026, 1, 31, 23, 58, tzinfo=UTC), datetime(2026, 1, 15, 12, tzinfo=UTC)])


@unhurried
@given(closely, st.lists(st.tuples(st.integers(0, 240_000), st.integers(-150_000, 150_000), log_ids), max_size=60))
def test_ids_of_one_hour_are_in_the_month_that_the_rule_names(
    began_at: datetime, sent: list[tuple[int, int, str]]
) -> None:
    maker = make_maker()
    received_at = began_at
    for number, (later_ms, offset_ms, other) in enumerate(sent):
        received_at = began_at + timedelta(milliseconds=later_ms)
        moment = received_at + timedelta(milliseconds=offset_ms)
        alike = write_uuid7(moment, number, "8")
        for log_id in (alike, alike.upper(), alike[:8] + "-not-a-uuid", alike[:14] + "4" + alike[15:], other):
            body = json.dumps({"page": "a", "event": "b", "log_id": log_id}).encode()
            check(maker, SingleEvent().decode(body), Sent([body], ("alice", None, None, None, None), received_at))
