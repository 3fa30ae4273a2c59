"""The meaning of an answer to a bulk: a row for each answer that OpenSearch, or a proxy before it, can give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forebay.model import DELIVERED, DUPLICATE, Outcome, Verdict
from forebay.sinks.opensearch.advice import REFUSING
from forebay.sinks.opensearch.answers import read_answer
from forebay.sinks.opensearch.refusals import UNEXPECTED_ANSWER

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

SHARDS = (
    "Validation Failed: 1: this action would add [2] total shards, "
    "but this cluster currently has [1000]/[1000] maximum shards open;"
)
NO_WRITE_INDEX = "no write index is defined for alias [events_local_2026-11]"
EXPLICIT_INDEX = "explicit index in bulk is not allowed"
FLOODED = (
    "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, "
    "index has read-only-allow-delete block];"
)
FULL = "Number of documents in the index can't exceed [2147483519]"
NO_HANDLER = b'{"error":"no handler found for uri [/a/b/_bulk] and method [POST]"}'


def item(
    status: int, error_type: str | None = None, reason: str | None = "why", action: str = "create"
) -> dict[str, Any]:
    result: dict[str, Any] = {"status": status}
    if error_type is not None:
        result["error"] = {"type": error_type, "reason": reason}
    return {action: result}


def bulk_answer(*items: dict[str, Any]) -> bytes:
    return json.dumps({"errors": any("error" in item["create"] for item in items), "items": items}).encode()


def refusal(error_type: str, reason: str = "why", status: int = 400) -> bytes:
    return json.dumps({"error": {"root_cause": [], "type": error_type, "reason": reason}, "status": status}).encode()


def refused(reason: str) -> Outcome:
    return Outcome(Verdict.REFUSED, "mapper_parsing_exception", reason, REFUSING, status=400)


# -- one event


@pytest.mark.parametrize(
    ("status", "error_type", "reason", "verdict"),
    [
        (201, None, "", Verdict.DELIVERED),
        (200, None, "", Verdict.DROPPED),
        (409, "version_conflict_engine_exception", "[1]: version conflict", Verdict.DUPLICATE),
        (429, "rejected_execution_exception", "rejected execution of coordinating operation", Verdict.RETRY),
        (429, "circuit_breaking_exception", "[parent] Data too large", Verdict.RETRY),
        (429, "cluster_block_exception", FLOODED, Verdict.PAUSE),
        (403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)]", Verdict.PAUSE),
        (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]", Verdict.REFUSED),
        (401, "security_exception", "missing authentication credentials", Verdict.REFUSED),
        (
            404,
            "index_not_found_exception",
            "no such index [x] and [action.auto_create_index] is false",
            Verdict.REFUSED,
        ),
        (503, "unavailable_shards_exception", "primary shard is not active", Verdict.REFUSED),
        (503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered]", Verdict.REFUSED),
        (500, "null_pointer_exception", "", Verdict.REFUSED),
        (504, "process_cluster_event_timeout_exception", "failed to process cluster event", Verdict.REFUSED),
        (400, "mapper_parsing_exception", "failed to parse field [@timestamp]", Verdict.REFUSED),
        (400, "strict_dynamic_mapping_exception", "mapping set to strict", Verdict.REFUSED),
        (400, "illegal_argument_exception", "Document contains at least one immense term", Verdict.REFUSED),
        (400, "validation_exception", SHARDS, Verdict.PAUSE),
        (400, "validation_exception", "Validation Failed: 1: id is too long", Verdict.REFUSED),
        (400, "index_closed_exception", "closed", Verdict.PAUSE),
        (400, "invalid_index_name_exception", "Invalid index name", Verdict.PAUSE),
        (400, "illegal_argument_exception", NO_WRITE_INDEX, Verdict.PAUSE),
        # The reason quotes the event, so that a client could write it.
        (400, "mapper_parsing_exception", f"Preview of field's value: '{NO_WRITE_INDEX}'", Verdict.REFUSED),
        (400, "mapper_parsing_exception", f"Preview of field's value: '{SHARDS}'", Verdict.REFUSED),
        (400, "illegal_argument_exception", "pipeline with id [p] does not exist", Verdict.PAUSE),
        (400, "illegal_argument_exception", FULL, Verdict.PAUSE),
        (500, "fail_processor_exception", "no", Verdict.REFUSED),
        (422, "strange_exception", "no", Verdict.REFUSED),
        (409, "some_other_exception", "no", Verdict.REFUSED),
        (410, "gone_exception", "no", Verdict.REFUSED),
        (302, "strange_exception", "no", Verdict.REFUSED),
        # Answers that contradict themselves: the event was taken, and was not.
        (200, "mapper_parsing_exception", "no", Verdict.REFUSED),
        (201, "version_conflict_engine_exception", "no", Verdict.REFUSED),
    ],
)
def test_an_item_means(status: int, error_type: str | None, reason: str, verdict: Verdict) -> None:
    outcomes = read_answer(200, bulk_answer(item(status, error_type, reason)), 1)

    (outcome,) = outcomes
    kept = not Outcome(verdict).settled
    told = status if verdict in (Verdict.PAUSE, Verdict.REFUSED) else 0
    is_busy = error_type in ("rejected_execution_exception", "circuit_breaking_exception")
    expected = Outcome(verdict, error_type or "", reason, outcome.advice, status=told, is_busy=is_busy)
    assert outcome == (expected if kept else Outcome(verdict))
    assert bool(outcome.advice) is (verdict in (Verdict.PAUSE, Verdict.REFUSED))


@pytest.mark.parametrize(
    ("status", "error_type", "verdict"),
    [
        (201, "", Verdict.REFUSED),
        (400, None, Verdict.REFUSED),
        (400, "", Verdict.REFUSED),
        (409, None, Verdict.REFUSED),
        (429, None, Verdict.RETRY),
        (503, None, Verdict.REFUSED),
        (202, None, Verdict.REFUSED),
        (302, None, Verdict.REFUSED),
        (0, "", Verdict.REFUSED),
        (-1, None, Verdict.REFUSED),
        (1 << 62, None, Verdict.REFUSED),
    ],
)
def test_an_item_without_an_error_is_told_as_one_that_nobody_expects(
    status: int, error_type: str | None, verdict: Verdict
) -> None:
    delivered, strange = read_answer(200, bulk_answer(item(201), item(status, error_type, "said")), 2)

    assert delivered == DELIVERED
    assert (strange.verdict, strange.error_type, strange.is_unexpected) == (verdict, UNEXPECTED_ANSWER, True)
    assert f"status {status}" in strange.reason
    assert strange.status in range(600)
    # It is about this event: the sink took the other.
    assert not strange.whole


def test_every_item_is_looked_at_in_its_order() -> None:
    body = bulk_answer(
        item(201),
        item(400, "mapper_parsing_exception", "failed to parse"),
        item(409, "version_conflict_engine_exception"),
        item(429, "rejected_execution_exception", "busy"),
        item(201),
    )

    assert read_answer(200, body, 5) == [
        DELIVERED,
        refused("failed to parse"),
        DUPLICATE,
        Outcome(Verdict.RETRY, "rejected_execution_exception", "busy", is_busy=True),
        DELIVERED,
    ]


def test_an_error_without_a_reason_is_read() -> None:
    body = bulk_answer(item(400, "mapper_parsing_exception", None))

    assert read_answer(200, body, 1) == [refused("")]


def test_fields_that_nobody_asked_for_do_not_matter() -> None:
    body = b'{"took":3,"errors":false,"items":[{"create":{"_id":"1","_shards":{},"status":201,"_version":1}}]}'

    assert read_answer(200, body, 1) == [DELIVERED]


def caused(reason: str | None, *causes: dict[str, Any]) -> bytes:
    """Return the answer that refuses an event for a reason, with others behind it."""
    error: dict[str, Any] = {"type": "mapper_parsing_exception", "reason": reason}
    inner = error
    for cause in causes:
        inner["caused_by"] = inner = dict(cause)
    return bulk_answer({"create": {"status": 400, "error": error}})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            caused("failed to parse", {"type": "i", "reason": "Duplicate field 'a'"}),
            "failed to parse: Duplicate field 'a'",
        ),
        (caused("a", {"type": "t", "reason": "b"}, {"type": "u", "reason": "c"}), "a: b: c"),
        (
            caused("a", {"type": "array_index_out_of_bounds_exception", "reason": None}),
            "a: array_index_out_of_bounds_exception",
        ),
        (
            caused("immense; original message: got 40000", {"type": "t", "reason": "got 40000"}),
            "immense; original message: got 40000",
        ),
        (caused(None, {"type": "t", "reason": "b"}), "b"),
        (caused("a", *({"reason": str(number)} for number in range(9))), "a: 0: 1: 2: 3: 4"),
        (caused("a", {"type": 7}), "a"),
        (caused("a").replace(b'"reason": "a"', b'"reason": "a", "caused_by": "text"'), "a"),
    ],
)
def test_reasons_behind_the_reason_are_told(body: bytes, reason: str) -> None:
    assert read_answer(200, body, 1) == [refused(reason)]


def test_what_is_behind_a_reason_makes_no_pause() -> None:
    # It may quote the event, so that a client could write it.
    body = caused("failed", {"type": "t", "reason": NO_WRITE_INDEX}).replace(b"mapper_parsing", b"illegal_argument")

    assert read_answer(200, body, 1)[0].verdict is Verdict.REFUSED


def test_reason_of_a_refused_request_is_told_with_the_causes_behind_it() -> None:
    body = json.dumps({"error": {"type": "e", "reason": "all failed", "caused_by": {"reason": "disk"}}}).encode()

    for status in (400, 500):
        assert read_answer(status, body, 1)[0].reason == "all failed: disk"


@pytest.mark.parametrize("letter", ["x", "ö", "日", "\U0001f600"])
def test_long_reasons_are_cut_with_a_mark(letter: str) -> None:
    long = letter * 1_000_000
    refused = json.dumps({"error": {"type": long, "reason": long}}).encode()

    for status, body in [(200, bulk_answer(item(400, long, long))), (400, refused), (500, refused), (401, refused)]:
        outcome = read_answer(status, body, 1)[-1]
        assert 8 * 1024 - 10 < len(outcome.reason.encode()) <= 8 * 1024
        assert outcome.reason.rstrip(" …(cut)").strip(letter) == ""
        assert outcome.reason.endswith(" … (cut)")
        assert len(outcome.error_type.encode()) <= 256


# -- the request as a whole


@pytest.mark.parametrize(
    ("status", "body", "verdict", "error_type"),
    [
        (401, b"Unauthorized", Verdict.REFUSED, "http_401"),
        (401, HTML, Verdict.REFUSED, "http_401"),
        (401, refusal("security_exception", status=401), Verdict.REFUSED, "security_exception"),
        (403, b'{"Message":"User is not authorized"}', Verdict.REFUSED, "http_403"),
        (403, refusal("cluster_block_exception", status=403), Verdict.REFUSED, "cluster_block_exception"),
        (403, refusal("security_exception", status=403), Verdict.REFUSED, "security_exception"),
        (429, b"429 Too Many Requests /_bulk", Verdict.RETRY, "http_429"),
        (429, refusal("rejected_execution_exception", status=429), Verdict.RETRY, "rejected_execution_exception"),
        (429, refusal("circuit_breaking_exception", status=429), Verdict.RETRY, "circuit_breaking_exception"),
        (429, refusal("cluster_block_exception", status=429), Verdict.REFUSED, "cluster_block_exception"),
        (500, refusal("null_pointer_exception", status=500), Verdict.RETRY, "null_pointer_exception"),
        (502, HTML, Verdict.RETRY, "http_502"),
        (503, b"OpenSearch Security not initialized.", Verdict.RETRY, "http_503"),
        (503, refusal("cluster_block_exception", status=503), Verdict.RETRY, "cluster_block_exception"),
        (
            503,
            refusal("cluster_manager_not_discovered_exception"),
            Verdict.RETRY,
            "cluster_manager_not_discovered_exception",
        ),
        (504, HTML, Verdict.RETRY, "http_504"),
        (400, refusal("illegal_argument_exception", EXPLICIT_INDEX), Verdict.REFUSED, "illegal_argument_exception"),
        (400, refusal("validation_exception", SHARDS), Verdict.REFUSED, "validation_exception"),
        (400, NO_HANDLER, Verdict.REFUSED, "http_400"),
        (404, HTML, Verdict.REFUSED, "http_404"),
        (400, HTML, Verdict.REFUSED, "http_400"),
        (400, b"", Verdict.REFUSED, "http_400"),
        (400, b'{"error":{"code":400,"message":"of another service"}}', Verdict.REFUSED, "http_400"),
        (400, refusal("json_parse_exception", "Unexpected character"), Verdict.REFUSED, "json_parse_exception"),
        (405, b'{"error":"Incorrect HTTP method for uri [/_bulk]","status":405}', Verdict.REFUSED, "http_405"),
        (406, b'{"error":"Content-Type header [x] is not supported","status":406}', Verdict.REFUSED, "http_406"),
        (408, b"", Verdict.REFUSED, "http_408"),
        (413, HTML, Verdict.REFUSED, "http_413"),
        (413, refusal("content_too_long_exception", status=413), Verdict.REFUSED, "content_too_long_exception"),
        (418, refusal("teapot_exception", status=418), Verdict.REFUSED, "teapot_exception"),
        (404, refusal("index_not_found_exception", status=404), Verdict.REFUSED, "index_not_found_exception"),
    ],
)
def test_another_answer_to_the_request_means_the_same_for_each_event(
    status: int, body: bytes, verdict: Verdict, error_type: str
) -> None:
    outcomes = read_answer(status, body, 3)

    assert [(outcome.verdict, outcome.error_type) for outcome in outcomes] == [(verdict, error_type)] * 3
    assert all(outcome.reason and outcome.whole for outcome in outcomes)
    assert {bool(outcome.advice) for outcome in outcomes} == {verdict is Verdict.REFUSED}
    assert {outcome.status for outcome in outcomes} == {status if verdict is Verdict.REFUSED else 0}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (500, HTML),
        (301, b""),
        (302, HTML),
        (307, b""),
        (501, b""),
        (201, bulk_answer(item(201), item(201), item(201))),
        (202, b""),
        (204, b""),
        (206, bulk_answer(item(201), item(201), item(201))),
    ],
)
def test_an_answer_that_nobody_expects_is_tried_again(status: int, body: bytes) -> None:
    outcomes = read_answer(status, body, 3)

    outcome = outcomes[0]
    assert outcomes == [outcome] * 3
    assert (outcome.verdict, outcome.error_type, outcome.whole) == (Verdict.RETRY, UNEXPECTED_ANSWER, True)
    assert outcome.reason.startswith(f"status {status}: ")


def test_what_was_answered_is_shown_on_one_short_line_without_credentials() -> None:
    page = b"<html>\r\n<head><title>No</title></head>\r\n<pre>Authorization: Basic aHVudGVyMg==\nHost: x</pre>"
    page += b'{"Authorization": "Bearer hunter2.hunter2"} https://me:hunter2@host/ ' + b"x" * 100_000

    outcomes = read_answer(302, page, 1)

    outcome = outcomes[0]
    assert outcome.reason.startswith("status 302: <html> <head><title>No</title></head> <pre>Authorization: ***</pre>")
    assert "aHVudGVyMg" not in outcome.reason
    assert "hunter2" not in outcome.reason
    assert len(outcome.reason) < 400
    assert len(outcome.reason.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "error_type", "reason", "said"),
    [
        (400, "validation_exception", SHARDS, "forebay index prune"),
        (429, "cluster_block_exception", FLOODED, "free disk space"),
        (403, "cluster_block_exception", "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];", "free disk"),
        (403, "cluster_block_exception", "blocked by: [FORBIDDEN/8/index write (api)];", "index.blocks."),
        (401, "security_exception", "Unauthorized", "FOREBAY_OPEN_SEARCH_API_KEY"),
        (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]", "rights"),
        (404, "index_not_found_exception", "no such index [x]", "action.auto_create_index"),
        (400, "index_closed_exception", "closed", "open the index"),
        (400, "illegal_argument_exception", NO_WRITE_INDEX, "is_write_index"),
        (400, "illegal_argument_exception", EXPLICIT_INDEX, "allow_explicit_index"),
        (404, "", "", "OPEN_SEARCH_DNS"),
    ],
)
def test_an_operator_is_told_the_next_step(status: int, error_type: str, reason: str, said: str) -> None:
    body = refusal(error_type, reason, status) if error_type else HTML
    outcomes = read_answer(status, body, 1)

    assert outcomes[0].verdict is Verdict.REFUSED
    assert said in outcomes[0].advice


# -- an answer that says nothing for sure


WHOLE = bulk_answer(item(201), item(201), item(201))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(bulk_answer(item(201), item(201)), id="fewer items"),
        pytest.param(bulk_answer(*[item(201)] * 4), id="more items"),
        pytest.param(bulk_answer(), id="no items"),
        pytest.param(b'{"errors":false}', id="no list of items"),
        pytest.param(b'{"items":null}', id="null for items"),
        pytest.param(b'{"items":[null,null,null]}', id="null for an item"),
        pytest.param(b'{"items":[{},{},{}]}', id="items that were filtered away"),
        pytest.param(b'{"items":[{"create":{}},{"create":{}},{"create":{}}]}', id="items without a status"),
        pytest.param(json.dumps({"items": [item(201, action="index")] * 3}).encode(), id="another action"),
        pytest.param(b'{"items":[{"create":{"status":"201"}}]}', id="a status in quotes"),
        pytest.param(WHOLE[:-1], id="cut off at the end"),
        pytest.param(WHOLE[:40], id="cut off in the middle"),
        pytest.param(WHOLE + WHOLE, id="twice"),
        pytest.param(b"", id="nothing"),
        pytest.param(HTML, id="HTML"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(WHOLE.replace(b"create", b"cr\xffate"), id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b'{"items":' + b"[" * 100_000, id="too deep in the items"),
        pytest.param(refusal("rejected_execution_exception"), id="an error with status 200"),
    ],
)
def test_an_answer_that_cannot_be_read_delivers_nothing(body: bytes) -> None:
    outcomes = read_answer(200, body, 3)

    assert [(outcome.verdict, outcome.error_type) for outcome in outcomes] == [(Verdict.RETRY, UNEXPECTED_ANSWER)] * 3
    assert all(outcome.whole and "status 200" in outcome.reason for outcome in outcomes)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 50_000, b'{"error":{"type":"\xff"}}'])
def test_a_refusal_that_cannot_be_read_makes_nothing_dead(body: bytes) -> None:
    outcomes = read_answer(400, body, 2)

    assert [(outcome.verdict, outcome.error_type) for outcome in outcomes] == [(Verdict.REFUSED, "http_400")] * 2


@pytest.mark.parametrize(
    ("status", "error_type", "is_busy", "is_too_large", "is_unexpected"),
    [
        (429, "rejected_execution_exception", True, False, False),
        (429, "circuit_breaking_exception", True, True, False),
        (429, None, True, False, False),
        (413, None, False, True, False),
        (503, None, False, False, False),
        (301, None, False, False, True),
    ],
)
def test_an_answer_to_a_whole_request_says_if_less_may_pass(
    status: int, error_type: str | None, *, is_busy: bool, is_too_large: bool, is_unexpected: bool
) -> None:
    body = json.dumps({"error": {"type": error_type, "reason": "said"}}).encode() if error_type else b"<html>"
    (outcome,) = read_answer(status, body, 1)
    assert (outcome.is_busy, outcome.is_too_large, outcome.is_unexpected) == (is_busy, is_too_large, is_unexpected)
