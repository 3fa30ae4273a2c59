"""The real OpenSearch of the tests is one, and does what the tests that kill and pause it rely on."""

import json
import os
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.servers.fixtures import GIVEN_URL, OpenSearchAddress, StartOpenSearch
from testbed.servers.opensearch import OpenSearchStartError
from testbed.servers.opensearch_install import VERSION


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


def test_documents_outlive_a_kill(own_opensearch: StartOpenSearch) -> None:
    server = own_opensearch()
    url = server.url
    assert call(url, "PUT", "/events/_doc/1", {"level": "warn"})["result"] == "created"

    server.kill()
    with pytest.raises(ConnectionRefusedError):
        call(url, "GET", "/")
    server.start()

    assert server.url == url
    assert call(url, "GET", "/events/_doc/1")["_source"] == {"level": "warn"}


def test_paused_server_answers_nothing_until_it_is_resumed(own_opensearch: StartOpenSearch) -> None:
    server = own_opensearch()

    server.pause()
    with pytest.raises(TimeoutError):
        call(server.url, "GET", "/", timeout_s=0.5)
    server.resume()
    server.wait_ready(timeout_s=30)

    assert "version" in call(server.url, "GET", "/")


def test_setting_that_opensearch_refuses_is_shown_from_its_log(own_opensearch: StartOpenSearch) -> None:
    with pytest.raises(OpenSearchStartError, match=r"unknown setting \[no\.such\.setting\]"):
        own_opensearch({"no.such.setting": "1"})
