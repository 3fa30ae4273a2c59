"""Fixtures that hand a real OpenSearch, an nginx before one, or a Keycloak to a test.

A start takes OpenSearch ten seconds of a core, so the tests share two: one that nobody may stop, and one with which a
test may do anything. The tests of the second run one after the other, in one process.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from testbed.servers.certificates import Authority, Pair
from testbed.servers.distribution import ServerUnavailableError
from testbed.servers.keycloak import KeycloakServer
from testbed.servers.nginx import NginxMissingError, NginxServer
from testbed.servers.opensearch import OpenSearchServer

GIVEN_URL = "FOREBAY_TEST_OPENSEARCH_URL"
ONE_PROCESS = pytest.mark.xdist_group("own OpenSearch")
"""For the tests of `own_opensearch`, however many processes run tests."""


@dataclass(frozen=True)
class OpenSearchAddress:
    """The address of the shared server. It gives no way to stop it, since no test may."""

    url: str


class StartOpenSearch(Protocol):
    """Starts a server that belongs to one test; each call starts another one."""

    def __call__(self, extra_settings: Mapping[str, str]) -> OpenSearchServer: ...


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Make a folder whose path leaves room for Unix sockets, as pytest's own folders may not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "own_opensearch" in item.fixturenames:
            item.add_marker(ONE_PROCESS)


@pytest.fixture(scope="session")
def opensearch_home() -> Path:
    """The folder of an unpacked OpenSearch."""
    try:
        return OpenSearchServer.install()
    except ServerUnavailableError as error:
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


@pytest.fixture(scope="session")
def breakable_opensearch(opensearch_home: Path) -> Iterator[OpenSearchServer]:
    """The server behind `own_opensearch`, as the last test left it."""
    with OpenSearchServer(opensearch_home) as server:
        yield server


@pytest.fixture
def own_opensearch(breakable_opensearch: OpenSearchServer) -> OpenSearchServer:
    """A running, empty server that the test may kill, pause and change as it likes."""
    breakable_opensearch.reset()
    return breakable_opensearch


@pytest.fixture
def start_opensearch(opensearch_home: Path) -> Iterator[StartOpenSearch]:
    """Starts servers with settings that cannot be changed while a server runs."""
    with ExitStack() as servers:

        def start(extra_settings: Mapping[str, str]) -> OpenSearchServer:
            server = servers.enter_context(OpenSearchServer(opensearch_home))
            server.start(extra_settings)
            return server

        yield start


@pytest.fixture(scope="session")
def keycloak() -> Iterator[KeycloakServer]:
    """The identity provider of a run, as tests of other modules come in between; a test leaves it running."""
    try:
        home = KeycloakServer.install()
    except ServerUnavailableError as error:
        missing = str(error)
    else:
        with KeycloakServer(home) as server:
            server.start()
            yield server
        return
    report_missing(missing)


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
    """An authority that only this test uses."""
    return Authority(tmp_path)


def report_missing(missing: str) -> NoReturn:
    """Skip the test. On CI, where every test must run, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
