"""The real OpenSearch of the tests can be killed, paused and emptied, as other tests rely on."""

import asyncio
import json
import os
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.servers.fixtures import GIVEN_URL, OpenSearchAddress, StartOpenSearch
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.opensearch_install import VERSION
from testbed.servers.process_usage import thread_states
from testbed.servers.server_process import ServerStartError
from testbed.traffic.index import Index, IndexUnreadable


def call(url: str, method: str, path: str, body: object = None, timeout_s: float = 30) -> Any:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        return json.load(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.skipif(bool(os.environ.get(GIVEN_URL)), reason="a given server may have any version")
def test_shared_server_has_the_pinned_version(opensearch: OpenSearchAddress) -> None:
    assert call(opensearch.url, "GET", "/")["version"]["number"] == VERSION


def test_documents_outlive_a_kill(own_opensearch: OpenSearchServer) -> None:
    url = own_opensearch.url
    assert call(url, "PUT", "/events/_doc/1", {"level": "warn"})["result"] == "created"

    own_opensearch.kill()
    with pytest.raises(ConnectionRefusedError):
        call(url, "GET", "/")
    own_opensearch.start()

    assert own_opensearch.url == url
    assert call(url, "GET", "/events/_doc/1")["_source"] == {"level": "warn"}


def test_paused_server_answers_nothing_until_it_is_resumed(own_opensearch: OpenSearchServer) -> None:
    own_opensearch.pause()
    with pytest.raises(TimeoutError):
        call(own_opensearch.url, "GET", "/", timeout_s=0.5)
    own_opensearch.resume()
    own_opensearch.wait_ready(timeout_s=30)

    assert "version" in call(own_opensearch.url, "GET", "/")


def test_no_thread_of_a_paused_server_runs_any_more(own_opensearch: OpenSearchServer) -> None:
    for _ in range(20):
        own_opensearch.pause()
        states = thread_states(own_opensearch.pid)
        own_opensearch.resume()
        assert states == {"T"}


def test_server_that_was_changed_filled_and_killed_is_empty_again(own_opensearch: OpenSearchServer) -> None:
    url = own_opensearch.url
    call(url, "PUT", "/events/_doc/1", {"level": "warn"})
    call(url, "PUT", "/_index_template/others", {"index_patterns": ["others"], "priority": 500, "data_stream": {}})
    call(url, "PUT", "/_data_stream/others")
    call(url, "PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.read_only": True}})
    own_opensearch.pause()
    own_opensearch.reset()
    assert call(url, "GET", "/_cluster/settings") == {"persistent": {}, "transient": {}}
    assert call(url, "GET", "/_index_template") == {"index_templates": []}
    assert call(url, "GET", "/_cat/indices?format=json") == []

    call(url, "PUT", "/events/_doc/1", {"level": "warn"})
    own_opensearch.kill()
    own_opensearch.reset()
    assert call(url, "GET", "/_cat/indices?format=json") == []


def test_setting_that_opensearch_refuses_is_shown_from_its_log(start_opensearch: StartOpenSearch) -> None:
    with pytest.raises(ServerStartError, match=r"unknown setting \[no\.such\.setting\]"):
        start_opensearch({"no.such.setting": "1"})


async def test_documents_of_an_index_whose_shard_is_still_starting_are_waited_for(
    own_opensearch: OpenSearchServer,
) -> None:
    url = own_opensearch.url
    halted, free = ({"persistent": {"cluster.routing.allocation.enable": value}} for value in ("none", None))
    index = Index(url, "starting")
    await asyncio.to_thread(call, url, "PUT", "/_cluster/settings", halted)
    await asyncio.to_thread(call, url, "PUT", "/events_starting_1?wait_for_active_shards=0", {})

    reading = asyncio.create_task(_read_all(index))
    answer = await asyncio.to_thread(call, url, "POST", "/events_starting_*/_search", {})
    assert answer["status"] == 503
    assert not reading.done()
    await asyncio.to_thread(call, url, "PUT", "/_cluster/settings", free)
    assert await reading == []
    await asyncio.to_thread(call, url, "PUT", "/events_starting_1/_doc/1?refresh=true", {"level": "warn"})
    assert await _read_all(index) == [("1", {"level": "warn"})]


async def test_search_that_opensearch_refuses_is_told_with_its_words(opensearch: OpenSearchAddress) -> None:
    with pytest.raises(IndexUnreadable, match=r"400: .*invalid_index_name"):
        await _read_all(Index(opensearch.url, "a,_b"))


async def _read_all(index: Index) -> list[tuple[str, dict[str, Any]]]:
    return [document async for document in index.documents()]
