"""Requests of OTLP in both encodings, by the official messages, and what becomes of them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from forebay.errors import Rejection
from forebay.intake.foreign import document_makers
from forebay.intake.formats.format import Format
from forebay.intake.formats.otlp import OtlpJson, OtlpProtobuf
from forebay.intake.senders import encode_sender
from forebay.model import Admission, entry_document
from forebay.telemetry.counters import Counters

NOW = datetime(2026, 3, 15, 12, 30, 0, 123_456, UTC)
SENDER = encode_sender("app", b"device of the head", None, None, b"agent of the head")
HAPPENED_AT = 1_544_712_660_300_000_789
INT64_MAX = 2**63 - 1
KINDS = {bool: "boolValue", str: "stringValue", int: "intValue", float: "doubleValue"}

JSON, PROTOBUF = OtlpJson(), OtlpProtobuf()
both = pytest.mark.parametrize("form", [JSON, PROTOBUF], ids=["json", "protobuf"])


def take(form: Format, body: bytes) -> tuple[list[dict[str, Any] | Rejection], dict[str, Any]]:
    """Return the document or the refusal of each record, and the answer."""
    decoded = form.decode(body)
    assert decoded.is_foreign
    _, maker = document_makers("test", datetime(2018, 1, 1, tzinfo=UTC), Counters(), require_log_id=False)
    parts, results = maker.make(decoded.events, SENDER, NOW, decoded.sent_at)
    assert len(decoded.places) == len(results)
    documents = {document["log_id"]: document for part in parts for document in map(load, part.entries)}
    answer = form.answer(decoded.places, results, Admission.CREATED)
    return [
        result if isinstance(result, Rejection) else documents[json.loads(result)] for result in results
    ], json.loads(answer) if form is JSON else MessageToDict(ExportLogsServiceResponse.FromString(answer))


def load(entry: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(entry_document(entry))
    return document


def take_all(form: Format, body: bytes) -> list[dict[str, Any]]:
    """Return the documents of a request that is taken whole."""
    documents, answer = take(form, body)
    assert answer == {}
    return [document for document in documents if not isinstance(document, Rejection)]


def take_one(form: Format, body: bytes) -> dict[str, Any]:
    (document,) = take_all(form, body)
    return document


def as_value(value: Any) -> dict[str, Any]:
    """Return a Python value as OTLP's `AnyValue`."""
    match value:
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case list():
            return {"arrayValue": {"values": [as_value(item) for item in value]}}
        case dict():
            return {"kvlistValue": {"values": as_pairs(value)}}
        case None:
            return {}
    # A number of 64 bits is a text.
    return {KINDS[type(value)]: str(value) if type(value) is int else value}


def as_pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": as_value(value)} for key, value in attributes.items()]


def record(attributes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {**fields, "attributes": as_pairs(attributes)} if attributes is not None else fields


def request(*records: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    scope_logs = {"scopeLogs": [{"logRecords": [*records]}]}
    return {
        "resourceLogs": [{"resource": {"attributes": as_pairs(resource)}, **scope_logs} if resource else scope_logs]
    }


def encode(form: Format, body: dict[str, Any]) -> bytes:
    """Return a request in the encoding of a format, by the official messages."""
    return json.dumps(body).encode() if form is JSON else encode_protobuf(body).SerializeToString()


def encode_protobuf(body: dict[str, Any]) -> ExportLogsServiceRequest:
    message = ExportLogsServiceRequest()
    for resource_logs in body["resourceLogs"]:
        inner = message.resource_logs.add(schema_url=resource_logs.get("schemaUrl", ""))
        resource = resource_logs.get("resource", {})
        inner.resource.dropped_attributes_count = resource.get("droppedAttributesCount", 0)
        add_pairs(inner.resource.attributes, resource.get("attributes", []))
        for scope_logs in resource_logs["scopeLogs"]:
            of_scope = inner.scope_logs.add(schema_url=scope_logs.get("schemaUrl", ""))
            scope = scope_logs.get("scope", {})
            of_scope.scope.name, of_scope.scope.version = scope.get("name", ""), scope.get("version", "")
            add_pairs(of_scope.scope.attributes, scope.get("attributes", []))
            for fields in scope_logs["logRecords"]:
                add_record(of_scope.log_records.add(), fields)
    return message


def add_record(message: LogRecord, fields: dict[str, Any]) -> None:
    message.time_unix_nano = int(fields.get("timeUnixNano", 0))
    message.observed_time_unix_nano = int(fields.get("observedTimeUnixNano", 0))
    message.severity_number = fields.get("severityNumber", 0)
    message.severity_text = fields.get("severityText", "")
    message.event_name = fields.get("eventName", "")
    message.flags = fields.get("flags", 0)
    message.dropped_attributes_count = fields.get("droppedAttributesCount", 0)
    message.trace_id, message.span_id = (bytes.fromhex(fields.get(name, "")) for name in ("traceId", "spanId"))
    if "body" in fields:
        set_value(message.body, fields["body"])
    add_pairs(message.attributes, fields.get("attributes", []))


def add_pairs(message: Any, pairs: list[dict[str, Any]]) -> None:
    for pair in pairs:
        set_value(message.add(key=pair["key"]).value, pair["value"])


def set_value(message: AnyValue, value: dict[str, Any]) -> None:
    match value:
        case {"stringValue": str(text)}:
            message.string_value = text
        case {"boolValue": bool(flag)}:
            message.bool_value = flag
        case {"intValue": number}:
            message.int_value = int(number)
        case {"doubleValue": number}:
            message.double_value = float(number)
        case {"bytesValue": str(text)}:
            message.bytes_value = base64.b64decode(text)
        case {"arrayValue": {"values": items}}:
            message.array_value.SetInParent()
            for item in items:
                set_value(message.array_value.values.add(), item)
        case {"kvlistValue": {"values": pairs}}:
            message.kvlist_value.SetInParent()
            add_pairs(message.kvlist_value.values, pairs)


def nest(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def delimited(tag: bytes, *parts: bytes) -> bytes:
    """Return a field of protobuf with less than 128 bytes."""
    value = b"".join(parts)
    return b"%b%c%b" % (tag, len(value), value)


OFFICIAL = {
    "resourceLogs": [
        {
            "resource": {"attributes": as_pairs({"service.name": "my.service"})},
            "scopeLogs": [
                {
                    "scope": {
                        "name": "my.library",
                        "version": "1.0.0",
                        "attributes": as_pairs({"my.scope.attribute": "some scope attribute"}),
                    },
                    "logRecords": [
                        {
                            "timeUnixNano": 1544712660300000000,
                            "observedTimeUnixNano": 1544712660300000000,
                            "severityText": "Information",
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "EEE19B7EC3C1B174",
                            "body": {"stringValue": "Example log record"},
                            "attributes": [
                                *as_pairs({"string.attribute": "some string", "boolean.attribute": True}),
                                {"key": "int.attribute", "value": {"intValue": 10}},
                                *as_pairs({"double.attribute": 637.704, "array.attribute": ["many", "values"]}),
                                *as_pairs({"map.attribute": {"some.map.key": "some value"}}),
                            ],
                        }
                    ],
                }
            ],
        }
    ]
}
"""The facts of `examples/logs.json` of opentelemetry-proto."""
