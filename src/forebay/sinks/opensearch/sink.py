"""Delivers bulks to OpenSearch."""

from __future__ import annotations

import asyncio

import structlog

from forebay.errors import SinkUnreachable
from forebay.model import Entry, Outcome, Verdict, join_entries
from forebay.settings import Settings
from forebay.sinks.opensearch.answers import FILTER_PATH, read_answer
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.template import TemplateRefused, ensure_template

log = structlog.get_logger("forebay.opensearch")

BULK_PATH = f"/_bulk?filter_path={FILTER_PATH}"


class OpenSearchSink:
    """A `Sink`.

    No bulk goes before the index template is in place: a month's first document would otherwise make an index with a
    mapping guessed from it, which cannot be changed afterwards.
    """

    def __init__(self, settings: Settings) -> None:
        self.place = "OpenSearch at " + ", ".join(host.url for host in settings.open_search_dns)
        self._client = OpenSearchClient(settings.open_search_dns, settings.bulk_timeout_s, settings.bulk_workers)
        self._needs_template = settings.index_template
        self._template_lock = asyncio.Lock()

    async def open(self) -> None:
        """Put the index template in place, if OpenSearch is there already."""
        try:
            await self._prepare()
        except SinkUnreachable as error:
            log.warning("sink_unreachable", cause=str(error), consequence="events wait in the spool")

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        """Return what became of each entry: split where the bulk as a whole was refused, down to one event."""
        try:
            await self._prepare()
            answer = await self._client.request("POST", BULK_PATH, join_entries(entries), "application/x-ndjson")
        except TemplateRefused as error:
            return [Outcome(Verdict.PAUSE, "template_refused", str(error))] * len(entries)
        except SinkUnreachable as error:
            return [Outcome(Verdict.RETRY, "unreachable", str(error))] * len(entries)
        result = read_answer(answer.status, answer.body, len(entries))
        if isinstance(result, list):
            return result
        fault, outcome_alone = result
        if len(entries) == 1:
            return [outcome_alone]
        log.info("bulk_split", events=len(entries), fault=fault.value)
        middle = len(entries) // 2
        return await self.deliver(entries[:middle]) + await self.deliver(entries[middle:])

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _prepare(self) -> None:
        if not self._needs_template:
            return
        async with self._template_lock:
            if await ensure_template(self._client):
                log.info("index_template_put")
            self._needs_template = False
