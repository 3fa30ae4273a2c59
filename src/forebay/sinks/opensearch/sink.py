"""Delivers bulks to OpenSearch."""

from __future__ import annotations

import asyncio

import structlog

from forebay.errors import AnswerTooLarge, OperatorNeeded, SinkUnreachable
from forebay.model import Entry, Outcome, Verdict, entry_without_id, join_entries
from forebay.settings import Settings
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.opensearch.answers import FILTER_PATH, HTTP_TOO_LARGE, read_answer
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.repair import OVERWHELMING_BYTES_MIN, may_overwhelm, repair
from forebay.sinks.opensearch.template_keeper import TemplateKeeper

log = structlog.get_logger("forebay.opensearch")

SHARDS_WAIT = 0.4
"""How much of our patience OpenSearch may spend on waiting for a shard. It can wait twice, for an index to be made and
for the shard. Left to itself it waits a minute each time, when we would have stopped listening to what it says of the
other events of the bulk."""


class OpenSearchSink:
    """A `Sink`. No bulk goes before the index template is in place (`TemplateKeeper`)."""

    def __init__(self, settings: Settings) -> None:
        self.place = "OpenSearch at " + ", ".join(host.url for host in settings.open_search_dns)
        self._client = OpenSearchClient(make_access(settings), settings.bulk_timeout_s, settings.bulk_workers)
        wait_ms = max(1, round(settings.bulk_timeout_s * SHARDS_WAIT * 1000))
        self._path = f"/_bulk?filter_path={FILTER_PATH}&timeout={wait_ms}ms"
        self._sends_ids = not settings.open_search_auto_id
        self._template = TemplateKeeper(self._client, is_wanted=settings.index_template)

    async def open(self) -> None:
        """Put the index template in place, if OpenSearch is there already."""
        try:
            await self._template.ensure()
        except SinkUnreachable as error:
            log.warning("sink_unreachable", cause=str(error), consequence="events wait in the spool")

    def expect(self, index: str) -> None:
        """Look for the template before the next bulk if the index is new to this process."""
        self._template.expect(index)

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        """Return what became of each entry."""
        sent = await _spare(entries)
        if not self._sends_ids:
            sent = [entry_without_id(entry) for entry in sent]
        try:
            await self._template.ensure()
        except SinkUnreachable as error:
            return [_outcome(error)] * len(entries)
        outcomes = await self._deliver(sent)
        if not outcomes[0].whole:
            self._template.answered()
        elif not outcomes[0].is_too_large:
            self._template.failed()
        return outcomes

    def repair(self, entry: Entry) -> Entry:
        """Return an entry in a form that OpenSearch takes; the same one if it is in it already."""
        return repair(entry)

    async def close(self) -> None:
        """Close the connections."""
        await self._template.close()
        await self._client.close()

    async def _deliver(self, entries: list[Entry]) -> list[Outcome]:
        try:
            answer = await self._client.request("POST", self._path, join_entries(entries), "application/x-ndjson")
        except AnswerTooLarge as error:
            # Of fewer events it says less. For one event alone nobody knows more.
            is_refused = len(entries) > 1
            verdict, status = (Verdict.REFUSED, HTTP_TOO_LARGE) if is_refused else (Verdict.RETRY, 0)
            outcome = Outcome(verdict, error.error_type, str(error), whole=True, status=status, is_too_large=is_refused)
            return [outcome] * len(entries)
        except SinkUnreachable as error:
            return [_outcome(error)] * len(entries)
        return read_answer(answer.status, answer.body, len(entries))


async def _spare(entries: list[Entry]) -> list[Entry]:
    """Return entries with those repaired that OpenSearch may end over: it would never refuse them."""
    large = [entry for entry in entries if len(entry) >= OVERWHELMING_BYTES_MIN]
    if not any(map(may_overwhelm, large)):
        return entries
    # The event loop has no time for it.
    return await asyncio.to_thread(lambda: [repair(entry) if may_overwhelm(entry) else entry for entry in entries])


def _outcome(error: SinkUnreachable) -> Outcome:
    if isinstance(error, OperatorNeeded):
        return Outcome(Verdict.PAUSE, error.error_type, str(error), error.advice, whole=True)
    return Outcome(Verdict.RETRY, error.error_type, str(error), whole=True)
