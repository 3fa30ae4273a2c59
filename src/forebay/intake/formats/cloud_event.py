"""One CloudEvent, 1.0 or 0.3: its members in JSON become an event, or a refusal that names every member at fault.

The place of each member is decided in `make_event` alone, for every mode of the HTTP binding; the table of it is in
docs/reference/formats/cloudevents.md. The specifications are github.com/cloudevents/spec, cloudevents/spec.md,
cloudevents/formats/json-format.md and cloudevents/extensions/authcontext.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.client_clock import as_datetime
from forebay.intake.formats.event import DECODING_ERRORS, TOO_DEEP, decode_instant, invalid_event, not_json, reason_of
from forebay.intake.formats.format import TOKEN, ForeignEvent
from forebay.intake.formats.json_split import is_too_deep
from forebay.model import LOG_ID_BYTES_MAX, NO_PARAM, ExtendedEvent, Text

VERSIONS = ("1.0", "0.3")

REQUIRED = ("id", "source", "specversion", "type")
CORE = (*REQUIRED, "datacontenttype", "dataschema", "subject", "time")
PLACED = frozenset({"id", "type", "subject", "time", "data", TOKEN})
"""Members that have a place of their own, and the token of a beacon, which has none."""

USER_TYPES = frozenset({"app_user", "user"})
"""The principals of the extension authcontext that are users; others are keys, services and the like."""

OCTETS = "application/octet-stream"
TEXT_CHARSETS = frozenset({"utf-8", "us-ascii"})

_NULL = Raw(b"null")
_NO_TEXT = Raw(b'""')
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1467][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
"""Made of time or at random, so unique by itself; one that is made of a name (RFC 9562, section 5.5) is not."""
_MEDIA_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+\s*(?:;.*)?", re.ASCII | re.DOTALL)
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\"]+)")

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(Text).decode
_decode_base64 = msgspec.json.Decoder(bytes).decode
_decode_raw = msgspec.json.Decoder(Raw).decode


def read_object(text: bytes | Raw, word: str) -> ForeignEvent:
    """Return the event of a JSON object whose text is UTF-8; `word` is the name of the text.

    Raises:
        Rejection: 400, as by `make_event`, or it is no JSON object.
    """
    try:
        members = _decode_members(text)
    except msgspec.ValidationError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"a CloudEvent is a JSON object: {reason_of(error)}") from None
    except DECODING_ERRORS as error:
        raise not_json(error, word) from None
    members = {name: value for name, value in members.items() if value != _NULL}  # the same as none (section 2.2)
    if members.get("data") == _NO_TEXT:
        del members["data"]
    errors: list[FieldError] = []
    encoded = members.pop("data_base64", None)
    if encoded is not None and "data" in members:
        errors.append(FieldError("data_base64", "must not stand beside data"))
    elif members.get("specversion") == Raw(b'"0.3"') and members.get("datacontentencoding") == Raw(b'"base64"'):
        encoded = members.pop("data", None)
    body = None
    if encoded is not None:
        try:
            body = _decode_base64(encoded)
        except DECODING_ERRORS as error:
            errors.append(FieldError("data_base64", reason_of(error)))
    # Nothing may be assumed about bytes without a type (section 3.1.2).
    return make_event(members, errors, body, OCTETS)


def make_event(
    members: dict[str, Raw], errors: list[FieldError], body: bytes | None, type_of_body: str
) -> ForeignEvent:
    """Return the event with these members: the one place where it is decided what goes where.

    `errors` are wrong members that were found before, `body` is the data if it came as bytes, and `type_of_body` the
    type that these have without a word about it.

    Raises:
        Rejection: 400 with every wrong member.
    """
    texts = _read_core(members, errors)
    timestamp = _read_time(members["time"], errors) if "time" in texts else None
    if body:
        try:
            name, data = _place_data(body, texts.get("datacontenttype", type_of_body))
            members[name] = data
        except DECODING_ERRORS as error:
            errors.append(FieldError("data", f"is not JSON: {reason_of(error)}"))
    user_id = _find_user(members)
    if user_id:
        del members["authid"]
    errors += [FieldError(name, TOO_DEEP) for name, value in members.items() if is_too_deep(bytes(value))]
    if errors:
        raise invalid_event(*errors)
    event = ExtendedEvent(
        page=texts.get("subject") or texts["source"],
        event=texts["type"],
        log_id=texts["id"],
        param=members.get("data", NO_PARAM),
        timestamp=timestamp,
        extra={name: value for name, value in members.items() if name not in PLACED},
    )
    return ForeignEvent(event, user_id, document_id=_name_document(texts["source"], texts["id"]))


def _read_core(members: Mapping[str, Raw], errors: list[FieldError]) -> dict[str, str]:
    """Return the core attributes as text, and add those that are wrong to the errors."""
    texts = {}
    for name in CORE:
        try:
            if name in members:
                texts[name] = _decode_text(members[name])
            elif name in REQUIRED:
                errors.append(FieldError(name, "is required"))
        except DECODING_ERRORS as error:
            errors.append(FieldError(name, reason_of(error)))
    if texts.get("specversion", VERSIONS[0]) not in VERSIONS:
        errors.append(FieldError("specversion", f"must be {' or '.join(VERSIONS)}"))
    if "datacontenttype" in texts and not _MEDIA_TYPE.fullmatch(texts["datacontenttype"]):
        errors.append(FieldError("datacontenttype", "is not a media type"))
    if len(texts.get("id", "").encode()) > LOG_ID_BYTES_MAX:
        errors.append(FieldError("id", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"))
    return texts


def _read_time(value: Raw, errors: list[FieldError]) -> datetime | None:
    try:
        time = decode_instant(value)
        return None if time is None else as_datetime(time, "time")
    except DECODING_ERRORS as error:
        errors.append(FieldError("time", reason_of(error)))
    except Rejection as error:
        errors += error.errors
    return None


def _place_data(data: bytes, content_type: str) -> tuple[str, Raw]:
    """Return the member that bytes are in JSON, and its value: JSON, text, or Base64 if they are neither.

    A receiver may find out the type of a body without one (RFC 9110, section 8.3); `content_type` is empty then.

    Raises:
        One of `DECODING_ERRORS`: it is JSON only by its type.
    """
    media_type, _, parameters = content_type.lower().partition(";")
    subtype = media_type.strip().partition("/")[2]
    if subtype == "json" or subtype.endswith("+json"):
        return "data", _decode_raw(data.decode())
    charset = _CHARSET.search(parameters)
    is_text = media_type.startswith("text/") or subtype == "xml" or subtype.endswith("+xml")
    in_base64 = "data_base64", Raw(_encode(data))
    if content_type and not (charset[1] in TEXT_CHARSETS if charset else is_text):
        return in_base64
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return in_base64
    if not content_type:
        with contextlib.suppress(*DECODING_ERRORS):
            return "data", _decode_raw(text)
    return "data", Raw(_encode(text))


def _find_user(members: Mapping[str, Raw]) -> str:
    """Return the user whom the extension authcontext names; empty if it names none."""
    try:
        if "authtype" in members and _decode_text(members["authtype"]) not in USER_TYPES:
            return ""
        return _decode_text(members["authid"]) if "authid" in members else ""
    except DECODING_ERRORS:
        return ""


def _name_document(source: str, event_id: str) -> str:
    """Return the `_id` of an event; empty if that is its id alone.

    An id is unique only within its source. Of the names made here no two are the same for different pairs: a readable
    one has its first space behind the source, and never begins like a digest.
    """
    if _UUID.fullmatch(event_id):
        return ""
    name = f"{source} {event_id}"
    if " " not in source and not source.startswith("sha256:") and len(name.encode()) <= LOG_ID_BYTES_MAX:
        return name
    return f"sha256:{hashlib.sha256(_encode([source, event_id])).hexdigest()}"
