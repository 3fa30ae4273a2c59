"""Keeps an index template in place ahead of the bulks, also if OpenSearch comes back without its data.

A document that makes an index without the template leaves it with a mapping guessed from that document, which cannot be
changed afterwards: good events would become dead letters.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from time import monotonic

import msgspec
import structlog
from msgspec import Struct

from forebay.errors import OperatorNeeded, SinkUnreachable
from forebay.model import Verdict
from forebay.sinks.opensearch.advice import REFUSING
from forebay.sinks.opensearch.advice import TEMPLATE as TEMPLATE_ADVICE
from forebay.sinks.opensearch.answers import read_answer
from forebay.sinks.opensearch.client import Answer, OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt
from forebay.sinks.opensearch.refusals import UNEXPECTED_ANSWER
from forebay.sinks.opensearch.template import IndexTemplate

log = structlog.get_logger("forebay.opensearch")

VALID_S = 1.0
"""After an answer the template counts as in place for so long. An OpenSearch that lost its data was started anew since,
which takes longer, even with the time in which we wait for a connection to it. The connection itself tells nothing: a
proxy keeps the one to us."""

INDICES_MAX = 64
"""The indices that are remembered: one for each month of five years. Beyond, all are forgotten, and asked for again."""


class TemplateKeeper:
    """Looks for the template, and puts it if it is missing, before a bulk that may make an index without it.

    That is every bulk with an index that no bulk had before, and every bulk after a failure or a quiet time. The caller
    reports each bulk with `answered` or `failed`.
    """

    def __init__(self, client: OpenSearchClient, template: IndexTemplate, *, is_wanted: bool) -> None:
        self._client = client
        self._template = template
        self._is_wanted = is_wanted
        self._valid_until_s = -math.inf
        self._has_failed = False
        self._indices: set[str] = set()
        self._attempt: asyncio.Task[None] | None = None

    def expect(self, index: str) -> None:
        """Take note that the next bulk has events of an index; nothing is known of a new one."""
        if index not in self._indices:
            self._valid_until_s = -math.inf
            if len(self._indices) >= INDICES_MAX:
                self._indices.clear()
            self._indices.add(index)

    @property
    def is_due(self) -> bool:
        """Whether the next bulk that may need the template has to look for it."""
        return self._is_wanted and monotonic() >= self._valid_until_s

    async def ensure(self) -> None:
        """Return once the template is in place; bulks that wait share one attempt and its result.

        Raises:
            OperatorNeeded: OpenSearch refuses the template.
            SinkUnreachable: OpenSearch does not answer, or is not able to.
        """
        if not self.is_due:
            return
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._check())
            self._attempt.add_done_callback(self._end_attempt)
        # One bulk that is cancelled does not end the attempt of the others.
        await asyncio.shield(self._attempt)

    def answered(self) -> None:
        """Record that OpenSearch answered a bulk: a template that counts as in place does so for longer."""
        now_s = monotonic()
        if now_s < self._valid_until_s:
            self._valid_until_s = now_s + VALID_S

    def failed(self) -> None:
        """Record that a bulk was not answered, or was refused as a whole: the template may be gone."""
        self._valid_until_s = -math.inf
        self._has_failed = True

    async def close(self) -> None:
        """End an attempt that is under way."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])

    async def _check(self) -> None:
        self._valid_until_s = -math.inf
        while True:
            self._has_failed = False
            if await ensure_template(self._client, self._template):
                log.info("index_template_put", template=self._template.name)
            # A bulk that failed meanwhile may tell of an OpenSearch that answered us and then went away.
            if not self._has_failed:
                break
        self._valid_until_s = monotonic() + VALID_S

    def _end_attempt(self, task: asyncio.Task[None]) -> None:
        self._attempt = None
        if not task.cancelled():
            # Asked for here, as nobody may be waiting for it any more.
            task.exception()


class _Acknowledgement(Struct):
    acknowledged: bool


async def ensure_template(client: OpenSearchClient, template: IndexTemplate) -> bool:
    """Put a template in place unless one as new is there; return whether it was put.

    Raises:
        OperatorNeeded: OpenSearch refuses it.
        SinkUnreachable: OpenSearch does not answer, or is not able to.
    """
    there = await client.request("GET", template.path)
    if there.status == HTTPStatus.OK and _version(there.body) >= template.version:
        return False
    put = await client.request("PUT", template.path, msgspec.json.encode(template.body), "application/json")
    if put.status == HTTPStatus.OK and _is_acknowledged(put):
        return True
    raise _refusal(put)


def _version(body: bytes) -> int:
    """Return the version of the template that is there, 0 if it has none: it may be anybody's."""
    try:
        found = msgspec.json.decode(body)["index_templates"][0]["index_template"]
        return int(found.get("version") or 0)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        return 0


def _is_acknowledged(answer: Answer) -> bool:
    """Return whether OpenSearch confirms the template: a server that answers 200 to everything has put no template."""
    try:
        return answer.decode(_Acknowledgement).acknowledged
    except SinkUnreachable:
        return False


def _refusal(answer: Answer) -> SinkUnreachable:
    text = f"OpenSearch does not take the index template (status {answer.status}): {excerpt(answer.body)}"
    outcome = read_answer(answer.status, answer.body, 1)[0]
    if outcome.verdict is Verdict.RETRY:
        return SinkUnreachable(text, outcome.error_type)
    if outcome.advice == REFUSING and outcome.error_type == f"http_{answer.status}":
        # Another server's page, which knows of no template.
        return SinkUnreachable(text, UNEXPECTED_ANSWER)
    # Here a refusal is never about an event, but about the template: OpenSearch is older than 2.7, for instance.
    return OperatorNeeded(text, "template_refused", TEMPLATE_ADVICE if outcome.advice == REFUSING else outcome.advice)
