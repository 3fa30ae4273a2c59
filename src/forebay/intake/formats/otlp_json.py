"""Reads OTLP's JSON encoding of logs.

It is proto3's JSON, but for trace and span ids, which are hex. A value that is not as OTLP has it stays as it came, and
so do unknown fields; a record is refused only if its keys and values cannot be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.event import DECODING_ERRORS, invalid_event, not_json, reason_of
from forebay.intake.formats.format import TOKEN
from forebay.intake.formats.json_split import WHITE_SPACE, NotSplit, split_array, split_object
from forebay.intake.formats.otlp_mapping import (
    Fields,
    Records,
    ScopeLogs,
    Shared,
    check_parts,
    name_pairs,
    share_beside,
    share_scopes,
)

Texts: TypeAlias = Mapping[str, bytes | Raw]
ReadObject: TypeAlias = Callable[[bytes | Raw], dict[str, Any] | None]
ReadArray: TypeAlias = Callable[[bytes | Raw], Sequence[bytes | Raw] | None]

NULL = b"null"

INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1

_AS_THEY_ARE = frozenset({"stringValue", "boolValue", "doubleValue"})
_LIST = frozenset({"values"})
_PAIR = frozenset({"key", "value"})
_TIMES = ("timeUnixNano", "observedTimeUnixNano")
_IDS = ("traceId", "spanId")

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Raw] | None).decode
_decode_array = msgspec.json.Decoder(list[Raw] | None).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any] | None).decode
_decode_record = msgspec.json.Decoder(dict[str, Any]).decode
_decode_value = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode
_INTEGER = re.compile(r"-?[0-9]{1,20}")


class _Envelope(NamedTuple):
    """A request whose resources, scopes and records are not decoded yet.

    Attributes:
        others: the fields beside the resources.
        resources: the fields of each, with its scopes: the fields of each, with its records.
    """

    others: Texts
    resources: Sequence[tuple[Texts, Sequence[tuple[Texts, Records]]]]


def read_logs(body: bytes) -> tuple[int, Iterator[ScopeLogs]]:
    """Return the number of the records of a request, and its scopes, read once.

    Raises:
        Rejection: 400, it is none, or a field beside its resources is not valid; 413, it has too many parts.
    """
    try:
        envelope = _read_envelope(body, _decode_object, _decode_array)
    except msgspec.ValidationError as error:
        detail = f"the body is no ExportLogsServiceRequest: {reason_of(error)}"
        raise Rejection(HTTPStatus.BAD_REQUEST, detail) from None
    except DECODING_ERRORS as error:
        try:
            # JavaScript writes `"\ud83d"` if a limit cuts an emoji in two. That must not cost other records.
            envelope = _read_envelope(body, _split_object, _split_array)
        except (NotSplit, *DECODING_ERRORS):
            raise not_json(error, "body") from None
    records = sum(len(records) for _, scopes in envelope.resources for _, records in scopes)
    return records, share_scopes(_share_beside(envelope.others), envelope.resources, read_part)


def read_record(text: bytes | Raw) -> Fields:
    """Return the fields of a record.

    Raises:
        Rejection: 400, it is none.
        RecursionError: it is too deep.
    """
    try:
        fields = _decode_record(text)
        body = _read_value(fields.pop("body", None))
        fields = _read_fields(fields)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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


def _read_envelope(body: bytes, read_object: ReadObject, read_array: ReadArray) -> _Envelope:
    request = read_object(body) or {}
    resources = read_array(request.pop("resourceLogs", NULL)) or []
    # A token of a beacon is kept by no event.
    request.pop(TOKEN, None)
    check_parts(len(resources))
    read = []
    parts = 0
    for resource_logs in resources:
        resource = read_object(resource_logs) or {}
        scopes = read_array(resource.pop("scopeLogs", NULL)) or []
        parts += len(scopes)
        check_parts(parts)
        inner = []
        for scope_logs in scopes:
            scope = read_object(scope_logs) or {}
            inner.append((scope, read_array(scope.pop("logRecords", NULL)) or []))
        read.append((resource, inner))
    return _Envelope(request, read)


def _split_object(text: bytes | Raw) -> dict[str, bytes | Raw] | None:
    text = bytes(text)
    return None if text.strip(WHITE_SPACE) == NULL else {_decode_text(key): value for key, value in split_object(text)}


def _split_array(text: bytes | Raw) -> Sequence[bytes | Raw] | None:
    text = bytes(text)
    return None if text.strip(WHITE_SPACE) == NULL else split_array(text)


def _share_beside(others: Texts) -> Shared:
    try:
        return share_beside({name: _decode_value(value) for name, value in others.items()})
    except DECODING_ERRORS as error:
        raise not_json(error, "body") from None


def read_part(name: str, beside: Texts) -> Fields:
    """Return the fields of a resource or a scope, and those beside it.

    Raises:
        Rejection: 400, one of them is not valid.
    """
    try:
        fields = _decode_fields(beside.get(name, NULL)) or {}
        fields.update((other, _decode_value(text)) for other, text in beside.items() if other != name)
        return _read_fields(fields)
    except DECODING_ERRORS as error:
        raise invalid_event(FieldError(name, reason_of(error))) from None


def _read_fields(fields: Fields) -> Fields:
    """Return the fields that are set: those by default are the same as none in proto3. A token is left out."""
    fields.pop(TOKEN, None)
    if fields.get("attributes"):
        fields["attributes"] = _read_pairs("attributes", fields["attributes"])
    return {name: value for name, value in fields.items() if value}


def _read_value(value: Any) -> Any:
    """Return an `AnyValue`, which names its kind, as a JSON value."""
    if not isinstance(value, dict) or len(value) != 1:
        return None if value == {} else value
    ((kind, inner),) = value.items()
    if kind in _AS_THEY_ARE:
        return inner
    read = KINDS.get(kind)
    return value if read is None or (isinstance(inner, dict) and _has_others(inner, _LIST)) else read(inner)


def _read_pairs(name: str, pairs: Any) -> Any:
    if not isinstance(pairs, list):
        raise invalid_event(FieldError(name, "must be an array"))
    try:
        named = [(pair["key"], _read_value(pair.get("value"))) for pair in pairs]
        is_plain = not any(_has_others(pair, _PAIR) for pair in pairs)
    except (AttributeError, KeyError, TypeError):
        raise invalid_event(FieldError(name, "must be objects with key and value")) from None
    if not all(isinstance(key, str) for key, _ in named):
        raise invalid_event(FieldError(name, "must have texts as keys"))
    if is_plain:
        return name_pairs(named)
    return [{**pair, "value": value} for pair, (_, value) in zip(pairs, named, strict=True)]


def _has_others(message: dict[str, Any], known: frozenset[str]) -> bool:
    """Return whether fields are set that a message of OTLP does not have."""
    return not message.keys() <= known and any(message[name] for name in message.keys() - known)


def _read_list(kind: str, inner: Any) -> list[Any]:
    values = inner.get("values") if isinstance(inner, dict) else inner
    if values is not None and not isinstance(values, list):
        raise invalid_event(FieldError(kind, "must have an array of values"))
    return values or []


def _read_integer(value: Any) -> Any:
    """Return an integer of 64 bits, which may be written as a text."""
    if isinstance(value, str) and _INTEGER.fullmatch(value) and INT64_MIN <= int(value) <= UINT64_MAX:
        return int(value)
    return value


KINDS: dict[str, Callable[[Any], Any]] = {
    "arrayValue": lambda inner: [_read_value(item) for item in _read_list("arrayValue", inner)],
    # Its text is base64, which is no label and no name.
    "bytesValue": lambda inner: Raw(_encode(inner)),
    "intValue": _read_integer,
    "kvlistValue": lambda inner: _read_pairs("kvlistValue", _read_list("kvlistValue", inner)),
}
"""How a value becomes a JSON value, by its kind."""
