"""From a log record of OpenTelemetry to an event: the place of each attribute, and the rules for missing ones.

Records come here as plain JSON values under OTLP's JSON names, whichever encoding they were sent in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.event import TOO_DEEP, invalid_event
from forebay.intake.formats.format import ForeignEvent
from forebay.intake.formats.json_split import is_too_deep
from forebay.model import NO_PARAM, ExtendedEvent

Fields: TypeAlias = dict[str, Any]
"""The fields of a message, as values of JSON; those that are not set are missing. Bytes become base64."""

Records: TypeAlias = Sequence[bytes | Raw]
"""The records of a scope, which are not decoded yet."""

Part = TypeVar("Part")
"""A resource or a scope with the fields beside it, not decoded yet, as its encoding has it."""

RESOURCE, SCOPE = "resource", "scope"
"""The names of the parts, among the fields beside them and in a document."""

LOG_ID = "log.record.uid"
EVENT = ("event.name",)
PAGE = ("url.path", "http.route", "service.name")
USER_ID = ("enduser.id", "user.id")
SENDER = {
    "device.id": "device_uuid",
    "service.version": "app_version",
    "os.version": "os_version",
    "user_agent.original": "user_agent",
}
"""The attributes with a place in the document. The first that is a text counts, in the record and then in its resource.
All of them stay among the attributes, too."""

EVENT_UNKNOWN = "log"
PAGE_UNKNOWN = "unknown_service"
"""The word of OpenTelemetry's own for a service without a name."""

PARTS_MAX = 10_000
"""Most resources of a request, and most scopes: without records in them they are no events, and cost time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


class Shared(Struct, gc=False):
    """What the records of a resource share: its own fields, and the values of a record that has none.

    Attributes:
        extra: resource and scope, encoded once for all records.
        sender: by the names of an event's sender.
        copied_bytes: the size of all this as JSON, names too: each record gets a copy of it.
    """

    extra: Mapping[str, Raw]
    event: str
    page: str
    user_id: str
    sender: Mapping[str, str]
    copied_bytes: int


class ScopeLogs(NamedTuple):
    """The records of one scope; if resource or scope are not valid, none of them is."""

    shared: Shared | Rejection
    records: Records


def share_beside(others: Fields) -> Shared:
    """Return the fields beside the resources, which all records of a request share.

    Raises:
        Rejection: 400, a field is too deep.
    """
    extra = _encode_each(others)
    return Shared(extra, EVENT_UNKNOWN, PAGE_UNKNOWN, "", {}, len(_encode(extra)))


def share_scopes(
    beside: Shared,
    resources: Iterable[tuple[Part, Iterable[tuple[Part, Records]]]],
    read: Callable[[str, Part], Fields],
) -> Iterator[ScopeLogs]:
    """Yield the scopes that have records, with all that these share; `read` returns the fields of a part, by its name.

    A part is read once, and one without records never: nobody gets a copy of it, so no limit would see the work.
    """
    for resource_logs, scopes in resources:
        filled = [(scope_logs, records) for scope_logs, records in scopes if records]
        if filled:
            shared = _share(beside, RESOURCE, read, resource_logs)
            for scope_logs, records in filled:
                yield ScopeLogs(_share(shared, SCOPE, read, scope_logs), records)


def _share(above: Shared | Rejection, name: str, read: Callable[[str, Part], Fields], part: Part) -> Shared | Rejection:
    """Return all that the records of a resource or a scope share; `above` is shared by everything around it, too."""
    if isinstance(above, Rejection):
        return above
    try:
        fields = read(name, part)
        if not fields:
            return above
        own = _encode_each({name: fields})
    except Rejection as error:
        return error.without_frames()
    copied_bytes = above.copied_bytes + len(_encode(own))
    shared = structs.replace(above, extra={**above.extra, **own}, copied_bytes=copied_bytes)
    return _with_texts(shared, fields) if name == RESOURCE else shared


def _with_texts(shared: Shared, resource: Fields) -> Shared:
    """Return shared fields with the values of a resource, which count for records without their own."""
    attributes = _by_name(resource.get("attributes", {}))
    event = _find_text(EVENT, attributes) or EVENT_UNKNOWN
    page = _find_text(PAGE, attributes) or PAGE_UNKNOWN
    texts = (event, page, _find_text(USER_ID, attributes), _find_sender(attributes))
    return Shared(shared.extra, *texts, copied_bytes=shared.copied_bytes + len(_encode(texts)))


def make_event(record: Fields, shared: Shared, log_id: str) -> ForeignEvent:
    """Return the event of a record, which is changed; `log_id` is for one that names none.

    Raises:
        Rejection: 400, a field is too deep.
    """
    attributes = record.pop("attributes", None)
    named = _by_name(attributes or {})
    label = record.pop("body") if isinstance(record.get("body"), str) else None
    event = record.pop("eventName") if isinstance(record.get("eventName"), str) else ""
    return ForeignEvent(
        ExtendedEvent(
            page=_find_text(PAGE, named) or shared.page,
            event=event or _find_text(EVENT, named) or shared.event,
            log_id=_find_text((LOG_ID,), named) or log_id,
            label=label,
            param=Raw(_encode(attributes)) if attributes else NO_PARAM,
            timestamp=_as_datetime(record.get("timeUnixNano")) or _as_datetime(record.get("observedTimeUnixNano")),
            extra={**shared.extra, **_encode_each(record)},
        ),
        _find_text(USER_ID, named) or shared.user_id,
        shared.sender if SENDER.keys().isdisjoint(named) else {**shared.sender, **_find_sender(named)},
    )


def check_parts(parts: int) -> None:
    """Check the number of the resources of a request, or of its scopes.

    Raises:
        Rejection: 413, there are too many.
    """
    if parts > PARTS_MAX:
        detail = f"a request has at most {PARTS_MAX} resources and {PARTS_MAX} scopes"
        raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def name_pairs(pairs: Sequence[tuple[str, Any]]) -> Any:
    """Return keys and values as an object; if a key is there twice, which OTLP forbids, as a list that keeps both."""
    named = dict(pairs)
    return named if len(named) == len(pairs) else [{"key": key, "value": value} for key, value in pairs]


def _by_name(attributes: Any) -> Mapping[str, Any]:
    return attributes if isinstance(attributes, dict) else {pair["key"]: pair["value"] for pair in attributes}


def _find_text(names: Sequence[str], attributes: Mapping[str, Any]) -> str:
    for name in names:
        value = attributes.get(name)
        if value and isinstance(value, str):
            return value
    return ""


def _find_sender(attributes: Mapping[str, Any]) -> Mapping[str, str]:
    return {field: text for name, field in SENDER.items() if (text := _find_text((name,), attributes))}


def _encode_each(fields: Fields) -> dict[str, Raw]:
    encoded = {}
    for name, value in fields.items():
        try:
            text = _encode(value)
        except RecursionError:
            raise invalid_event(FieldError(name, TOO_DEEP)) from None
        if is_too_deep(text):
            raise invalid_event(FieldError(name, TOO_DEEP))
        encoded[name] = Raw(text)
    return encoded


def _as_datetime(nanoseconds: Any) -> datetime | None:
    """Return a time to the microsecond; None if it is unknown, which is 0, or none that Python can count."""
    if not isinstance(nanoseconds, int | float) or nanoseconds <= 0:
        return None
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
