"""From an answer to `_bulk` to outcomes. Pure, and pessimistic: what is not known for sure is a retry.

The call can answer 200 and still have refused events, so every item is looked at
(https://docs.opensearch.org/latest/api-reference/document-apis/bulk/).
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from forebay.model import DELIVERED, DROPPED, DUPLICATE, UNEXPECTED_ANSWER, Outcome, Verdict
from forebay.sinks.opensearch.advice import CREDENTIALS, PATH, REFUSING, RIGHTS, advise_400, advise_404, advise_block
from forebay.sinks.opensearch.excerpt import cut, excerpt

FILTER_PATH = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
"""What an answer needs to hold. `status` stays, as an item without any field left would vanish and shift the others."""

REASON_BYTES_MAX = 8 * 1024
"""How long the reason of an outcome is at the most: it is kept with each dead letter."""

TYPE_BYTES_MAX = 256
CAUSES_MAX = 5

HTTP_OK = 200
HTTP_CREATED = 201
HTTP_BAD_REQUEST = 400
HTTP_UNAUTHORIZED = 401
HTTP_FORBIDDEN = 403
HTTP_NOT_FOUND = 404
HTTP_CONFLICT = 409
HTTP_TOO_LARGE = 413
HTTP_TOO_MANY = 429
HTTP_ERROR = 500

STATUSES = range(100, 600)
"""All that there are (RFC 9110, section 15)."""

CLUSTER_BLOCK = "cluster_block_exception"

OUT_OF_MEMORY = "circuit_breaking_exception"
"""The request needs more memory than OpenSearch has: it may take fewer bytes."""

BUSY = frozenset({"rejected_execution_exception", OUT_OF_MEMORY, f"http_{HTTP_TOO_MANY}"})
"""What OpenSearch, or a proxy in front of it, says if it has too much to do."""

OVERLOADED = frozenset({HTTP_TOO_MANY, 502, 503, 504})
"""What a proxy in front of OpenSearch says in its own words, too."""


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


def read_answer(status: int, body: bytes, events: int) -> list[Outcome]:
    """Return the outcome of each of `events` entries."""
    return _read_items(body, events) if status == HTTP_OK else [classify_request(status, body)] * events


def classify_request(status: int, body: bytes) -> Outcome:
    """Say what an answer other than 200 to a whole request means for each of its events.

    A refusal with 4xx may be about a single event, whoever it comes from: a web firewall dislikes one, a proxy finds
    the request too large. With any other status nothing is said about them.
    """
    error = _read_refusal(body)
    error_type, reason = _name(error) or f"http_{status}", _tell(error) or excerpt(body) or "no reason given"
    advice = _advise(status, error.type, error.reason or reason)
    if advice or (HTTP_BAD_REQUEST <= status < HTTP_ERROR and status != HTTP_TOO_MANY):
        is_too_large = status == HTTP_TOO_LARGE
        return Outcome(
            Verdict.REFUSED,
            error_type,
            reason,
            advice or REFUSING,
            whole=True,
            status=status,
            is_too_large=is_too_large,
        )
    if status in OVERLOADED or (error.type and status == HTTP_ERROR):
        return _retry(error_type, reason, whole=True)
    # A redirect, another service: nothing that is known of OpenSearch says anything about the events.
    return _unexpected(f"status {status}: {excerpt(body) or 'an empty answer'}")


def _classify_item(status: int, error: _Error) -> Outcome:
    """Say what the refusal of one event of a bulk means."""
    if status == HTTP_CONFLICT and error.type == "version_conflict_engine_exception":
        return DUPLICATE
    # What is behind it is told, and does not count: it may quote the event.
    error_type, reason = _name(error), _tell(error)
    if not error_type:
        error_type, reason = UNEXPECTED_ANSWER, f"an event has status {status} without an error"
    advice = _advise(status, error.type, error.reason or "")
    # Nothing that an event holds leads to one of these causes. Of the others even a right or an index that is missing
    # may be a single event's, as a pipeline may send it elsewhere.
    if advice and (error.type == CLUSTER_BLOCK or status == HTTP_BAD_REQUEST):
        return Outcome(Verdict.PAUSE, error_type, reason, advice, status=status)
    if status in OVERLOADED:
        return _retry(error_type, reason)
    known_status = status if status in STATUSES else HTTP_ERROR
    is_unexpected = error_type == UNEXPECTED_ANSWER
    return Outcome(
        Verdict.REFUSED, error_type, reason, advice or REFUSING, status=known_status, is_unexpected=is_unexpected
    )


def _advise(status: int, error_type: str, reason: str) -> str:
    """Return what an operator has to do before an event can be taken, or nothing where that is not what is missing."""
    if error_type == CLUSTER_BLOCK and status in (HTTP_FORBIDDEN, HTTP_TOO_MANY):
        return advise_block(reason)
    if status == HTTP_BAD_REQUEST:
        # Not a type of error, but a text alone.
        return advise_400(error_type, reason) if error_type else PATH if reason.startswith("no handler found") else ""
    if status == HTTP_NOT_FOUND:
        return advise_404(error_type)
    return {HTTP_UNAUTHORIZED: CREDENTIALS, HTTP_FORBIDDEN: f"{RIGHTS}, or {CREDENTIALS}"}.get(status, "")


def _read_items(body: bytes, events: int) -> list[Outcome]:
    try:
        items = _decode_bulk(body).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_unexpected(f"status 200, but not what OpenSearch sends: {excerpt(body) or 'nothing'}")] * events
    if len(items) != events:
        return [_unexpected(f"status 200, but it speaks of {len(items)} events, not of {events}")] * events
    # Nearly every event is created; a call for each of them would be felt in what a bulk costs.
    return [
        DELIVERED
        if (result := item.create).status == HTTP_CREATED and result.error is None
        else _read_result(result.status, result.error)
        for item in items
    ]


def _read_result(status: int, error: _Error | None) -> Outcome:
    if error is None and status == HTTP_OK:
        # So OpenSearch says only of what an ingest pipeline of its own has dropped.
        return DROPPED
    return _classify_item(status, error or _Error())


def _read_refusal(body: bytes) -> _Error:
    """Return OpenSearch's own words; without a type where it gave only a text, empty where they are another's."""
    try:
        error = _decode_refusal(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()
    if isinstance(error, str):
        return _Error(reason=error)
    # Other services have an object there too, such as `{"error":{"code":400,"message":"text"}}`.
    return error if error.type else _Error()


def _name(error: _Error) -> str:
    return cut(error.type, TYPE_BYTES_MAX)


def _tell(error: _Error) -> str:
    """Return the reason and those behind it, which often say alone which field is at fault: `outer: inner`."""
    told = error.reason or ""
    for _ in range(CAUSES_MAX):
        try:
            error = _decode_error(error.caused_by)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            break
        reason = error.reason or error.type
        # Some quote the one behind them.
        if reason not in told:
            told = f"{told}: {reason}" if told else reason
    return cut(told, REASON_BYTES_MAX)


def _retry(error_type: str, reason: str, *, whole: bool = False) -> Outcome:
    is_busy, is_too_large = error_type in BUSY, whole and error_type == OUT_OF_MEMORY
    is_unexpected = error_type == UNEXPECTED_ANSWER
    return Outcome(
        Verdict.RETRY,
        error_type,
        reason,
        whole=whole,
        is_busy=is_busy,
        is_too_large=is_too_large,
        is_unexpected=is_unexpected,
    )


def _unexpected(reason: str) -> Outcome:
    return _retry(UNEXPECTED_ANSWER, reason, whole=True)
