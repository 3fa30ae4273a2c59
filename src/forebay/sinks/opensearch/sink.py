"""Delivers bulks to OpenSearch."""

from __future__ import annotations

from operator import attrgetter

import structlog

from forebay.errors import AnswerTooLarge, OperatorNeeded, SinkUnreachable
from forebay.model import UNEXPECTED_ANSWER, Entry, Outcome, Verdict, entry_without_id, join_entries
from forebay.settings import Settings
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.opensearch.answers import FILTER_PATH, read_answer
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.template_keeper import TemplateKeeper

log = structlog.get_logger("forebay.opensearch")

SHARDS_WAIT = 0.4
"""How much of our patience OpenSearch may spend on waiting for a shard. It can wait twice, for an index to be made and
for the shard. Left to itself it waits a minute each time, when we would have stopped listening to what it says of the
other events of the bulk."""

_is_whole = attrgetter("whole")


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
            await self._template.ensure(())
        except SinkUnreachable as error:
            log.warning("sink_unreachable", cause=str(error), consequence="events wait in the spool")

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        """Return what became of each entry: split where the bulk as a whole was refused, down to one event."""
        sent = entries if self._sends_ids else [entry_without_id(entry) for entry in entries]
        try:
            await self._template.ensure(entries)
        except SinkUnreachable as error:
            return [_outcome(error)] * len(entries)
        outcomes = await self._deliver(sent)
        if any(map(_is_whole, outcomes)):
            self._template.failed()
        else:
            self._template.answered()
        return outcomes

    async def close(self) -> None:
        """Close the connections."""
        await self._template.close()
        await self._client.close()

    async def _deliver(self, entries: list[Entry]) -> list[Outcome]:
        try:
            answer = await self._client.request("POST", self._path, join_entries(entries), "application/x-ndjson")
        except AnswerTooLarge as error:
            # Of fewer events it says less.
            return await self._split(entries, error.error_type, _outcome(error))
        except SinkUnreachable as error:
            return [_outcome(error)] * len(entries)
        result = read_answer(answer.status, answer.body, len(entries))
        if isinstance(result, list):
            return result
        fault, outcome_alone = result
        return await self._split(entries, fault.value, outcome_alone)

    async def _split(self, entries: list[Entry], fault: str, outcome_alone: Outcome) -> list[Outcome]:
        if len(entries) == 1:
            return [outcome_alone]
        log.info("bulk_split", events=len(entries), fault=fault)
        middle = len(entries) // 2
        first = await self._deliver(entries[:middle])
        last = first[-1]
        # A sink that has gone away meanwhile would cost its time-out again for every part that is still to come.
        if last.whole and last.error_type != UNEXPECTED_ANSWER:
            return first + [last] * (len(entries) - middle)
        return first + await self._deliver(entries[middle:])


def _outcome(error: SinkUnreachable) -> Outcome:
    if isinstance(error, OperatorNeeded):
        return Outcome(Verdict.PAUSE, error.error_type, str(error), error.advice, whole=True)
    return Outcome(Verdict.RETRY, error.error_type, str(error), whole=True)
