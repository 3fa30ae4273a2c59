"""Turns an answer to `_bulk` into outcomes. The usual one, by which every event was created, is known by its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from forebay.model import DELIVERED, Outcome, SameOutcome
from forebay.sinks.opensearch.refusals import classify_request, read_items

FILTER_PATH = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
"""The fields of an answer. `status` must stay: an item without any field would vanish and shift the others."""


def read_answer(status: int, body: bytes, events: int) -> Sequence[Outcome]:
    """Return the outcome of each of `events` entries."""
    if status != HTTPStatus.OK:
        return SameOutcome(classify_request(status, body), events)
    if body == _usual_answer(events):
        return SameOutcome(DELIVERED, events)
    return read_items(body, events)


def _usual_answer(events: int) -> bytes:
    """Return the answer to a bulk of which every event was created, as OpenSearch writes it for `FILTER_PATH`."""
    return b'{"errors":false,"items":[%b]}' % b",".join([b'{"create":{"status":201}}'] * events)
