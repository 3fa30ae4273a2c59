"""All events go through an ingest pipeline of a real OpenSearch: what it drops is dropped, what it refuses may wait."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.doctor.finding import Level
from forebay.settings import Settings
from forebay.spool.beside.all_spools import AllSpools
from forebay.spool.beside.inspection import Choice
from testbed.servers.distribution import ServerUnavailableError
from testbed.servers.fixtures import report_missing
from testbed.servers.forebay import ForebayServer
from testbed.servers.ingest_processors import install_with_processors
from testbed.servers.observing import log_lines, read_metrics
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.opensearch_admin import call
from testbed.traffic.index import Index
from testbed.traffic.requests import Client, event
from testbed.traffic.ubi import Shop, make_event
from unit.doctor.contexts import check_opensearch

ARRIVAL_S = 60
PAGE = "event_info.page"


@pytest.fixture(scope="module")
def processing() -> Iterator[OpenSearchServer]:
    """An OpenSearch with processors."""
    try:
        home = install_with_processors()
    except ServerUnavailableError as error:
        missing = str(error)
    else:
        with OpenSearchServer(home) as server:
            server.start()
            yield server
        return
    report_missing(missing)


class Site:
    """A Forebay whose events all go through one pipeline.

    Attributes:
        pipeline: its name.
    """

    def __init__(self, opensearch: OpenSearchServer, folder: Path) -> None:
        self._url = opensearch.url
        self.pipeline = f"pipeline-{uuid.uuid4().hex[:8]}"
        self._environment = f"ingest-{uuid.uuid4().hex[:8]}"
        self.server = ForebayServer(
            folder,
            {
                "OPEN_SEARCH_DNS": opensearch.url,
                "SERVER_ENVIRONMENT": self._environment,
                "FOREBAY_OPEN_SEARCH_PIPELINE": self.pipeline,
                "FOREBAY_METRICS_OPEN": "true",
                "FOREBAY_BULK_INTERVAL_S": "0.2",
                "FOREBAY_RETRY_DELAY_S_MAX": "0.5",
                "FOREBAY_RETRY_INTERVAL_S": "0.3",
            },
        )

    async def put(self, *processors: dict[str, Any]) -> None:
        """Put the pipeline in place, or another in its place."""
        await call(self._url, "PUT", f"/_ingest/pipeline/{self.pipeline}", {"processors": list(processors)})

    def send(self, *pages: str) -> None:
        client = Client(self.server)
        for page in pages:
            assert client.post("/events", event(page=page)).status == 200

    async def read(self, wanted: int) -> list[dict[str, Any]]:
        """Wait for so many documents, and return them; one too many is an error."""
        index = Index(self._url, self._environment)
        await index.wait_count(wanted, ARRIVAL_S)
        found = [document async for _, document in index.documents()]
        assert len(found) == wanted
        return found

    def outcomes(self, name: str) -> float:
        return read_metrics(self.server).get(f'forebay_outcomes_total{{outcome="{name}"}}', 0)

    async def wait_outcome(self, name: str, wanted: float) -> None:
        deadline = time.monotonic() + ARRIVAL_S
        while self.outcomes(name) < wanted:
            assert time.monotonic() < deadline, (name, self.outcomes(name), self.server.log[-2_000:])
            await asyncio.sleep(0.1)

    def dead(self) -> list[Any]:
        spools = AllSpools(self.server.folder / "spool.db")
        return [found.letter for found in spools.list_dead(Choice(), 100)]


@pytest.fixture
def site(processing: OpenSearchServer, tmp_path: Path) -> Iterator[Site]:
    site = Site(processing, tmp_path)
    yield site
    site.server.close()


async def test_every_event_goes_through_it(site: Site, processing: OpenSearchServer) -> None:
    await site.put({"mark": {"field": "enriched", "value": "yes"}})
    site.server.start()
    site.send("/a", "/b")
    Shop(site.server).track_event(make_event("click", "c1", "q1", marker=site.pipeline))
    assert [document["enriched"] for document in await site.read(2)] == ["yes", "yes"]
    await site.wait_outcome("delivered", 3)
    await call(processing.url, "POST", "/ubi_events/_refresh")
    query = {"query": {"term": {"marker.keyword": site.pipeline}}}
    (hit,) = (await call(processing.url, "POST", "/ubi_events/_search", query))["hits"]["hits"]
    assert hit["_source"]["enriched"] == "yes"


async def test_what_it_drops_is_settled_and_told(site: Site) -> None:
    await site.put({"drop_if": {"field": PAGE, "value": "/drop"}})
    site.server.start()
    site.send("/a", "/drop", "/b", "/drop", "/drop")
    await site.wait_outcome("dropped", 3)
    assert {document["event_info"]["page"] for document in await site.read(2)} == {"/a", "/b"}
    assert not AllSpools(site.server.folder / "spool.db").summarize().totals.events
    assert site.dead() == []


async def test_if_it_drops_all_nothing_waits(site: Site) -> None:
    await site.put({"drop_if": {"field": PAGE, "value": "/drop"}})
    site.server.start()
    site.send(*["/drop"] * 5)
    await site.wait_outcome("dropped", 5)
    assert not AllSpools(site.server.folder / "spool.db").summarize().totals.events


async def test_events_that_it_fails_for_are_dead_letters_once_others_were_taken_often_enough(site: Site) -> None:
    await site.put({"fail_if": {"field": PAGE, "value": "/fail"}})
    site.server.start()
    site.send("/a", "/fail", "/b")
    taken = 2
    deadline = time.monotonic() + ARRIVAL_S
    while not site.dead():
        assert time.monotonic() < deadline
        # Those that are taken are the evidence that the pipeline works.
        site.send("/more")
        taken += 1
        await asyncio.sleep(0.2)
    (letter,) = site.dead()
    assert json.loads(letter.entry.splitlines()[1])["event_info"]["page"] == "/fail"
    assert "the pipeline fails for /fail" in letter.reason
    assert letter.history.attempts >= 10
    await site.read(taken)


async def test_if_it_fails_for_all_they_wait_and_arrive_once_it_is_mended(site: Site) -> None:
    await site.put({"fail_if": {"field": PAGE, "value": "/a"}})
    site.server.start()
    site.send(*["/a"] * 20)
    await site.wait_outcome("refused", 40)
    assert site.dead() == []
    assert await site.read(0) == []
    await site.put()
    await site.read(20)


async def test_while_it_is_missing_events_wait_and_the_cause_is_named(site: Site) -> None:
    site.server.start()
    site.send("/a", "/b", "/c")
    await site.wait_outcome("pause", 3)
    (hold, *_) = log_lines(site.server, "index_on_hold")
    assert f"pipeline with id [{site.pipeline}] does not exist" in hold["cause"]
    assert "FOREBAY_OPEN_SEARCH_PIPELINE" in hold["advice"]
    await asyncio.sleep(2)
    assert site.dead() == []
    assert await site.read(0) == []
    await site.put()
    assert len(await site.read(3)) == 3


async def test_the_doctor_misses_it(processing: OpenSearchServer) -> None:
    name = f"pipeline-{uuid.uuid4().hex[:8]}"
    settings = Settings(OPEN_SEARCH_DNS=processing.url, open_search_pipeline=name, _env_file=None)
    (found,) = [finding for finding in await check_opensearch(settings) if finding.subject == "pipeline"]
    assert (found.level, name in found.text) == (Level.FAIL, True)
    await call(processing.url, "PUT", f"/_ingest/pipeline/{name}", {"processors": []})
    (found,) = [finding for finding in await check_opensearch(settings) if finding.subject == "pipeline"]
    assert found.level is Level.OK


async def test_without_the_setting_no_pipeline_is_named(processing: OpenSearchServer) -> None:
    settings = Settings(OPEN_SEARCH_DNS=processing.url, _env_file=None)
    assert [finding for finding in await check_opensearch(settings) if finding.subject == "pipeline"] == []
