"""The trial of Forebay beside the OpenTelemetry Collector: its client, its relay and its count."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from benchmarks.candidates import PEERS
from benchmarks.collector import page, run, sender, trial
from benchmarks.collector.records import find_number, request_body
from benchmarks.collector.relay import Relay
from benchmarks.collector.sender import Sender
from benchmarks.collector.servers import HERE
from testbed.servers.ports import free_ports

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DONE = ExportLogsServiceResponse().SerializeToString()


async def serve(handler: Handler) -> tuple[web.AppRunner, int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    port = free_ports(1)[0]
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, port


async def send_to(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Sender:
    monkeypatch.setattr(sender, "FIRST_DELAY_S", 0.01)
    runner, port = await serve(handler)
    client = Sender(f"http://127.0.0.1:{port}", "token")
    await client.send(0.2, 10, 3)
    await runner.cleanup()
    return client


def test_every_record_of_a_request_has_its_number_in_its_body() -> None:
    request = ExportLogsServiceRequest.FromString(request_body(range(7, 10)))
    records = request.resource_logs[0].scope_logs[0].log_records
    assert [find_number(json.dumps({"any": {"place": record.body.string_value}})) for record in records] == [7, 8, 9]


async def test_a_request_is_sent_again_unchanged_until_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: Counter[bytes] = Counter()

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        bodies[body] += 1
        if bodies[body] == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status={2: 503, 3: 429}.get(bodies[body], 200), body=DONE if bodies[body] > 3 else b"")

    client = await send_to(handler, monkeypatch)
    assert list(bodies.values()) == [4, 4]
    assert client.answers == {"no answer": 2, "503": 2, "429": 2, "200": 2}
    assert client.acknowledged == set(range(6))


async def test_a_record_that_is_refused_for_good_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((web.Response(status=400), web.Response(body=partial(rejected=1))))

    async def handler(_: web.Request) -> web.StreamResponse:
        return next(answers)

    client = await send_to(handler, monkeypatch)
    assert (client.sent, client.refused, client.acknowledged) == (6, 4, set())


def partial(rejected: int) -> bytes:
    success = ExportLogsPartialSuccess(rejected_log_records=rejected)
    answer: bytes = ExportLogsServiceResponse(partial_success=success).SerializeToString()
    return answer


async def test_a_relay_that_refuses_cuts_a_request_and_takes_no_other_until_it_accepts() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/hangs":
            await asyncio.sleep(60)
        return web.Response(text="there")

    runner, port = await serve(handler)
    with Relay(port) as relay:
        async with aiohttp.ClientSession() as session:
            waiting = asyncio.ensure_future(session.get(f"{relay.url}/hangs"))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(relay.refuse)
            with pytest.raises(aiohttp.ClientError):
                await waiting
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(relay.url)
            await asyncio.to_thread(relay.accept)
            async with session.get(relay.url) as response:
                assert await response.text() == "there"
    await runner.cleanup()


def test_only_what_was_acknowledged_can_be_lost_and_every_record_can_be_doubled() -> None:
    fate = trial.tally({1, 2, 3}, Counter({1: 1, 2: 2, 9: 3}))
    assert fate == trial.Fate(arrived=3, lost=1, doubled=2)


@pytest.mark.parametrize("words", ["Dropping data", "Rejecting data"])
def test_lines_about_dropped_data_are_found_in_a_log(words: str) -> None:
    line = f"2026-01-01\terror\tExporting failed. {words}.\t{{}}"
    assert trial.find_drops(f"one\n{line}\nExporting failed. Will retry the request after interval.\n") == [line]


def test_a_batch_that_an_exporter_rejects_and_its_queue_drops_counts_once() -> None:
    assert trial.find_drops("Rejecting data. one\nDropping data. one\n") == ["Dropping data. one"]


def test_the_page_is_the_one_of_the_kept_numbers() -> None:
    assert page.render(page.read()) == page.PAGE.read_text()


def test_every_collector_has_its_settings_and_its_sources() -> None:
    assert set(run.PROGRAMS) == set(page.TITLES) - {page.FOREBAY}
    for name, program in run.PROGRAMS.items():
        assert (HERE / f"{name}.yaml").is_file()
        assert (PEERS / program / "go.mod").is_file()
