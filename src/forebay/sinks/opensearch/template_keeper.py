"""Keeps the index template in place ahead of the bulks, also if OpenSearch comes back without its data.

A document that makes an index without the template leaves it with a mapping guessed from that document, which cannot be
changed afterwards: good events would become dead letters.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic

import structlog

from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.template import ensure_template

log = structlog.get_logger("forebay.opensearch")

HOLDS_S = 1.0
"""How long it holds after an answer that the template is in place. An OpenSearch that lost its data was started anew
since, which takes it longer, the time in which we wait for a connection to it included. The connection itself tells
nothing: a proxy keeps the one to us."""

INDICES_MAX = 64
"""How many indices are remembered: one for each month of five years. Beyond, all are forgotten, and asked for again."""


class TemplateKeeper:
    """Looks for the template, and puts it where it is missing, before a bulk that may make an index without it.

    That is every bulk with an index that no bulk had before, and every bulk after a failure or a quiet time. To be told
    by `answered` and `failed` what comes of the bulks.
    """

    def __init__(self, client: OpenSearchClient, *, is_wanted: bool) -> None:
        self._client = client
        self._is_wanted = is_wanted
        self._holds_until_s = -math.inf
        self._has_failed = False
        self._indices: set[str] = set()
        self._attempt: asyncio.Task[None] | None = None

    def expect(self, index: str) -> None:
        """Take note that the next bulk has events of an index: of a new one nothing is known."""
        if index not in self._indices:
            self._holds_until_s = -math.inf
            if len(self._indices) >= INDICES_MAX:
                self._indices.clear()
            self._indices.add(index)

    async def ensure(self) -> None:
        """Return once the template is in place; bulks that wait share what comes of one attempt.

        Raises:
            OperatorNeeded: OpenSearch refuses the template.
            SinkUnreachable: OpenSearch does not answer, or is not able to.
        """
        if not self._is_wanted:
            return
        if monotonic() < self._holds_until_s:
            return
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._look())
            self._attempt.add_done_callback(self._end_attempt)
        # One bulk that is cancelled does not end the attempt of the others.
        await asyncio.shield(self._attempt)

    def answered(self) -> None:
        """Record that OpenSearch answered a bulk: what holds holds on, and what lapsed stays so."""
        now_s = monotonic()
        if now_s < self._holds_until_s:
            self._holds_until_s = now_s + HOLDS_S

    def failed(self) -> None:
        """Record that a bulk was not answered, or refused as a whole: nothing is known any more."""
        self._holds_until_s = -math.inf
        self._has_failed = True

    async def close(self) -> None:
        """End an attempt that is under way."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])

    async def _look(self) -> None:
        self._holds_until_s = -math.inf
        while True:
            self._has_failed = False
            if await ensure_template(self._client):
                log.info("index_template_put")
            # A bulk that failed meanwhile may tell of an OpenSearch that answered us and then went away.
            if not self._has_failed:
                break
        self._holds_until_s = monotonic() + HOLDS_S

    def _end_attempt(self, task: asyncio.Task[None]) -> None:
        self._attempt = None
        if not task.cancelled():
            # Asked for here, as nobody may be waiting for it any more.
            task.exception()
