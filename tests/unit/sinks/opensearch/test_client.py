"""The choice of the host for a request, and the error when none answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.backoff import Backoff
from forebay.errors import AnswerTooLarge, OperatorNeeded, SinkUnreachable
from forebay.setting_values import SinkHost
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.client import OpenSearchClient
from testbed.servers.certificates import Authority

MIB = 1024 * 1024

MakeClient = Callable[..., OpenSearchClient]


class Host:
    """A host that gives one answer and counts how often."""

    def __init__(self) -> None:
        self.status = 200
        self.requests = 0
        self.url = ""
        self.headers: dict[str, str] = {}

    async def handle(self, _: web.Request) -> web.Response:
        self.requests += 1
        return web.Response(status=self.status, text=self.url, headers=self.headers)


@pytest.fixture(autouse=True)
def out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a dead host out for longer than any test takes; when it comes back is tested without a clock."""
    monkeypatch.setattr("forebay.sinks.opensearch.client.BACKOFF", Backoff(3600, 3600))


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with contextlib.AsyncExitStack() as stack:
        made = Host(), Host()
        for host in made:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", host.handle)
            server = await stack.enter_async_context(TestServer(app))
            host.url = str(server.make_url("")).rstrip("/")
        yield made


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    clients = []

    def make(*urls: str, timeout_s: float = 10, tls: ssl.SSLContext | None = None) -> OpenSearchClient:
        access = Access(hosts=tuple(SinkHost(url, "admin", "hunter2") for url in urls), tls=tls)
        clients.append(OpenSearchClient(access, timeout_s, 10))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that requests went to, in their order."""
    addresses: list[str] = []
    request = aiohttp.ClientSession.request

    def remember(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Any:
        addresses.append(url.removesuffix("/"))
        return request(session, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "request", remember)
    return addresses


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_host_that_refuses_is_asked_once_and_then_left_out(
    hosts: tuple[Host, Host], make_client: MakeClient, sent: list[str]
) -> None:
    client = make_client("http://127.0.0.1:1", hosts[0].url)
    answers = await asyncio.gather(*(client.request("GET", "/") for _ in range(3)))
    answers += [await client.request("GET", "/") for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    # At most those that went out before it was known.
    assert sent.count("http://127.0.0.1:1") <= 3
    assert sent[-10:] == [hosts[0].url] * 10


UNUSABLE = ["http://a..b:9200", f"http://{'a' * 64}:9200", "http://1.2.3:9200", "http://é..b:9200"]


@pytest.mark.parametrize("url", UNUSABLE)
async def test_a_host_whose_name_cannot_be_used_is_left_out_like_one_that_is_dead(
    hosts: tuple[Host, Host], make_client: MakeClient, url: str, sent: list[str]
) -> None:
    client = make_client(url, hosts[0].url)
    assert [(await client.request("GET", "/")).status for _ in range(10)] == [200] * 10
    assert sent.count(url) == 1


@pytest.mark.parametrize("url", UNUSABLE)
async def test_a_host_whose_name_cannot_be_used_is_said_to_give_no_answer(make_client: MakeClient, url: str) -> None:
    with pytest.raises(SinkUnreachable) as raised:
        await make_client(url).request("GET", "/")
    assert str(raised.value).startswith(f"{url}: ")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_host_that_says_it_cannot_hands_over_to_the_next(
    hosts: tuple[Host, Host], make_client: MakeClient, status: int
) -> None:
    unable, able = hosts
    unable.status = status
    client = make_client(unable.url, able.url)
    assert [(await client.request("GET", "/")).status for _ in range(6)] == [200] * 6
    assert unable.requests == 1


async def test_with_all_hosts_unable_the_answer_of_one_is_given(
    hosts: tuple[Host, Host], make_client: MakeClient
) -> None:
    for host in hosts:
        host.status = 503
    client = make_client(hosts[0].url, hosts[1].url)
    assert (await client.request("GET", "/")).status == 503
    assert [host.requests for host in hosts] == [1, 1]
    # Now that both are known to be unable, one try is enough.
    assert (await client.request("GET", "/")).status == 503
    assert sum(host.requests for host in hosts) == 3


@pytest.mark.parametrize("status", [200, 400, 401, 404, 413, 429, 500])
async def test_any_other_answer_is_the_answer(hosts: tuple[Host, Host], make_client: MakeClient, status: int) -> None:
    for host in hosts:
        host.status = status
    client = make_client(hosts[0].url, hosts[1].url)
    assert [(await client.request("GET", "/")).status for _ in range(4)] == [status] * 4
    assert [host.requests for host in hosts] == [2, 2]


async def test_a_host_that_does_not_answer_costs_its_time_once(
    hosts: tuple[Host, Host], make_client: MakeClient, silent: str
) -> None:
    client = make_client(silent, hosts[0].url, timeout_s=0.3)
    outcomes = await asyncio.gather(*(client.request("GET", "/") for _ in range(2)), return_exceptions=True)
    (late,) = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert isinstance(late, SinkUnreachable)
    assert str(late) == f"{silent}: no answer in time"
    assert [(await client.request("GET", "/")).status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize(
    "lines",
    [{"Warning": "w" * 60_000}, {f"X-Line-{number}": "value" for number in range(900)}],
    ids=["long", "many"],
)
async def test_an_answer_with_a_large_head_is_an_answer(
    hosts: tuple[Host, Host], make_client: MakeClient, lines: dict[str, str]
) -> None:
    hosts[0].headers = lines
    answer = await make_client(hosts[0].url).request("GET", "/")
    assert answer == (200, hosts[0].url.encode())


async def test_an_answer_that_does_not_end_is_read_up_to_a_limit(make_client: MakeClient) -> None:
    sent_bytes = 0

    async def answer_on(request: web.Request) -> web.StreamResponse:
        nonlocal sent_bytes
        response = web.StreamResponse()
        await response.prepare(request)
        # The client hangs up.
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * MIB)
                sent_bytes += MIB
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer_on)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        with pytest.raises(AnswerTooLarge, match=f"^{url}: its answer is larger than 16777216 bytes$"):
            await make_client(url).request("GET", "/")
    assert 16 * MIB < sent_bytes < 32 * MIB


@pytest.fixture
def blackhole() -> Iterator[str]:
    """An address whose connections are never made: the kernel drops new ones when the queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - the socket's own signature
            waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"


async def test_a_host_that_cannot_be_connected_to_costs_its_time_once_and_no_request(
    hosts: tuple[Host, Host], make_client: MakeClient, blackhole: str, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.sinks.opensearch.client.CONNECT_TIMEOUT_S", 0.3)
    client = make_client(blackhole, hosts[0].url)
    answers = await asyncio.gather(*(client.request("GET", "/") for _ in range(10)))
    answers += [await client.request("GET", "/") for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    assert sent.count(blackhole) == 5
    assert sent[-10:] == [hosts[0].url] * 10


async def test_no_host_at_all_is_said_with_each_reason_and_no_password(make_client: MakeClient) -> None:
    client = make_client("http://127.0.0.1:1", "http://127.0.0.1:2")
    with pytest.raises(SinkUnreachable) as raised:
        await client.request("GET", "/")
    assert "http://127.0.0.1:1: " in str(raised.value)
    assert "http://127.0.0.1:2: " in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert not isinstance(raised.value, OperatorNeeded)


async def test_a_try_of_a_dead_host_that_is_cancelled_leaves_it_to_the_next_request(
    make_client: MakeClient, silent: str, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.sinks.opensearch.client.BACKOFF", Backoff(0, 0))
    client = make_client(silent, "http://127.0.0.1:1", timeout_s=1)
    with pytest.raises(SinkUnreachable):
        await client.request("GET", "/")
    sent.clear()

    for tries in (1, 2):
        task = asyncio.create_task(client.request("GET", "/"))
        while len(sent) < tries:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sent == [silent, silent]


async def test_one_host_that_cannot_be_trusted_needs_no_operator_if_another_may_come_back(
    make_client: MakeClient, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority(tmp_path).sign("server"))
    server = TestServer(web.Application(), scheme="https")
    await server.start_server(ssl=context)
    url = str(server.make_url("")).rstrip("/")
    try:
        with pytest.raises(OperatorNeeded, match=f"^{url}: its certificate is not to be trusted: "):
            await make_client(url).request("GET", "/")
        with pytest.raises(SinkUnreachable, match="its certificate is not to be trusted: ") as raised:
            await make_client(url, "http://127.0.0.1:1").request("GET", "/")
        assert not isinstance(raised.value, OperatorNeeded)
    finally:
        await server.close()


def refuse_certificates(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Refuse a client that shows no certificate as OpenSearch does: with an alert, and a closed connection."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
                with contextlib.suppress(ssl.SSLError):
                    secured.do_handshake()
                # With unread bytes left, the kernel would send a reset that overtakes the alert.
                while socket.socket.recv(secured, 65536):
                    pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_host_that_wants_a_certificate_of_ours_is_for_an_operator(
    make_client: MakeClient, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = Authority(tmp_path)
    wanting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    wanting.load_cert_chain(*authority.sign("server"))
    wanting.verify_mode = ssl.CERT_REQUIRED
    wanting.minimum_version = wanting.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = threading.Thread(target=refuse_certificates, args=(listener, wanting))
        host.start()
        try:
            trusting = ssl.create_default_context(cafile=authority.file)
            client = make_client(f"https://127.0.0.1:{listener.getsockname()[1]}", tls=trusting)
            with pytest.raises(OperatorNeeded, match="does not take our certificate") as raised:
                await client.request("GET", "/")
            assert "FOREBAY_OPEN_SEARCH_CERT_FILE" in raised.value.advice
        finally:
            await client.close()
            listener.shutdown(socket.SHUT_RDWR)
            host.join(10)
