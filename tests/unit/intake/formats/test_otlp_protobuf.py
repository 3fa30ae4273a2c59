"""The protobuf encoding: every field of every message is read, and a bad record costs no other."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, EntityRef, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from forebay.errors import Rejection
from forebay.intake.formats import otlp_protobuf
from unit.intake.formats.otlp_requests import (
    PROTOBUF,
    delimited,
    take,
    take_one,
)


def test_unknown_fields_of_protobuf_are_kept_as_they_came() -> None:
    newer = b"\xf2\x06\x03abc"
    text = LogRecord(event_name="a").SerializeToString() + newer
    assert otlp_protobuf.read_record(text) == {
        "eventName": "a",
        "unknownFields": newer,
    }


@pytest.mark.parametrize("message", [LogRecord, Resource, InstrumentationScope, EntityRef])
def test_every_field_of_the_messages_becomes_json(message: Any) -> None:
    plain = {FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
    plain |= {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_ENUM}
    for field in message.DESCRIPTOR.fields:
        is_plain = not field.is_repeated and field.cpp_type in plain and field.type != FieldDescriptor.TYPE_BYTES
        assert is_plain != (field.json_name in otlp_protobuf.FIELDS), field.name


def test_entities_of_a_resource_are_kept() -> None:
    message = ExportLogsServiceRequest()
    resource_logs = message.resource_logs.add()
    resource_logs.resource.entity_refs.add(type="service", id_keys=["service.name"], description_keys=["a", "b"])
    resource_logs.scope_logs.add().log_records.add()
    assert take_one(PROTOBUF, message.SerializeToString())["event_info"]["extra"]["resource"] == {
        "entityRefs": [{"type": "service", "idKeys": ["service.name"], "descriptionKeys": ["a", "b"]}]
    }


def test_every_value_of_the_official_messages_is_known() -> None:
    kinds = {field.name for field in AnyValue.DESCRIPTOR.fields}
    plain = {"string_value", "bool_value", "int_value", "bytes_value", "string_value_strindex"}
    assert kinds == plain | otlp_protobuf.KINDS.keys()
    assert {field.name for field in KeyValue.DESCRIPTOR.fields} == {"key", "value", "key_strindex"}


@pytest.mark.parametrize("bad", [b"\xff\xff", b"*\x03\n\x01\xff", b"\x1a\x01\xff", b"\x32\x05\x0a\x01a"], ids=repr)
def test_a_bad_record_of_protobuf_costs_no_other(bad: bytes) -> None:
    body = delimited(b"\n", delimited(b"\x12", b"\x12\x00", delimited(b"\x12", bad), b"\x12\x00"))
    first, second, third = take(PROTOBUF, body)[0]
    assert [isinstance(result, Rejection) for result in (first, second, third)] == [False, True, False]
    assert isinstance(second, Rejection)
    assert second.errors[0].field == "logRecords"
