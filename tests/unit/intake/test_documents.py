"""From an event to its entry: user, times, `_id` and index."""

from __future__ import annotations

import itertools
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forebay.errors import FieldError, Rejection
from forebay.intake.client_clock import CLOCK_ERROR_MAX, as_datetime
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.event import decode_event
from forebay.intake.month import new_log_id, uuid7_time_ms
from forebay.intake.senders import Sender, encode_sender
from forebay.model import Entry, Event, Instant, entry_address, entry_document
from forebay.telemetry.counters import Counters

NOW = datetime(2026, 3, 15, 12, 30, 0, 123_456, UTC)
OLDEST = datetime(2024, 1, 1, tzinfo=UTC)
NOBODY = encode_sender("alice")


def milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def uuid7(moment: datetime) -> str:
    return new_log_id(milliseconds(moment))


def make_one(
    maker: DocumentMaker, event: Event, sender: Sender, received_at: datetime, sent_at: Instant | None
) -> Entry:
    """Return the entry of an event, or raise its refusal."""
    parts, (result,) = maker.make([event], sender, received_at, sent_at)
    if isinstance(result, Rejection):
        assert parts == []
        raise result
    (part,) = parts
    (entry,) = part.entries
    assert part.entry_bytes == len(entry)
    address = entry_address(entry)
    assert (part.index, json.loads(result)) == (address.index, address.log_id)
    return entry


def make(received_at: datetime = NOW, sender: Sender = NOBODY, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    """Return the index, the `_id` and the document of an event."""
    decoded = decode_event(json.dumps({"page": "/home", "event": "click"} | fields).encode())
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=False)
    entry = make_one(maker, decoded, sender, received_at, None)
    address = entry_address(entry)
    document = json.loads(entry_document(entry))
    assert address.log_id == document["log_id"]
    return address.index, address.log_id, document


def stamp(**arguments: Any) -> datetime:
    """Return the `@timestamp` of an event."""
    return datetime.fromisoformat(make(**arguments)[2]["@timestamp"])


def test_a_document_of_the_smallest_event_has_no_empty_fields() -> None:
    assert make(log_id="a")[2] == {
        "@timestamp": "2026-03-15T12:30:00.123456Z",
        "received_at": "2026-03-15T12:30:00.123456Z",
        "log_id": "a",
        "user_id": "alice",
        "event_info": {"page": "/home", "event": "click"},
    }


def test_a_document_holds_everything_of_the_event_and_of_its_sender() -> None:
    document = make(
        sender=encode_sender("alice", b"3f0a", b"4.2.1", b"iOS 19", b"app/1"),
        log_id="a",
        label="l",
        target="t",
        section="s",
        param={"k": 1},
        experiment={"arm": 2},
    )[2]
    assert document["event_info"] == {
        "page": "/home",
        "event": "click",
        "label": "l",
        "target": "t",
        "section": "s",
        "param": {"k": 1},
        "extra": {"experiment": {"arm": 2}},
    }
    assert (document["device_uuid"], document["app_version"], document["os_version"], document["user_agent"]) == (
        "3f0a",
        "4.2.1",
        "iOS 19",
        "app/1",
    )


@pytest.mark.parametrize("param", [0, 1.5, "text", "", True, False, [], [1, {"a": 2}]])
def test_a_param_that_is_no_object_becomes_one(param: object) -> None:
    assert make(param=param)[2]["event_info"]["param"] == {"value": param}


@pytest.mark.parametrize("param", [{}, {"value": 1}, {"": {}}])
def test_a_param_that_is_an_object_stays_as_it_is(param: object) -> None:
    assert make(param=param)[2]["event_info"]["param"] == param


def test_a_param_of_null_is_none() -> None:
    assert "param" not in make(param=None)[2]["event_info"]


def test_an_event_without_log_id_is_given_a_uuid7_of_its_receipt() -> None:
    _, log_id, _ = make()
    assert uuid.UUID(log_id).version == 7
    assert uuid7_time_ms(log_id) == milliseconds(NOW)


def test_an_event_without_log_id_is_refused_if_one_is_required() -> None:
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=True)
    with pytest.raises(Rejection) as raised:
        make_one(maker, decode_event(b'{"page":"a","event":"b"}'), NOBODY, NOW, None)
    assert (raised.value.status, raised.value.errors) == (400, (FieldError("log_id", "is required"),))
    make_one(maker, decode_event(b'{"page":"a","event":"b","log_id":"c"}'), NOBODY, NOW, None)


def test_the_timestamp_is_the_clients_if_it_names_one() -> None:
    assert stamp(timestamp="2020-02-03T04:05:06.789+02:00") == datetime(2020, 2, 3, 2, 5, 6, 789_000, UTC)
    assert stamp(timestamp=1_580_695_506_789) == datetime(2020, 2, 3, 2, 5, 6, 789_000, UTC)
    assert stamp(timestamp=1_580_695_506_789.25) == datetime(2020, 2, 3, 2, 5, 6, 789_250, UTC)


def test_a_timestamp_without_a_zone_is_utc() -> None:
    assert stamp(timestamp="2020-02-03T04:05:06") == datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("wrong", [timedelta(days=6), CLOCK_ERROR_MAX, -timedelta(days=6.9), -timedelta(hours=3)])
def test_the_error_of_the_clients_clock_is_corrected(wrong: timedelta) -> None:
    happened_at = NOW - timedelta(minutes=5)
    own = milliseconds(happened_at + wrong)
    corrected = stamp(timestamp=own, sent_at=milliseconds(NOW + wrong))
    assert abs(corrected - happened_at) < timedelta(milliseconds=2)


def test_the_sent_at_of_the_event_counts_if_the_batch_has_none() -> None:
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=False)
    timestamp = milliseconds(NOW)
    times = {"timestamp": timestamp, "sent_at": timestamp + 60_000}
    for sent_at, minutes in ((None, 1), (timestamp + 120_000, 2)):
        decoded = decode_event(json.dumps({"page": "a", "event": "b"} | times).encode())
        entry = make_one(maker, decoded, NOBODY, NOW, sent_at)
        happened_at = datetime.fromisoformat(json.loads(entry_document(entry))["@timestamp"])
        assert timedelta(0) <= NOW - happened_at - timedelta(minutes=minutes) < MILLISECOND


@pytest.mark.parametrize(
    "sent_at",
    [
        pytest.param(milliseconds(NOW) // 1000, id="in seconds"),
        pytest.param(milliseconds(NOW - CLOCK_ERROR_MAX) - 1, id="long ago"),
        pytest.param(milliseconds(NOW + CLOCK_ERROR_MAX) + 1, id="in the future"),
        pytest.param("9999-12-31T23:59:59Z", id="never"),
    ],
)
def test_a_sent_at_too_far_from_our_clock_corrects_nothing_and_is_counted(sent_at: object) -> None:
    counters = Counters()
    maker = DocumentMaker("test", OLDEST, counters, require_log_id=False)
    for sent, uncorrected in ((sent_at, 1), (None, 1), (milliseconds(NOW), 1), (sent_at, 2)):
        fields = {"page": "a", "event": "b", "timestamp": "2026-03-15T10:00:00Z", "sent_at": sent}
        entry = make_one(maker, decode_event(json.dumps(fields).encode()), NOBODY, NOW, None)
        assert json.loads(entry_document(entry))["@timestamp"].startswith("2026-03-15T10:00:00")
        assert counters.uncorrected == uncorrected


def test_a_correction_beyond_the_calendar_is_not_made() -> None:
    assert stamp(timestamp="0001-01-01T00:00:00Z", sent_at="9999-12-31T23:59:59Z") == datetime(1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", [1e300, -1e300, 10**30, "0001-01-01T00:00:00+10:00", 253_402_300_800_000])
def test_a_time_beyond_the_calendar_is_refused(value: object) -> None:
    sent: list[dict[str, Any]] = [{"timestamp": value}, {"sent_at": value, "timestamp": 0}]
    for fields in sent:
        with pytest.raises(Rejection) as raised:
            make(**fields)
        assert [error.field for error in raised.value.errors] == [next(iter(fields))]


@pytest.mark.parametrize("value", [0, -1, 0.5, 253_402_300_799_999, datetime(1, 1, 1, tzinfo=UTC)])
def test_every_time_of_the_calendar_becomes_utc(value: Instant) -> None:
    assert as_datetime(value, "timestamp").tzinfo is UTC


def test_the_index_is_of_the_environment_and_the_month() -> None:
    assert make()[0] == "events_test_2026-03"


def test_the_index_is_of_the_month_in_the_log_id() -> None:
    assert make(log_id=uuid7(NOW - timedelta(days=20)))[0] == "events_test_2026-02"
    assert make(log_id=uuid7(NOW - timedelta(days=500)))[0] == "events_test_2024-10"
    assert make(log_id=uuid7(NOW - timedelta(days=20)), timestamp=milliseconds(NOW))[0] == "events_test_2026-02"


def test_the_index_is_of_the_month_of_the_timestamp_if_the_log_id_has_no_time() -> None:
    happened_at = milliseconds(NOW - timedelta(days=20))
    for log_id in ("my-1", str(uuid.UUID(int=5, version=4))):
        assert make(log_id=log_id, timestamp=happened_at)[0] == "events_test_2026-02"


def test_a_corrected_timestamp_does_not_move_the_event_to_another_index() -> None:
    happened_at = datetime(2026, 2, 28, 23, 59, tzinfo=UTC)
    fields: dict[str, Any] = {
        "log_id": "my-1",
        "timestamp": milliseconds(happened_at),
        "sent_at": milliseconds(happened_at),
    }
    assert make(**fields)[0] == "events_test_2026-02"


MILLISECOND = timedelta(milliseconds=1)
END_OF_MONTH = datetime(2026, 3, 31, 12, tzinfo=UTC)


def indices_of(moment: datetime, received_at: datetime) -> set[str]:
    """Return the indices of two events: one has this time in its `log_id`, one as its `timestamp`."""
    return {
        make(received_at=received_at, log_id=uuid7(moment))[0],
        make(received_at=received_at, log_id="my-1", timestamp=milliseconds(moment))[0],
    }


def test_every_month_counts_from_the_oldest_one_on_and_no_earlier_one() -> None:
    assert indices_of(OLDEST, NOW) == {"events_test_2024-01"}
    assert indices_of(OLDEST - MILLISECOND, NOW) == {"events_test_2026-03"}
    assert indices_of(datetime(1970, 1, 1, tzinfo=UTC), NOW) == {"events_test_2026-03"}


def test_a_time_counts_up_to_a_day_ahead_of_our_clock() -> None:
    tomorrow = END_OF_MONTH + timedelta(days=1)
    assert indices_of(tomorrow, END_OF_MONTH) == {"events_test_2026-04"}
    assert indices_of(tomorrow + MILLISECOND, END_OF_MONTH) == {"events_test_2026-03"}
    assert indices_of(NOW + timedelta(days=10_000), NOW) == {"events_test_2026-03"}


@pytest.mark.parametrize("out_of_reach", [OLDEST - MILLISECOND, NOW + timedelta(days=1, seconds=1)])
def test_if_the_time_of_the_log_id_does_not_count_the_timestamp_decides_the_month(out_of_reach: datetime) -> None:
    happened_at = milliseconds(NOW - timedelta(days=400))
    assert make(log_id=uuid7(out_of_reach), timestamp=happened_at)[0] == "events_test_2025-02"


@pytest.mark.parametrize("days", [31, 62, 365, 800])
@pytest.mark.parametrize("seconds", [-2, 2])
def test_an_event_that_comes_late_and_again_four_seconds_later_is_one_document(days: int, seconds: int) -> None:
    happened_at = NOW - timedelta(days=days, seconds=seconds)
    sent: list[dict[str, Any]] = [
        {"log_id": uuid7(happened_at)},
        {"log_id": "my-1", "timestamp": milliseconds(happened_at)},
    ]
    for fields in sent:
        found = {make(received_at=NOW + timedelta(seconds=later), **fields)[:2] for later in (0, 4)}
        assert found == {(f"events_test_{happened_at:%Y-%m}", fields["log_id"])}


def test_a_server_whose_clock_jumps_leaves_an_event_in_its_month() -> None:
    happened_at = NOW - timedelta(hours=1)
    for jump in (timedelta(days=45), timedelta(days=-1), timedelta(days=4000)):
        assert indices_of(happened_at, NOW + jump) == {"events_test_2026-03"}


def test_sending_again_after_the_turn_of_the_month_leads_to_the_same_document() -> None:
    sent_at = datetime(2026, 1, 31, 23, 59, 59, 999_000, UTC)
    sent: list[dict[str, Any]] = [{"log_id": uuid7(sent_at)}, {"log_id": "my-1", "timestamp": milliseconds(sent_at)}]
    for fields in sent:
        later = [sent_at + timedelta(milliseconds=1), sent_at + timedelta(days=31)]
        assert {make(received_at=moment, **fields)[:2] for moment in later} == {
            ("events_test_2026-01", fields["log_id"])
        }


def test_new_log_ids_are_uuid7_and_differ() -> None:
    ids = {new_log_id(milliseconds(NOW)) for _ in range(1_000)}
    assert len(ids) == 1_000
    for log_id in ids:
        parsed = uuid.UUID(log_id)
        assert (str(parsed), parsed.version, parsed.variant) == (log_id, 7, uuid.RFC_4122)


def test_new_log_ids_are_in_the_order_of_their_time() -> None:
    ids = [new_log_id(time_ms) for time_ms in range(0, 10**13, 10**11 + 1)]
    assert all(first < second for first, second in itertools.pairwise(ids))


@pytest.mark.parametrize(
    "log_id",
    [
        "",
        "my-1",
        "01a20cea-e993-467e-9b6e-e60ffa0e7691",
        "01a20cea-e993-767e-cb6e-e60ffa0e7691",
        "01a20cea-e993-767e-9b6e-e60ffa0e769",
        "01a20cea-e993-767e-9b6e-e60ffa0e7691\n",
        "01a20ceae993767e9b6ee60ffa0e7691",
        "{01a20cea-e993-767e-9b6e-e60ffa0e76}",
        "g1a20cea-e993-767e-9b6e-e60ffa0e7691",
        "0１a20cea-e993-767e-9b6e-e60ffa0e769",
    ],
)
def test_only_a_uuid7_has_a_time(log_id: str) -> None:
    assert uuid7_time_ms(log_id) is None


def test_a_uuid7_has_its_time_in_either_case() -> None:
    for log_id in ("01a20cea-e993-767e-9b6e-e60ffa0e7691", "01A20CEA-E993-767E-9B6E-E60FFA0E7691"):
        assert uuid7_time_ms(log_id) == 0x01A2_0CEA_E993


@pytest.mark.parametrize(
    "received_at", [datetime(2026, 1, 31, 23, 59, 50, tzinfo=UTC), datetime(2026, 2, 1, 0, 0, 10, tzinfo=UTC)]
)
@pytest.mark.parametrize("seconds", [(-1, 1), (1, -1)])
def test_ids_with_the_same_first_digits_on_both_sides_of_a_month_are_told_apart(
    received_at: datetime, seconds: tuple[int, int]
) -> None:
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=False)
    border = datetime(2026, 2, 1, tzinfo=UTC)
    moments = [border + timedelta(seconds=second) for second in seconds]
    assert len({uuid7(moment)[:8] for moment in moments}) == 1
    for moment in moments:
        event = decode_event(json.dumps({"page": "a", "event": "b", "log_id": uuid7(moment)}).encode())
        entry = make_one(maker, event, NOBODY, received_at, None)
        assert entry_address(entry).index == f"events_test_{moment:%Y-%m}"


@pytest.mark.parametrize("times", [(None, None, None), ("2026-01-01T00:00:00Z", None, "2026-02-01T00:00:00Z")])
def test_a_log_id_that_a_request_has_twice_is_one_event_for_a_sink_that_does_not_know_ids(
    times: tuple[str | None, ...],
) -> None:
    maker = DocumentMaker("test", OLDEST, Counters(), require_log_id=False, drops_repeated=True)
    sent = [{"page": str(number), "event": "e", "log_id": "same", "timestamp": at} for number, at in enumerate(times)]
    sent += [{"page": "other", "event": "e", "log_id": "other"}, {"page": "of its own", "event": "e"}] * 2
    parts, results = maker.make([decode_event(json.dumps(event).encode()) for event in sent], NOBODY, NOW, None)
    assert [result for result in results if result == b'"same"'] == [b'"same"'] * 3
    entries = [entry for part in parts for entry in part.entries]
    assert all(part.entries and part.entry_bytes == sum(map(len, part.entries)) for part in parts)
    pages = sorted(json.loads(entry_document(entry))["event_info"]["page"] for entry in entries)
    assert pages == ["0", "of its own", "of its own", "other"]
