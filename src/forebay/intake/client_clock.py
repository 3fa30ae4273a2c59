"""The times that clients name, and the error of their clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from forebay.errors import FieldError
from forebay.intake.formats.event import invalid_event
from forebay.model import Instant

CLOCK_ERROR_MAX = timedelta(days=7)
"""Largest error of a client's clock that is corrected. A `sent_at` that is further away is in seconds, or is the time
at which the event was stored to be sent later. It would only spoil a good timestamp."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def correct(happened_at: datetime, sent_at: Instant | None, received_at: datetime) -> datetime | None:
    """Return a timestamp without the error of the client's clock, which `sent_at` shows; None if that is too large.

    Raises:
        Rejection: 400, `sent_at` is no time.
    """
    if sent_at is None:
        return happened_at
    error = received_at - as_datetime(sent_at, "sent_at")
    try:
        return happened_at + error if abs(error) <= CLOCK_ERROR_MAX else None
    except OverflowError:
        return None


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
        raise invalid_event(FieldError(field, "is not a time: RFC 3339, or milliseconds since 1970")) from None
