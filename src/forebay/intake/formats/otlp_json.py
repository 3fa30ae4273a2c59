"""Reads OTLP's JSON encoding of logs.

It is proto3's JSON, but for trace and span ids, which are hex. A value that is not as OTLP has it stays as it came, and
so do unknown fields; a record is refused only if its keys and values cannot be told apart.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.event import DECODING_ERRORS, TOO_DEEP, invalid_event, not_json, reason_of
from forebay.intake.formats.format import TOKEN
from forebay.intake.formats.otlp_mapping import Fields, ScopeLogs, Shared, name_pairs, share, share_scope

NULL = Raw(b"null")

INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1

_AS_TEXT = frozenset({"stringValue", "boolValue", "doubleValue", "bytesValue"})
_TIMES = ("timeUnixNano", "observedTimeUnixNano")
_IDS = ("traceId", "spanId")

_decode_object = msgspec.json.Decoder(dict[str, Raw] | None).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]] | None).decode
_decode_array = msgspec.json.Decoder(list[Raw] | None).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any] | None).decode
_decode_value = msgspec.json.Decoder().decode
_INTEGER = re.compile(r"-?[0-9]{1,20}")


def read_logs(body: bytes) -> list[ScopeLogs]:
    """Return the records of a request.

    Raises:
        Rejection: 400, it is none.
    """
    try:
        request = _decode_object(body) or {}
        scopes = []
        resources = _decode_objects(request.pop("resourceLogs", NULL)) or ()
        request.pop(TOKEN, None)
        for resource_logs in resources:
            resource, scope_logs = resource_logs.pop("resource", NULL), resource_logs.pop("scopeLogs", NULL)
            shared = _share(request, resource, resource_logs)
            for rest in _decode_objects(scope_logs) or ():
                scope, records = rest.pop("scope", NULL), _decode_array(rest.pop("logRecords", NULL)) or ()
                scopes.append(ScopeLogs(_share_scope(shared, scope, rest), records))
    except msgspec.ValidationError as error:
        detail = f"the body is no ExportLogsServiceRequest: {reason_of(error)}"
        raise Rejection(HTTPStatus.BAD_REQUEST, detail) from None
    except DECODING_ERRORS as error:
        raise not_json(error, "body") from None
    return scopes


def read_record(text: bytes | Raw) -> Fields:
    """Return the fields of a record.

    Raises:
        Rejection: 400, it is none.
    """
    try:
        fields = _decode_fields(text) or {}
        body = _read_value(fields.pop("body", None))
        fields = _read_fields(fields)
    except RecursionError:
        raise invalid_event(FieldError("logRecords", TOO_DEEP)) from None
    except DECODING_ERRORS as error:
        raise invalid_event(FieldError("logRecords", reason_of(error))) from None
    for name in _TIMES:
        if name in fields:
            fields[name] = _read_integer(fields[name])
    for name in _IDS:
        if isinstance(fields.get(name), str):
            fields[name] = fields[name].lower()
    if body is not None:
        fields["body"] = body
    return fields


def _share(others: dict[str, Raw], resource: Raw, rest: dict[str, Raw]) -> Shared | Rejection:
    """Return what the records of a resource share; the fields beside it are kept as its own."""
    try:
        beside = {name: _decode_value(value) for name, value in others.items()}
        return share(beside, _read_message(resource, rest))
    except Rejection as error:
        return error.without_frames()
    except DECODING_ERRORS as error:
        return invalid_event(FieldError("resource", reason_of(error)))


def _share_scope(shared: Shared | Rejection, scope: Raw, rest: dict[str, Raw]) -> Shared | Rejection:
    """Return what the records of a scope share; the fields beside it are kept as its own."""
    if isinstance(shared, Rejection):
        return shared
    try:
        return share_scope(shared, _read_message(scope, rest))
    except Rejection as error:
        return error.without_frames()
    except DECODING_ERRORS as error:
        return invalid_event(FieldError("scope", reason_of(error)))


def _read_message(text: Raw, rest: dict[str, Raw]) -> Fields:
    fields = _decode_fields(text) or {}
    fields.update((name, _decode_value(value)) for name, value in rest.items())
    return _read_fields(fields)


def _read_fields(fields: Fields) -> Fields:
    """Return those fields that have another value than by default, which is the same as none in proto3."""
    if fields.get("attributes"):
        fields["attributes"] = _read_pairs("attributes", fields["attributes"])
    return {name: value for name, value in fields.items() if value}


def _read_value(value: Any) -> Any:
    """Return an `AnyValue`, which names its kind, as a JSON value."""
    if not isinstance(value, dict) or len(value) != 1:
        return value or None
    ((kind, inner),) = value.items()
    if kind in _AS_TEXT:
        return inner
    if kind == "intValue":
        return _read_integer(inner)
    if kind == "arrayValue":
        return [_read_value(item) for item in _read_list(kind, inner)]
    if kind == "kvlistValue":
        return _read_pairs(kind, _read_list(kind, inner))
    return value


def _read_pairs(name: str, pairs: Any) -> Any:
    if not isinstance(pairs, list):
        raise invalid_event(FieldError(name, "must be an array"))
    try:
        named = [(pair["key"], _read_value(pair.get("value"))) for pair in pairs]
    except (AttributeError, KeyError, TypeError):
        raise invalid_event(FieldError(name, "must be objects with key and value")) from None
    if not all(isinstance(key, str) for key, _ in named):
        raise invalid_event(FieldError(name, "must have texts as keys"))
    return name_pairs(named)


def _read_list(kind: str, inner: Any) -> list[Any]:
    values = inner.get("values", []) if isinstance(inner, dict) else inner
    if not isinstance(values, list):
        raise invalid_event(FieldError(kind, "must have an array of values"))
    return values


def _read_integer(value: Any) -> Any:
    """Return an integer of 64 bits, which may be written as a text."""
    if isinstance(value, str) and _INTEGER.fullmatch(value) and INT64_MIN <= int(value) <= UINT64_MAX:
        return int(value)
    return value
