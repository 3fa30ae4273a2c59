"""Fixtures that hand a real Forebay to the tests of the intake: three servers for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from testbed.servers.forebay import ForebayServer
from testbed.traffic.requests import Client

BODY_BYTES_MAX = 300_000
HEADER_BYTES_MAX = 8_192
BATCH_EVENTS_MAX = 50
LIMITS = {
    "FOREBAY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
    "FOREBAY_HEADER_BYTES_MAX": str(HEADER_BYTES_MAX),
    "FOREBAY_BATCH_EVENTS_MAX": str(BATCH_EVENTS_MAX),
    "FOREBAY_BULK_INTERVAL_S": "0.1",
}


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with small size limits and the default time limits."""
    with ForebayServer(tmp_path_factory.mktemp("server"), LIMITS) as server:
        server.start()
        yield Client(server)


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with short time limits."""
    settings = {**LIMITS, "FOREBAY_REQUEST_TIMEOUT_S": "0.5", "FOREBAY_KEEP_ALIVE_S": "0.5"}
    with ForebayServer(tmp_path_factory.mktemp("hasty"), settings) as server:
        server.start()
        yield Client(server)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with the settings that are off elsewhere."""
    settings = {
        **LIMITS,
        "FOREBAY_REQUIRE_LOG_ID": "true",
        "FOREBAY_OLDEST_MONTH": f"{datetime.now(UTC):%Y-%m}",
        "FOREBAY_METRICS_OPEN": "true",
        "FOREBAY_ACK": "memory",
        "FOREBAY_LOG_FORMAT": "text",
    }
    with ForebayServer(tmp_path_factory.mktemp("other"), settings) as server:
        server.start()
        yield Client(server)
