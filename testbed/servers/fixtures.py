"""Fixtures that hand a real OpenSearch to a test."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from testbed.servers.certificates import Authority, Pair
from testbed.servers.nginx import NginxMissingError, NginxServer
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.opensearch_install import OpenSearchUnavailableError

GIVEN_URL = "FOREBAY_TEST_OPENSEARCH_URL"


@dataclass(frozen=True)
class OpenSearchAddress:
    """Where the shared server is: no more than that, since no test may stop it."""

    url: str


class StartOpenSearch(Protocol):
    """Starts a server that belongs to one test; each call starts another one."""

    def __call__(self, extra_settings: Mapping[str, str] | None = None) -> OpenSearchServer: ...


@pytest.fixture(scope="session")
def opensearch_home() -> Path:
    """The folder of an unpacked OpenSearch."""
    try:
        return OpenSearchServer.install()
    except OpenSearchUnavailableError as error:
        missing = str(error)
    return report_missing(missing)


@pytest.fixture(scope="session")
def opensearch(request: pytest.FixtureRequest) -> Iterator[OpenSearchAddress]:
    """The server that the tests share; a test must use index names of its own."""
    given_url = os.environ.get(GIVEN_URL)
    if given_url:
        yield OpenSearchAddress(given_url.rstrip("/"))
        return
    with OpenSearchServer(request.getfixturevalue("opensearch_home")) as server:
        server.start()
        yield OpenSearchAddress(server.url)


@pytest.fixture
def own_opensearch(opensearch_home: Path) -> Iterator[StartOpenSearch]:
    """Starts servers for a test that kills, pauses or misconfigures them."""
    with ExitStack() as servers:

        def start(extra_settings: Mapping[str, str] | None = None) -> OpenSearchServer:
            server = servers.enter_context(OpenSearchServer(opensearch_home))
            server.start(extra_settings)
            return server

        yield start


class StartNginx(Protocol):
    """Starts an nginx before an upstream server; each call starts another one."""

    def __call__(
        self, upstream: str, directives: str = "", location: str = "", certificate: Pair | None = None
    ) -> NginxServer: ...


@pytest.fixture
def nginx() -> Iterator[StartNginx]:
    """Starts proxies for a test."""
    with ExitStack() as servers:

        def start(
            upstream: str, directives: str = "", location: str = "", certificate: Pair | None = None
        ) -> NginxServer:
            try:
                return servers.enter_context(NginxServer(upstream, directives, location, certificate))
            except NginxMissingError as error:
                missing = str(error)
            return report_missing(missing)

        yield start


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority of this test alone."""
    return Authority(tmp_path)


def report_missing(missing: str) -> NoReturn:
    """Skip the test, or fail it where all are meant to run."""
    # Where the checks are meant to be complete, a test that cannot run is a failure.
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
