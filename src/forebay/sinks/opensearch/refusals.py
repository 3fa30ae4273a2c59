"""Turns an answer to `_bulk` that is not the usual one into outcomes: OpenSearch's, or that of a proxy before it.

Pure, and pessimistic: anything that is not certain is a retry. An answer with status 200 can still refuse events, so
every item is read (https://docs.opensearch.org/latest/api-reference/document-apis/bulk/).
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from msgspec import Raw, Struct

from forebay.model import DELIVERED, DROPPED, DUPLICATE, Outcome, SameOutcome, Verdict
from forebay.sinks.opensearch.advice import (
    CREDENTIALS,
    PATH,
    REFUSING,
    RIGHTS,
    SHARDS,
    advise_400,
    advise_404,
    advise_block,
)
from forebay.sinks.opensearch.excerpt import cut, excerpt

REASON_BYTES_MAX = 8 * 1024
"""The longest reason of an outcome: it is kept with each dead letter."""

TYPE_BYTES_MAX = 256
CAUSES_MAX = 5

STATUSES = range(100, 600)
"""All statuses of HTTP (RFC 9110, section 15)."""

UNEXPECTED_ANSWER = "unexpected_answer"
"""The `error_type` of an answer that is not one of OpenSearch's to a bulk."""

CLUSTER_BLOCK = "cluster_block_exception"

OUT_OF_MEMORY = "circuit_breaking_exception"
"""The request needs more memory than OpenSearch has: it may take fewer bytes."""

BUSY = frozenset({"rejected_execution_exception", OUT_OF_MEMORY, f"http_{HTTPStatus.TOO_MANY_REQUESTS}"})
"""The `error_type`s of OpenSearch, or of a proxy in front of it, if they have too much to do."""

OVERLOADED = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""A proxy in front of OpenSearch answers with them in its own words, too."""


class _Error(Struct):
    type: str = ""
    reason: str | None = None
    caused_by: Raw = Raw()  # nobody but us reads it, and it may be anything


class _Result(Struct):
    status: int
    error: _Error | None = None


class _Item(Struct):
    create: _Result


class _BulkAnswer(Struct):
    items: list[_Item]


class _Refusal(Struct):
    error: _Error | str


_decode_bulk = msgspec.json.Decoder(_BulkAnswer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode
_decode_error = msgspec.json.Decoder(_Error).decode


def classify_request(status: int, body: bytes) -> Outcome:
    """Return the outcome of each event of a request with another status than 200.

    A refusal with 4xx may be about a single event, from OpenSearch or not: a web firewall dislikes one, a proxy finds
    the request too large. With any other status nothing is said about them.
    """
    error = _read_refusal(body)
    error_type = _read_type(error) or f"http_{status}"
    reason = _read_reason(error) or excerpt(body) or "no reason given"
    advice = _advise(status, error.type, error.reason or reason)
    if advice or (
        HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS
    ):
        return _refusal(error_type, reason, advice or REFUSING, status, whole=True)
    if status in OVERLOADED or (error.type and status == HTTPStatus.INTERNAL_SERVER_ERROR):
        return retry(error_type, reason, whole=True)
    # A redirect, or another service: it says nothing about the events.
    return _unexpected(f"status {status}: {excerpt(body) or 'an empty answer'}")


def retry(error_type: str, reason: str, *, whole: bool = False) -> Outcome:
    """Return the outcome of an event that is to be delivered again."""
    return Outcome(
        Verdict.RETRY,
        error_type,
        reason,
        whole=whole,
        is_busy=error_type in BUSY,
        is_too_large=whole and error_type == OUT_OF_MEMORY,
        is_unexpected=error_type == UNEXPECTED_ANSWER,
    )


def _refusal(error_type: str, reason: str, advice: str, status: int, *, whole: bool = False) -> Outcome:
    return Outcome(
        Verdict.REFUSED,
        error_type,
        reason,
        advice,
        whole=whole,
        status=status,
        is_too_large=whole and status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        is_unexpected=error_type == UNEXPECTED_ANSWER,
    )


def _classify_item(status: int, error: _Error) -> Outcome:
    """Return the outcome of one event of a bulk that was not created."""
    if status == HTTPStatus.CONFLICT and error.type == "version_conflict_engine_exception":
        return DUPLICATE
    # The causes behind it are part of the reason, but do not count: they may quote the event.
    error_type, reason = _read_type(error), _read_reason(error)
    if not error_type:
        error_type, reason = UNEXPECTED_ANSWER, f"an event has status {status} without an error"
    advice = _advise(status, error.type, error.reason or "")
    # No content of an event leads to one of these causes. All others may be a single event's fault, even a missing
    # right or index: a pipeline may send one event elsewhere.
    if advice and (error.type == CLUSTER_BLOCK or status == HTTPStatus.BAD_REQUEST):
        return Outcome(Verdict.PAUSE, error_type, reason, advice, status=status)
    if error_type in BUSY or status == HTTPStatus.TOO_MANY_REQUESTS:
        return retry(error_type, reason)
    if status in OVERLOADED:
        # Of one event, beside others: a shard of its index is nowhere, or an index cannot be made now.
        return _refusal(error_type, reason, SHARDS, status)
    known_status = status if status in STATUSES else HTTPStatus.INTERNAL_SERVER_ERROR
    return _refusal(error_type, reason, advice or REFUSING, known_status)


def _advise(status: int, error_type: str, reason: str) -> str:
    """Return advice if an operator must act before an event can be taken, else nothing."""
    if error_type == CLUSTER_BLOCK and status in (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS):
        return advise_block(reason)
    if status == HTTPStatus.BAD_REQUEST:
        # Not a type of error, but a text alone.
        return advise_400(error_type, reason) if error_type else PATH if reason.startswith("no handler found") else ""
    if status == HTTPStatus.NOT_FOUND:
        return advise_404(error_type)
    if status == HTTPStatus.UNAUTHORIZED:
        return CREDENTIALS
    return f"{RIGHTS}, or {CREDENTIALS}" if status == HTTPStatus.FORBIDDEN else ""


def read_items(body: bytes, events: int) -> Sequence[Outcome]:
    """Return the outcomes from an answer with status 200 of any form."""
    try:
        items = _decode_bulk(body).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reason = f"status 200, but not in OpenSearch's form: {excerpt(body) or 'nothing'}"
        return SameOutcome(_unexpected(reason), events)
    if len(items) != events:
        return SameOutcome(_unexpected(f"status 200, but it speaks of {len(items)} events, not of {events}"), events)
    return [_read_result(item.create.status, item.create.error) for item in items]


def _read_result(status: int, error: _Error | None) -> Outcome:
    if error is None and status == HTTPStatus.CREATED:
        return DELIVERED
    if error is None and status == HTTPStatus.OK:
        # This is OpenSearch's answer only for an event that an ingest pipeline has dropped.
        return DROPPED
    return _classify_item(status, error or _Error())


def _read_refusal(body: bytes) -> _Error:
    """Return OpenSearch's error; without a type if it is only a text, empty if it is not OpenSearch's."""
    try:
        error = _decode_refusal(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()
    if isinstance(error, str):
        return _Error(reason=error)
    # Other services send an object here too, such as `{"error":{"code":400,"message":"text"}}`.
    return error if error.type else _Error()


def _read_type(error: _Error) -> str:
    return cut(error.type, TYPE_BYTES_MAX)


def _read_reason(error: _Error) -> str:
    """Return the reason and those behind it, `outer: inner`: often only an inner one names the field at fault."""
    reasons = error.reason or ""
    for _ in range(CAUSES_MAX):
        try:
            error = _decode_error(error.caused_by)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            break
        reason = error.reason or error.type
        # Some quote the one behind them.
        if reason not in reasons:
            reasons = f"{reasons}: {reason}" if reasons else reason
    return cut(reasons, REASON_BYTES_MAX)


def _unexpected(reason: str) -> Outcome:
    return retry(UNEXPECTED_ANSWER, reason, whole=True)
