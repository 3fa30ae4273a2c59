"""OpenSearch as one object: its parts, and the delivery of bulks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

import structlog
from msgspec import Raw

from forebay.errors import AnswerTooLarge, OperatorNeeded, SinkUnreachable
from forebay.model import Entry, Outcome, SameOutcome, Verdict, entry_index, entry_without_id, join_entries
from forebay.settings import Settings
from forebay.sinks.months import StoredMonth, index_of
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.opensearch.answers import FILTER_PATH, read_answer
from forebay.sinks.opensearch.check import check_access
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.indices import OpenSearchMonths
from forebay.sinks.opensearch.reader import OpenSearchReader
from forebay.sinks.opensearch.refusals import retry
from forebay.sinks.opensearch.repair import OVERWHELMING_BYTES_MIN, may_overwhelm, repair
from forebay.sinks.opensearch.template import EVENTS
from forebay.sinks.opensearch.templates import Templates
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES
from forebay.sinks.port import Query, SinkCheck

log = structlog.get_logger("forebay.opensearch")

SHARDS_WAIT = 0.4
"""The share of our timeout for which OpenSearch may wait for a shard. It can wait twice, for an index to be made and
for the shard. By default it waits a minute each time; by then we would not read its answer about the other events of
the bulk any more."""


class OpenSearchSink:
    """A `Sink`. No event goes before the template of its index is in place (`Templates`)."""

    def __init__(self, settings: Settings) -> None:
        self.location = "OpenSearch at " + ", ".join(host.url for host in settings.open_search_dns)
        self._access = make_access(settings)
        self._environment = settings.server_environment
        self._client = OpenSearchClient(self._access, settings.bulk_timeout_s, settings.bulk_workers)
        self._reader = OpenSearchReader(self._access, self._environment)
        self._months = OpenSearchMonths(self._access, self._environment)
        wait_ms = max(1, round(settings.bulk_timeout_s * SHARDS_WAIT * 1000))
        self._path = f"/_bulk?filter_path={FILTER_PATH}&timeout={wait_ms}ms"
        if settings.open_search_pipeline is not None:
            self._path += f"&pipeline={settings.open_search_pipeline}"
        self._sends_ids = not settings.open_search_auto_id
        self._templates = Templates(self._client, is_wanted=settings.index_template)

    async def open(self) -> None:
        """Put the index template in place, if OpenSearch is there already."""
        try:
            await self._templates.ensure()
        except SinkUnreachable as error:
            log.warning("sink_unreachable", cause=str(error), consequence="events wait in the spool")

    async def prepare(self, *, with_ubi: bool = False) -> str:
        """Put index templates in place, also with FOREBAY_INDEX_TEMPLATE=false."""
        return await self._templates.prepare([EVENTS, *(UBI_TEMPLATES.values() if with_ubi else ())])

    def expect(self, index: str) -> None:
        """Look for the template before the next bulk if the index is new to this process."""
        self._templates.expect(index)

    async def deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        """Return the outcome of each entry."""
        sent = await _repair_overwhelming(entries)
        if not self._sends_ids:
            sent = [entry_without_id(entry) for entry in sent]
        try:
            waiting = await self._templates.ensure(sent)
        except SinkUnreachable as error:
            return SameOutcome(_outcome(error, whole=True), len(entries))
        outcomes = await (self._deliver_others(sent, waiting) if waiting else self._deliver(sent))
        if not outcomes[0].whole:
            self._templates.answered()
        elif not outcomes[0].is_too_large:
            self._templates.failed()
        return outcomes

    def repair(self, entry: Entry) -> Entry:
        """Return an entry in a form that OpenSearch takes; the same one if it is in it already."""
        return repair(entry, is_refused=True)

    async def search(self, query: Query) -> list[Raw]:
        """Return documents, newest `received_at` first."""
        return await self._reader.search(query)

    async def count(self, query: Query) -> int:
        """Count documents."""
        return await self._reader.count(query)

    async def list_months(self) -> list[StoredMonth]:
        """Return the indices, oldest first."""
        return await self._months.list_months()

    async def delete_month(self, index: str) -> None:
        """Delete an index."""
        await self._months.delete_month(index)

    async def check(self) -> SinkCheck:
        """Ask each host whether it is an OpenSearch that knows us, and one that is whether we may write this month."""
        return await check_access(self._access, index_of(self._environment, datetime.now(UTC), 0))

    async def close(self) -> None:
        """Close the connections."""
        await self._templates.close()
        for part in (self._reader, self._months, self._client):
            await part.close()

    async def _deliver_others(self, entries: list[Entry], waiting: Mapping[str, OperatorNeeded]) -> Sequence[Outcome]:
        """Deliver all entries but those of indices that are to wait."""
        outcomes = [_outcome(waiting[index]) if (index := entry_index(entry)) in waiting else None for entry in entries]
        going = [entry for entry, outcome in zip(entries, outcomes, strict=True) if outcome is None]
        found = await self._deliver(going) if going else []
        if going and found[0].whole:
            return SameOutcome(found[0], len(entries))
        rest = iter(found)
        return [outcome or next(rest) for outcome in outcomes]

    async def _deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        try:
            answer = await self._client.request("POST", self._path, join_entries(entries), "application/x-ndjson")
        except AnswerTooLarge as error:
            # The answer is shorter for fewer events. For one event alone nobody knows more.
            if len(entries) == 1:
                return [retry(error.error_type, str(error), whole=True)]
            status = int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            outcome = Outcome(
                Verdict.REFUSED, error.error_type, str(error), whole=True, status=status, is_too_large=True
            )
            return SameOutcome(outcome, len(entries))
        except SinkUnreachable as error:
            return SameOutcome(_outcome(error, whole=True), len(entries))
        return read_answer(answer.status, answer.body, len(entries))


async def _repair_overwhelming(entries: list[Entry]) -> list[Entry]:
    """Repair the entries that may use up OpenSearch's memory: it would not refuse them, it would crash."""
    # Nearly no bulk has one so large, and the length of the largest is found most quickly.
    if max(map(len, entries)) < OVERWHELMING_BYTES_MIN or not any(map(may_overwhelm, entries)):
        return entries
    # In a thread, as a repair would hold up the event loop.
    return await asyncio.to_thread(lambda: [repair(entry) if may_overwhelm(entry) else entry for entry in entries])


def _outcome(error: SinkUnreachable, *, whole: bool = False) -> Outcome:
    if isinstance(error, OperatorNeeded):
        return Outcome(Verdict.PAUSE, error.error_type, str(error), error.advice, whole=whole)
    return retry(error.error_type, str(error), whole=whole)
