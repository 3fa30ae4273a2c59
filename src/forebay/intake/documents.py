"""From an event to its entry: the document, its `_id` and its index, made once (invariant 3). Pure but for new ids.

The month of the index comes from a time that a client repeats unchanged when it sends an event again, so that both go
to one index and become one document: the time inside a UUIDv7 `log_id` (RFC 9562, section 5.7), else the event's
`timestamp`. Either counts only from a fixed month on, however late the event comes, and up to a day ahead of our own
clock, so that nobody can create indices at will. If neither counts, it is the time of receipt.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from msgspec import UNSET, Raw, UnsetType

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.native import Decoded
from forebay.model import Address, Document, Entry, Event, EventInfo, Instant, Sender, encode_entry
from forebay.telemetry.counters import Counters

DAY_MS = 86_400_000

CLOCK_ERROR_MAX = timedelta(days=7)
"""Largest error of a client's clock that is corrected. A `sent_at` that is further away is in seconds, or is the time
at which the event was stored to be sent later. It would only spoil a good timestamp."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


class DocumentMaker:
    """Makes entries for one environment; a time before `oldest` does not decide the index."""

    def __init__(self, environment: str, oldest: datetime, counters: Counters, *, require_log_id: bool) -> None:
        self._environment = environment
        self._oldest_ms = (oldest - _EPOCH) // _MILLISECOND
        self._counters = counters
        self._require_log_id = require_log_id
        self._index_of_day: dict[int, str] = {}

    def make(
        self, decoded: Decoded, sender: Sender, received_at: datetime, sent_at: Instant | None
    ) -> tuple[str, Entry]:
        """Return an event's `log_id` and its entry; `sent_at` is the batch's, if it has one.

        Raises:
            Rejection: 400 if a required `log_id` is missing, or a time is not valid.
        """
        event = decoded.event
        received_at_ms = (received_at - _EPOCH) // _MILLISECOND
        log_id = event.log_id
        if log_id is None:
            if self._require_log_id:
                raise Rejection(
                    HTTPStatus.BAD_REQUEST, "the event is not valid", (FieldError("log_id", "is required"),)
                )
            log_id = new_log_id(received_at_ms)
        timestamp = received_at
        happened_at = None
        if event.timestamp is not None:
            happened_at = as_datetime(event.timestamp, "timestamp")
            timestamp = self._correct(happened_at, event.sent_at if sent_at is None else sent_at, received_at)
        document = Document(
            timestamp=timestamp,
            received_at=received_at,
            log_id=log_id,
            user_id=sender.user_id,
            event_info=_event_info(event, decoded.extra),
            device_uuid=sender.device_uuid,
            app_version=sender.app_version,
            os_version=sender.os_version,
            user_agent=sender.user_agent,
        )
        index = self._index(log_id, happened_at, received_at_ms)
        return log_id, encode_entry(Address(index, log_id), document)

    def _correct(self, happened_at: datetime, sent_at: Instant | None, received_at: datetime) -> datetime:
        """Correct a timestamp by the error of the client's clock, which `sent_at` shows."""
        if sent_at is None:
            return happened_at
        error = received_at - as_datetime(sent_at, "sent_at")
        try:
            if abs(error) <= CLOCK_ERROR_MAX:
                return happened_at + error
        except OverflowError:
            pass
        self._counters.uncorrected += 1
        return happened_at

    def _index(self, log_id: str, happened_at: datetime | None, received_at_ms: int) -> str:
        newest_ms = received_at_ms + DAY_MS
        time_ms = uuid7_time_ms(log_id)
        if time_ms is None or not self._oldest_ms <= time_ms <= newest_ms:
            time_ms = received_at_ms
            if happened_at is not None:
                happened_at_ms = (happened_at - _EPOCH) // _MILLISECOND
                if self._oldest_ms <= happened_at_ms <= newest_ms:
                    time_ms = happened_at_ms
        day = time_ms // DAY_MS
        index = self._index_of_day.get(day)
        if index is None:
            month = f"{_EPOCH + timedelta(days=day):%Y-%m}"
            index = self._index_of_day[day] = f"events_{self._environment}_{month}"
        return index


def new_log_id(now_ms: int) -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7)."""
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7_time_ms(log_id: str) -> int | None:
    """Return the time inside a UUIDv7, in milliseconds since 1970, or None if it is not a UUIDv7."""
    match = _UUID7.fullmatch(log_id) if len(log_id) == 36 else None  # noqa: PLR2004 - the length of any UUID
    return int(match[1] + match[2], 16) if match else None


def as_datetime(value: Instant, field: str) -> datetime:
    """Return a time in UTC, to the microsecond.

    Raises:
        Rejection: 400 if a number of milliseconds is too large or too small.
    """
    try:
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return _EPOCH + timedelta(milliseconds=value)
    except (OverflowError, ValueError):
        reason = "is not a time: RFC 3339, or milliseconds since 1970"
        raise Rejection(HTTPStatus.BAD_REQUEST, "the event is not valid", (FieldError(field, reason),)) from None


def _event_info(event: Event, extra: dict[str, Raw] | None) -> EventInfo:
    return EventInfo(
        page=event.page,
        event=event.event,
        label=event.label,
        target=event.target,
        section=event.section,
        param=_stored_param(event.param),
        extra=extra or UNSET,
    )


def _stored_param(param: Raw) -> Raw | UnsetType:
    text = bytes(param)
    if text in (b"", b"null"):
        return UNSET
    # `flat_object` takes objects only.
    return param if text.startswith(b"{") else Raw(b'{"value":%b}' % text)
