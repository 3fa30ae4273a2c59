"""The proxy misbehaves as it is told to, and only then."""

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from aiohttp import web

from testbed.servers import misbehaviour
from testbed.servers.faulty_proxy import Behaviour, FaultyProxy, ProxiedRequest, pass_on
from testbed.servers.ports import HOST, free_ports

BULK = b"".join(b'{"create":{"_id":"%d"}}\n{"poison":%d}\n' % (number, number) for number in range(100))


class Upstream:
    """Stands for OpenSearch: it answers a bulk with an item for each event, and remembers the requests."""

    def __init__(self) -> None:
        self.url = f"http://{HOST}:{free_ports(1)[0]}"
        self.bodies: list[bytes] = []
        self.paths: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        self.paths.append(request.path_qs)
        events = body.count(b"\n") // 2
        return web.json_response({"errors": False, "items": [{"create": {"status": 201}}] * events}, status=200)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, int(server.url.rpartition(":")[2])).start()
    yield server
    await runner.cleanup()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultyProxy]:
    with FaultyProxy(upstream.url) as proxy:
        yield proxy


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def post(session: aiohttp.ClientSession, proxy: FaultyProxy, body: bytes = BULK) -> tuple[int, bytes]:
    async with session.post(f"{proxy.url}/_bulk?filter_path=errors", data=body) as response:
        return response.status, await response.read()


async def test_a_request_is_passed_on_as_it_is(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream
) -> None:
    status, body = await post(session, proxy)
    assert status == 200
    assert len(json.loads(body)["items"]) == 100
    assert upstream.bodies == [BULK]
    assert upstream.paths == ["/_bulk?filter_path=errors"]
    assert proxy.interfered == 0


async def test_one_connection_is_kept_for_many_requests(proxy: FaultyProxy, upstream: Upstream) -> None:
    reader, writer = await asyncio.open_connection(HOST, int(proxy.url.rpartition(":")[2]))
    for _ in range(3):
        writer.write(b"POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    assert len(upstream.bodies) == 3


async def test_it_refuses_connections_and_takes_them_again_at_the_same_place(
    session: aiohttp.ClientSession, proxy: FaultyProxy
) -> None:
    await post(session, proxy)
    proxy.refuse()
    with pytest.raises(aiohttp.ClientOSError):  # over the connection that was kept
        await post(session, proxy)
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(session, proxy)
    proxy.accept()
    assert (await post(session, proxy))[0] == 200


async def test_a_reset_before_the_answer_keeps_the_request_from_opensearch(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream
) -> None:
    proxy.behave(misbehaviour.reset_before)
    with pytest.raises(aiohttp.ClientOSError):
        await post(session, proxy)
    assert upstream.bodies == []
    assert proxy.interfered >= 1


@pytest.mark.parametrize("behaviour", [misbehaviour.reset_after, misbehaviour.reset_in_answer])
async def test_a_reset_after_the_fact_lets_opensearch_do_its_work(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream, behaviour: Behaviour
) -> None:
    proxy.behave(behaviour)
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ClientPayloadError)):
        await post(session, proxy)
    assert upstream.bodies


async def test_a_reset_in_the_answer_comes_after_its_head(session: aiohttp.ClientSession, proxy: FaultyProxy) -> None:
    proxy.behave(misbehaviour.reset_in_answer)
    async with session.post(f"{proxy.url}/_bulk", data=BULK) as response:
        assert response.status == 200
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await response.read()


async def test_a_request_that_hangs_is_let_go_of_when_the_behaviour_changes(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream
) -> None:
    proxy.behave(misbehaviour.hang_after)
    request = asyncio.create_task(post(session, proxy))
    while not upstream.bodies:
        await asyncio.sleep(0.01)
    done, _ = await asyncio.wait([request], timeout=0.2)
    assert not done
    await asyncio.to_thread(proxy.behave, pass_on)
    with pytest.raises(aiohttp.ClientError):
        await request
    assert (await post(session, proxy))[0] == 200


async def test_it_refuses_everything_with_a_status(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream
) -> None:
    proxy.behave(misbehaviour.refuse_all(429))
    status, body = await post(session, proxy)
    assert (status, json.loads(body)["error"]["type"]) == (429, "rejected_execution_exception")
    assert upstream.bodies == []


async def test_items_that_are_refused_do_not_reach_opensearch(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream
) -> None:
    proxy.behave(misbehaviour.refuse_items(0.5))
    _, body = await post(session, proxy)
    statuses = [item["create"]["status"] for item in json.loads(body)["items"]]
    passed = [number for number, status in enumerate(statuses) if status == 201]
    assert len(statuses) == 100
    assert 0 < len(passed) < 100
    assert [json.loads(line)["poison"] for line in upstream.bodies[0].split(b"\n")[1::2]] == passed


async def test_other_answers_than_opensearchs_own(
    session: aiohttp.ClientSession, proxy: FaultyProxy, upstream: Upstream
) -> None:
    proxy.behave(misbehaviour.show_page(200))
    assert (await post(session, proxy))[1].startswith(b"<html>")
    assert upstream.bodies == []
    proxy.behave(misbehaviour.cut_json)
    with pytest.raises(json.JSONDecodeError):
        json.loads((await post(session, proxy))[1])
    proxy.behave(misbehaviour.drop_items)
    assert len(json.loads((await post(session, proxy))[1])["items"]) == 99
    assert upstream.bodies == [BULK, BULK]


async def test_a_slow_answer_is_the_right_one(session: aiohttp.ClientSession, proxy: FaultyProxy) -> None:
    proxy.behave(misbehaviour.be_slow(0.3))
    request = asyncio.create_task(post(session, proxy))
    done, _ = await asyncio.wait([request], timeout=0.1)
    assert not done
    assert (await request)[0] == 200


async def test_only_a_poisoned_request_is_reset(session: aiohttp.ClientSession, proxy: FaultyProxy) -> None:
    proxy.behave(misbehaviour.reset_on(b'"poison":42}'))
    with pytest.raises(aiohttp.ClientOSError):
        await post(session, proxy)
    assert (await post(session, proxy, BULK.replace(b"42", b"43")))[0] == 200


async def test_a_connection_to_an_opensearch_that_is_away_is_reset(session: aiohttp.ClientSession) -> None:
    with FaultyProxy(f"http://{HOST}:{free_ports(1)[0]}") as proxy:
        with pytest.raises(aiohttp.ClientOSError):
            await post(session, proxy)
        assert proxy.interfered == 0


async def test_connections_that_come_just_before_it_refuses_are_ended_and_not_forgotten(proxy: FaultyProxy) -> None:
    is_busy = threading.Event()

    async def be_busy(request: ProxiedRequest) -> web.StreamResponse:
        is_busy.set()
        time.sleep(0.3)  # noqa: ASYNC251 - the loop stands still, so that all that follows reaches it at once
        return request.reset()

    proxy.behave(be_busy)
    address = (HOST, int(proxy.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address, 10))]
        clients[0].sendall(b"POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert is_busy.wait(10)
        clients += [stack.enter_context(socket.create_connection(address, 10)) for _ in range(20)]
        proxy.refuse()
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    # A connection that was forgotten is a warning here, and a warning is an error.
    gc.collect()
