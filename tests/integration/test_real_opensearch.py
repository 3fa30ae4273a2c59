"""The real OpenSearch of the tests can be killed, paused and emptied, as other tests rely on."""

import json
import os
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.servers.fixtures import GIVEN_URL, OpenSearchAddress, StartOpenSearch
from testbed.servers.opensearch import OpenSearchServer, OpenSearchStartError
from testbed.servers.opensearch_install import VERSION
from testbed.servers.process_usage import thread_states


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
    with pytest.raises(OpenSearchStartError, match=r"unknown setting \[no\.such\.setting\]"):
        start_opensearch({"no.such.setting": "1"})
