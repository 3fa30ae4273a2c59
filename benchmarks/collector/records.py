"""Numbered log records as requests of OTLP, and their numbers read back from any document."""

from __future__ import annotations

import re
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

MARK = re.compile(r"record-(\d+)")


def request_body(numbers: range) -> bytes:
    """Return a request with one log record for each number, made now."""
    records = [_record(number) for number in numbers]
    scope = ScopeLogs(scope=InstrumentationScope(name="side-by-side"), log_records=records)
    resource = Resource(attributes=[_text("service.name", "shop")])
    logs = ResourceLogs(resource=resource, scope_logs=[scope])
    body: bytes = ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()
    return body


def find_number(document: str) -> int | None:
    """Return the number of the record in the text of a document, wherever a server has put the record's body."""
    match = MARK.search(document)
    return None if match is None else int(match[1])


def _record(number: int) -> LogRecord:
    now = time.time_ns()
    return LogRecord(
        time_unix_nano=now,
        observed_time_unix_nano=now,
        severity_number=SEVERITY_NUMBER_INFO,
        severity_text="INFO",
        body=AnyValue(string_value=f"record-{number} was paid"),
        attributes=[_text("payment.method", "card"), KeyValue(key="amount", value=AnyValue(int_value=number % 1000))],
    )


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
