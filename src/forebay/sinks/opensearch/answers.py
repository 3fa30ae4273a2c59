"""From an answer to `_bulk` to outcomes. Pure, and pessimistic: what is not known for sure is a retry.

The call can answer 200 and still have refused events, so every item is looked at
(https://docs.opensearch.org/latest/api-reference/document-apis/bulk/).
"""

from __future__ import annotations

import enum

import msgspec
from msgspec import Struct

from forebay.model import DELIVERED, DUPLICATE, UNEXPECTED_ANSWER, Outcome, Verdict

FILTER_PATH = "errors,items.*.status,items.*.error.type,items.*.error.reason"
"""What an answer needs to hold. `status` stays, as an item without any field left would vanish and shift the others."""

HTTP_OK = 200
HTTP_CREATED = 201
HTTP_BAD_REQUEST = 400
HTTP_NOT_FOUND = 404
HTTP_CONFLICT = 409
HTTP_TOO_LARGE = 413
HTTP_TOO_MANY = 429


OPERATORS_400 = {
    "index_closed_exception": ("",),
    "invalid_index_name_exception": ("",),
    "validation_exception": ("shards",),
    "illegal_argument_exception": ("no write index", "explicit index in bulk"),
}
"""What comes as 400 like a faulty event, but every event would get it: by type, with what the reason then contains.

Too many shards (it strikes at the turn of a month), a closed index, an alias without an index to write to, or
`rest.action.multi.allow_explicit_index: false`. The type counts, as the reason of others may quote the event.
"""


class Fault(enum.Enum):
    """What is wrong with a bulk as a whole, where halving it can find out more."""

    TOO_LARGE = "too large"
    MALFORMED = "malformed"


class _Error(Struct):
    type: str = ""
    reason: str | None = None


class _Result(Struct):
    status: int
    error: _Error | None = None


class _Item(Struct):
    create: _Result


class _BulkAnswer(Struct):
    items: list[_Item]


class _Refusal(Struct):
    error: _Error


_decode_bulk = msgspec.json.Decoder(_BulkAnswer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


def read_answer(status: int, body: bytes, events: int) -> list[Outcome] | tuple[Fault, Outcome]:
    """Return the outcome of each of `events` entries.

    Where the bulk as a whole is at fault, return what is wrong and the outcome that a single event would have.
    """
    if status == HTTP_OK:
        return _read_items(body, events)
    if status == HTTP_TOO_LARGE:
        return Fault.TOO_LARGE, Outcome(Verdict.DEAD, "http_413", "larger than OpenSearch takes")
    refusal = _read_refusal(body)
    if status == HTTP_BAD_REQUEST and refusal and not _needs_operator(status, refusal.type, refusal.reason or ""):
        return Fault.MALFORMED, Outcome(Verdict.DEAD, refusal.type, refusal.reason or "")
    return [classify_request(status, refusal)] * events


def classify_request(status: int, refusal: _Error | None) -> Outcome:
    """Say what an answer other than 200 to a whole request means for each of its events."""
    error_type = refusal.type if refusal and refusal.type else f"http_{status}"
    reason = (refusal.reason if refusal else None) or "no reason given"
    if status == HTTP_TOO_MANY and error_type != "cluster_block_exception":
        return Outcome(Verdict.RETRY, error_type, reason)
    # Credentials, a wrong address, a redirect, a block: asking again sooner changes nothing. A 400 that is not
    # OpenSearch's own (a proxy that speaks another protocol) says nothing about the events either.
    if 300 <= status < 500:  # noqa: PLR2004 - classes of status
        return Outcome(Verdict.PAUSE, error_type, reason)
    return Outcome(Verdict.RETRY, error_type, reason)


def classify_item(status: int, error_type: str, reason: str) -> Outcome:
    """Say what the answer to one event of a bulk means."""
    if status in (HTTP_OK, HTTP_CREATED):
        return DELIVERED
    if status == HTTP_CONFLICT and error_type == "version_conflict_engine_exception":
        return DUPLICATE
    if _needs_operator(status, error_type, reason):
        return Outcome(Verdict.PAUSE, error_type, reason)
    if status == HTTP_BAD_REQUEST:
        return Outcome(Verdict.DEAD, error_type, reason)
    return Outcome(Verdict.RETRY, error_type, reason)


def _needs_operator(status: int, error_type: str, reason: str) -> bool:
    if error_type == "cluster_block_exception" or status in (401, 403, HTTP_NOT_FOUND):
        return True
    return status == HTTP_BAD_REQUEST and any(part in reason for part in OPERATORS_400.get(error_type, ()))


def _read_items(body: bytes, events: int) -> list[Outcome]:
    try:
        items = _decode_bulk(body).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [Outcome(Verdict.RETRY, UNEXPECTED_ANSWER, "the answer to a bulk is not what OpenSearch sends")] * events
    if len(items) != events:
        reason = f"the answer speaks of {len(items)} events, not of {events}"
        return [Outcome(Verdict.RETRY, UNEXPECTED_ANSWER, reason)] * events
    return [_read_result(item.create) for item in items]


def _read_result(result: _Result) -> Outcome:
    error = result.error
    if error is None and result.status == HTTP_CREATED:
        return DELIVERED
    return classify_item(result.status, error.type if error else "", (error.reason if error else None) or "")


def _read_refusal(body: bytes) -> _Error | None:
    try:
        error = _decode_refusal(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # OpenSearch's short form is `{"error":"text"}`; a proxy sends HTML.
        return None
    # Other services have an object there too, such as `{"error":{"code":400,"message":"text"}}`.
    return error if error.type else None
