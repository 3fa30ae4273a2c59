"""OpenTelemetry's SDK and exporter for Python, unchanged, send logs to real processes, and OpenSearch has each once."""

from __future__ import annotations

import asyncio
import gzip
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from forebay.intake.formats.otlp import OtlpJson, OtlpProtobuf
from testbed.servers.faulty_proxy import FaultyProxy
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer
from testbed.traffic.index import Index
from testbed.traffic.requests import Client

QUICK = {"FOREBAY_BULK_INTERVAL_S": "0.5", "FOREBAY_RETRY_DELAY_S_MAX": "2", "FOREBAY_RETRY_INTERVAL_S": "5"}
STALLED_S = 60.0
EXPORT_TIMEOUT_S = 60.0
"""Time in which the exporter may send a batch again."""

SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
RESOURCE = {
    "service.name": "shop",
    "service.version": "4.2.1",
    "device.id": "device-7",
    "os.version": "15.1",
    "process.command_args": ("python", "-m", "shop"),
}
SCOPE = {"team": "checkout"}
TRACE_ID, SPAN_ID = 0x5B8EFFF798038103D269B633813FC60C, 0xEEE19B7EC3C1B174
HAPPENED_AT = time.time_ns() // 1000 * 1000 + 789


def settings(opensearch_url: str, environment: str) -> dict[str, str]:
    return {**QUICK, "OPEN_SEARCH_DNS": opensearch_url, "SERVER_ENVIRONMENT": environment}


def make_provider(exporter: OTLPLogExporter, batch: int) -> tuple[LoggerProvider, Logger]:
    """Return a provider of loggers, and a logger that drops nothing of its own accord."""
    provider = LoggerProvider(Resource.create(RESOURCE, SCHEMA), shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(
            exporter, schedule_delay_millis=100, max_export_batch_size=batch, max_queue_size=1_000_000
        )
    )
    return provider, provider.get_logger("shop.cart", "2.0", SCHEMA, SCOPE)


def in_span() -> Context:
    span = NonRecordingSpan(SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    return set_span_in_context(span, Context())


def as_time(nanoseconds: int) -> str:
    """Return a time as it stands in a document."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    return moment.isoformat().replace("+00:00", "Z")


ATTRIBUTES: dict[str, Any] = {
    "url.path": "/cart",
    "enduser.id": "user-3",
    "user_agent.original": "Shop/4.2",
    "price": 12.5,
    "count": 2**62 + 1,
    "is_gift": False,
    "tags": ("a", "b"),
    "日": "本 🎉\u2028",
    "nested": {"list": [1, None, {"deep": "x"}], "bytes": b"\x00\xff"},
    "nan": float("nan"),
}
PARAM = {
    **ATTRIBUTES,
    "tags": ["a", "b"],
    "nested": {"list": [1, None, {"deep": "x"}], "bytes": "AP8="},
    "nan": "NaN",
}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
async def test_a_record_is_in_opensearch_field_by_field_as_the_sdk_was_given_it(
    opensearch: OpenSearchAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    environment = f"otlp-{compression or 'plain'}"
    with ForebayServer(tmp_path, settings(opensearch.url, environment)) as server:
        server.start()
        # All that a user changes.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=" + quote(f"Bearer {server.token('app')}"))
        if compression is not None:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        provider, logger = make_provider(OTLPLogExporter(), 512)
        logger.emit(
            timestamp=HAPPENED_AT,
            observed_timestamp=HAPPENED_AT + 1_000,
            context=in_span(),
            severity_number=SeverityNumber.WARN2,
            severity_text="WARNING",
            body="put into the cart",
            attributes=ATTRIBUTES,
            event_name="cart.add",
        )
        logger.emit(observed_timestamp=HAPPENED_AT, context=Context(), body={"items": [1, 2]})
        await asyncio.to_thread(provider.shutdown)
        index = Index(opensearch.url, environment)
        assert await index.wait_count(2, STALLED_S) == 2
        found = {document["event_info"]["event"]: document async for _, document in index.documents()}
    shared = {
        "resource": {
            "attributes": {**dict(provider.resource.attributes), "process.command_args": ["python", "-m", "shop"]},
            "schemaUrl": SCHEMA,
        },
        "scope": {"name": "shop.cart", "version": "2.0", "attributes": SCOPE, "schemaUrl": SCHEMA},
    }
    assert [found[event].pop("received_at") > as_time(HAPPENED_AT) for event in sorted(found)] == [True, True]
    first_id, second_id = found["cart.add"].pop("log_id"), found["log"].pop("log_id")
    assert first_id.endswith("-0")
    assert second_id == first_id[:-1] + "1"
    assert found["cart.add"] == {
        "@timestamp": as_time(HAPPENED_AT),
        "user_id": "user-3",
        "source": "app",
        "device_uuid": "device-7",
        "app_version": "4.2.1",
        "os_version": "15.1",
        "user_agent": "Shop/4.2",
        "event_info": {
            "page": "/cart",
            "event": "cart.add",
            "label": "put into the cart",
            "param": PARAM,
            "extra": {
                **shared,
                "timeUnixNano": HAPPENED_AT,
                "observedTimeUnixNano": HAPPENED_AT + 1_000,
                "severityNumber": 14,
                "severityText": "WARNING",
                "traceId": f"{TRACE_ID:032x}",
                "spanId": f"{SPAN_ID:016x}",
                "flags": 1,
            },
        },
    }
    user_agent = found["log"].pop("user_agent")
    assert user_agent.startswith("OTel-OTLP-Exporter-Python/")
    assert found["log"] == {
        "@timestamp": as_time(HAPPENED_AT),
        "user_id": "app",
        "device_uuid": "device-7",
        "app_version": "4.2.1",
        "os_version": "15.1",
        "event_info": {
            "page": "shop",
            "event": "log",
            "extra": {**shared, "observedTimeUnixNano": HAPPENED_AT, "body": {"items": [1, 2]}},
        },
    }


def test_a_request_that_is_sent_again_makes_no_second_document_in_either_encoding(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, QUICK) as server:
        server.start()
        client = Client(server)
        for form in (OtlpJson(), OtlpProtobuf()):
            answers = [client.post("/v1/logs", form.example.body, Content_Type=form.media_type) for _ in range(2)]
            assert [answer.status for answer in answers] == [200, 200]
            assert {answer.headers["content-type"] for answer in answers} == {form.media_type}
        log_ids = [f"{sha256(form.example.body).hexdigest()[:32]}-0" for form in (OtlpJson(), OtlpProtobuf())]
        assert [client.document(log_id)["event_info"]["label"] for log_id in log_ids] == ["buy", "buy"]
        assert server.stop() == 0
        assert len(client.stored("1")) == 2


def test_a_refusal_by_the_head_and_one_by_the_body_are_statuses(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, QUICK) as server:
        server.start()
        client = Client(server)
        protobuf = {"Content_Type": OtlpProtobuf.media_type}
        refusals = [
            (401, client.post("/v1/logs", b"", Authorization=None, **protobuf)),
            (400, client.post("/v1/logs", b"nonsense", **protobuf)),
            (400, client.post("/v1/logs", gzip.compress(b"nonsense"), Content_Encoding="gzip", **protobuf)),
            (415, client.post("/v1/logs", b"", Content_Encoding="rot13", **protobuf)),
        ]
        for status, answer in refusals:
            assert (answer.status, answer.headers["content-type"]) == (status, OtlpProtobuf.media_type)
            assert Status.FromString(answer.body).message
        answer = client.post("/v1/logs", b"nonsense")
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        assert answer.json["message"].startswith("the body is not JSON")


async def test_with_opensearch_away_and_the_server_killed_in_the_middle_each_record_is_there_once(
    opensearch: OpenSearchAddress, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = 8_000
    with (
        FaultyProxy(opensearch.url) as proxy,
        ForebayServer(tmp_path, settings(proxy.url, "otlp-killed")) as server,
    ):
        server.start()
        exporter = OTLPLogExporter(
            f"{server.url}/v1/logs",
            headers={"Authorization": f"Bearer {server.token()}"},
            timeout=EXPORT_TIMEOUT_S,
            compression=Compression.Gzip,
        )
        provider, logger = make_provider(exporter, 50)

        def emit() -> None:
            for number in range(records):
                logger.emit(context=Context(), body=f"record {number}", attributes={"number": number})
                if number % 50 == 0:
                    time.sleep(0.05)
            provider.force_flush()

        emitting = asyncio.create_task(asyncio.to_thread(emit))
        for _ in range(2):
            await asyncio.sleep(1)
            proxy.refuse()
            await asyncio.sleep(1)
            server.kill()
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
            proxy.accept()
        assert not emitting.done(), "the kills came too late"
        await emitting
        await asyncio.to_thread(provider.shutdown)
        assert "Transient error" in caplog.text, "no request was interrupted: the kills came at the wrong moment"
        assert "Failed to export" not in caplog.text
        index = Index(opensearch.url, "otlp-killed")
        await index.wait_count(records, STALLED_S)
        found = [document async for _, document in index.documents()]
    assert sorted(document["event_info"]["param"]["number"] for document in found) == list(range(records))
    assert all(
        document["event_info"]["label"] == f"record {document['event_info']['param']['number']}" for document in found
    )
