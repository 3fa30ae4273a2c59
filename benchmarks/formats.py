"""Measures the wire formats: the same events in batches of 100, in each format in turn, to one server on one core."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import itertools
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from benchmarks import clients, processes
from benchmarks.candidates import DISK
from benchmarks.clients import Client, to_json
from benchmarks.load import stage
from benchmarks.processes import LOAD_CORE, BenchmarkError
from forebay.zstd import zstd

EVENTS = 100
CONNECTIONS = 4
REQUESTS = 100
"""Ready-made requests of each format, with different ids; they are sent again and again."""

NATIVE = "native, JSON"
Event = dict[str, Any]


class Wire(NamedTuple):
    """A format on the wire: its address, the type of its bodies, and how events are written in it."""

    path: str
    media_type: str
    write: Callable[[Sequence[Event]], bytes]
    coding: str = ""


def _as_lines(events: Sequence[Event]) -> bytes:
    return b"".join(to_json(event) + b"\n" for event in events)


def _as_calls(events: Sequence[Event]) -> bytes:
    calls = [
        {
            "type": "track",
            "messageId": event["log_id"],
            "event": event["event"],
            "timestamp": "2026-11-26T10:00:00.000Z",
            "userId": "user-1",
            "properties": {**event["param"], "target": event["target"]},
            "context": {"page": {"path": event["page"]}, "library": {"name": "bench", "version": "1.0"}},
        }
        for event in events
    ]
    return to_json({"batch": calls, "sentAt": "2026-11-26T10:00:01.000Z"})


def _as_cloud_events(events: Sequence[Event]) -> bytes:
    return to_json(
        [
            {
                "specversion": "1.0",
                "id": event["log_id"],
                "source": "/shop",
                "type": event["event"],
                "subject": event["page"],
                "time": "2026-11-26T10:00:00Z",
                "data": event["param"],
            }
            for event in events
        ]
    )


def _as_user_behavior(events: Sequence[Event]) -> bytes:
    return to_json(
        [
            {
                "application": "shop",
                "action_name": event["event"],
                "query_id": event["log_id"],
                "client_id": "client-1",
                "session_id": "session-1",
                "timestamp": "2026-11-26T10:00:00.000Z",
                "message_type": "INFO",
                "message": event["label"],
                "event_attributes": {"object": {"object_id": event["target"], **event["param"]}},
            }
            for event in events
        ]
    )


def _as_records(events: Sequence[Event]) -> Event:
    records = [
        {
            "timeUnixNano": str(time.time_ns()),
            "severityNumber": 9,
            "eventName": event["event"],
            "body": {"stringValue": event["label"]},
            "attributes": clients.otlp_pairs({**event["param"], "url.path": event["page"]}),
        }
        for event in events
    ]
    resource = {"attributes": clients.otlp_pairs({"service.name": "shop", "service.version": "1.0"})}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": "b"}, "logRecords": records}]}]}


def _as_protobuf(events: Sequence[Event]) -> bytes:
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource_logs.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope_logs = resource_logs.scope_logs.add()
    for event in events:
        record = scope_logs.log_records.add(time_unix_nano=time.time_ns(), severity_number=9, event_name=event["event"])
        record.body.string_value = event["label"]
        for name, value in {**event["param"], "url.path": event["page"]}.items():
            attribute = record.attributes.add(key=name).value
            if isinstance(value, bool):
                attribute.bool_value = value
            elif isinstance(value, int):
                attribute.int_value = value
            else:
                attribute.string_value = value
    body: bytes = request.SerializeToString()
    return body


JSON = "application/json"
WIRES = {
    NATIVE: Wire("/events/batch", JSON, to_json),
    "native, JSON, gzip": Wire("/events/batch", JSON, lambda events: gzip.compress(to_json(events)), "gzip"),
    "native, JSON, zstd": Wire("/events/batch", JSON, lambda events: zstd.compress(to_json(events)), "zstd"),
    "native, NDJSON": Wire("/events/batch", "application/x-ndjson", _as_lines),
    "CloudEvents, batched": Wire("/events", "application/cloudevents-batch+json", _as_cloud_events),
    "Segment": Wire("/v1/batch", JSON, _as_calls),
    "OTLP, protobuf": Wire("/v1/logs", "application/x-protobuf", _as_protobuf),
    "OTLP, JSON": Wire("/v1/logs", JSON, lambda events: to_json(_as_records(events))),
    "UBI": Wire("/ubi_events", JSON, _as_user_behavior),
}


def measure(work: Path, rounds: int, seconds: int, warm_up: int) -> dict[str, Any]:
    """Measure each format in each round; the order moves on by one with each round. Return the runs, and the time."""
    runs: list[dict[str, Any]] = []
    names = list(WIRES)
    with stage(DISK, work, 1) as on, _on_core(LOAD_CORE):
        requests = {name: make_requests(wire, on.clients[0]) for name, wire in WIRES.items()}
        for number in range(rounds):
            for name in names[number:] + names[:number]:
                print(f"round {number + 1}: {name}", flush=True)
                send(on.launch.port, requests[name], warm_up)
                before = processes.cpu_seconds(on.server.pid)
                sent = send(on.launch.port, requests[name], seconds)
                cpu_s = processes.cpu_seconds(on.server.pid) - before
                runs.append({"round": number, "format": name, "events": sent * EVENTS, "cpu_s": round(cpu_s, 2)})
    return {"when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "runs": runs}


def make_requests(wire: Wire, client: Client) -> list[bytes]:
    """Return ready-made requests of a format, as they go over the wire."""
    headers = {**client.headers, "Content-Type": wire.media_type}
    if wire.coding:
        headers["Content-Encoding"] = wire.coding
    found = []
    for number in range(REQUESTS):
        body = wire.write([clients.event(number * EVENTS + offset) for offset in range(EVENTS)])
        lines = [f"POST {wire.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        found.append("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    return found


def send(port: int, requests: Sequence[bytes], seconds: float) -> int:
    """Send requests on several connections, each as soon as the one before it is answered; return how many."""
    sent = 0
    following = itertools.cycle(requests)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(CONNECTIONS)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for connection in sockets:
                connection.sendall(next(following))
            for connection in sockets:
                _read_answer(connection)
            sent += len(sockets)
    return sent


def _read_answer(connection: socket.socket) -> None:
    response = http.client.HTTPResponse(connection, method="POST")
    try:
        response.begin()
        answer = response.read()
    finally:
        response.close()
    if response.status != http.client.OK or b'"rejected":[' in answer:
        raise BenchmarkError(f"{response.status}: {answer[:500]!r}")


@contextlib.contextmanager
def _on_core(core: int) -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def rows(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each format: the median of its rates, their spread, and the median of its ratios to native."""
    rates: dict[str, dict[int, float]] = {}
    for run in runs:
        rates.setdefault(run["format"], {})[run["round"]] = run["events"] / run["cpu_s"]
    found = []
    for name, by_round in rates.items():
        ratio = statistics.median(rate / rates[NATIVE][number] for number, rate in by_round.items())
        spread = f"{min(by_round.values()):,.0f} … {max(by_round.values()):,.0f}"
        found.append([name, f"{statistics.median(by_round.values()):,.0f}", spread, f"{ratio:.2f} times"])
    return found
