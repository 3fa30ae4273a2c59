"""Reads OTLP's protobuf encoding of logs, by OpenTelemetry's own messages.

Only the envelope is decoded at once: a record that cannot be decoded costs no other, and a small body with many empty
records takes little memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from msgspec import Raw
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.event import invalid_event
from forebay.intake.formats.otlp_mapping import (
    RESOURCE,
    SCOPE,
    Fields,
    ScopeLogs,
    check_parts,
    name_pairs,
    share_beside,
    share_scopes,
)

UNKNOWN_FIELDS = "unknownFields"
"""Fields of a newer version of OTLP, which have no names here: as protobuf, in base64."""

PARTS: dict[str, type[Message]] = {RESOURCE: Resource, SCOPE: InstrumentationScope}


def _make_envelope() -> Any:
    """Return the class of a request whose resources, scopes and records stay bytes: the same on the wire."""
    file = FileDescriptorProto()
    logs_pb2.DESCRIPTOR.CopyToProto(file)
    inner = [f".{message.DESCRIPTOR.full_name}" for message in (Resource, InstrumentationScope, LogRecord)]
    for message in file.message_type:
        for field in message.field:
            if field.type_name in inner:
                field.ClearField("type_name")
                field.type = FieldDescriptorProto.TYPE_BYTES
    pool = DescriptorPool()
    for known in (common_pb2, resource_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    # It has the one field of `ExportLogsServiceRequest`.
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(logs_pb2.LogsData.DESCRIPTOR.full_name))


_Envelope = _make_envelope()


def read_logs(body: bytes) -> tuple[int, Iterator[ScopeLogs]]:
    """Return the number of the records of a request, and its scopes, read once.

    Raises:
        Rejection: 400, it is none; 413, it has too many parts.
    """
    try:
        request = _Envelope.FromString(body)
    except DecodeError as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"the body is no ExportLogsServiceRequest: {error}") from None
    check_parts(len(request.resource_logs))
    scopes = records = 0
    for resource_logs in request.resource_logs:
        scopes += len(resource_logs.scope_logs)
        check_parts(scopes)
        records += sum(len(scope_logs.log_records) for scope_logs in resource_logs.scope_logs)
    resources = (
        (resource_logs, [(scope_logs, scope_logs.log_records) for scope_logs in resource_logs.scope_logs])
        for resource_logs in request.resource_logs
    )
    return records, share_scopes(share_beside({}), resources, read_part)


def read_record(text: bytes | Raw) -> Fields:
    """Return the fields of a record.

    Raises:
        Rejection: 400, it is none.
    """
    try:
        return _read_message(LogRecord.FromString(bytes(text)))
    except DecodeError as error:
        raise invalid_event(FieldError("logRecords", str(error))) from None


def read_part(name: str, logs: Any) -> Fields:
    """Return the fields of a resource or a scope, and the schema beside it.

    Raises:
        Rejection: 400, it is none.
    """
    try:
        fields = _read_message(PARTS[name].FromString(getattr(logs, name)))
    except DecodeError as error:
        raise invalid_event(FieldError(name, str(error))) from None
    return {**fields, "schemaUrl": logs.schema_url} if logs.schema_url else fields


def _read_message(message: Message) -> Fields:
    """Return those fields of a message that are set."""
    fields = {}
    for field, value in message.ListFields():
        name = field.json_name
        read = FIELDS.get(name)
        fields[name] = value if read is None else read(value)
    if len(UnknownFieldSet(message)):
        for field, _ in message.ListFields():
            message.ClearField(field.name)
        fields[UNKNOWN_FIELDS] = message.SerializeToString()
    return fields


def _read_value(value: AnyValue) -> Any:
    """Return a value, which names its kind, as a JSON value; bytes will be base64."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind is None:
        return None
    read = KINDS.get(kind)
    return getattr(value, kind) if read is None else read(getattr(value, kind))


def _read_pairs(pairs: Iterable[KeyValue]) -> Any:
    return name_pairs([(pair.key, _read_value(pair.value)) for pair in pairs])


def _read_number(number: float) -> float | str:
    """Return a number, or a text for one that JSON has not."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


FIELDS: dict[str, Callable[[Any], Any]] = {
    "attributes": _read_pairs,
    "body": _read_value,
    "descriptionKeys": list,
    "entityRefs": lambda refs: [_read_message(ref) for ref in refs],
    "idKeys": list,
    "spanId": bytes.hex,
    "traceId": bytes.hex,
}
"""How a field becomes a JSON value that is none already, by its name."""

KINDS: dict[str, Callable[[Any], Any]] = {
    "array_value": lambda array: [_read_value(value) for value in array.values],
    "double_value": _read_number,
    "kvlist_value": lambda pairs: _read_pairs(pairs.values),
}
"""The same for a value, by its kind."""
