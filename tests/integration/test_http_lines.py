"""Events as NDJSON, over real connections."""

from __future__ import annotations

import pytest

from testbed.servers.doors import BATCH_EVENTS_MAX
from testbed.traffic.requests import EVENT, Client, assert_problem, event
from testbed.traffic.wire import Answer

NDJSON = "application/x-ndjson"


def post(client: Client, body: bytes, media: str = NDJSON, query: str = "") -> Answer:
    return client.post(f"/events/batch{query}", body, content_type=media)


@pytest.mark.parametrize("media", [NDJSON, "Application/X-NDJSON", "application/x-ndjson; charset=utf-8"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_each_line_is_an_event(client: Client, media: str, end: bytes) -> None:
    log_ids = [f"line {number} {media} {len(end)}" for number in range(3)]
    body = b"".join(event(log_id=log_id) + end for log_id in log_ids)
    answer = post(client, body, media)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "accepted": 3,
        "rejected": 0,
        "results": [
            {"line": number, "log_id": log_id, "status": "created"} for number, log_id in enumerate(log_ids, 1)
        ],
    }
    client.documents(log_ids)


def test_a_bad_line_is_named_by_its_number_and_costs_no_other_one(client: Client) -> None:
    body = b"\n".join(
        [
            b"\xef\xbb\xbf" + event(log_id="line behind the mark"),
            b"",
            b"{",
            event(log_id="line with \u2028 in it"),
            b'{"page":"\xff","event":"click"}',
            b'{"page":"","event":5}',
            b" \t\r",
            b'["half \\ud83d"]',
            event(log_id="the last line"),
        ]
    )
    answer = post(client, body).json
    assert (answer["accepted"], answer["rejected"]) == (3, 4)
    assert {row["line"]: row["status"] for row in answer["results"]} == {
        1: "created",
        3: "rejected",
        4: "created",
        5: "rejected",
        6: "rejected",
        8: "rejected",
        9: "created",
    }
    details = {row["line"]: row["error"] for row in answer["results"] if row["status"] == "rejected"}
    assert details[5] == {"detail": "the line is not UTF-8 (byte 9)"}
    assert details[3]["detail"].startswith("the line is not JSON")
    assert [error["field"] for error in details[6]["errors"]] == ["event", "page"]
    client.documents(["line behind the mark", "line with \u2028 in it", "the last line"])


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b" "])
def test_a_body_without_events_is_accepted(client: Client, body: bytes) -> None:
    assert post(client, body).json == {"accepted": 0, "rejected": 0, "results": []}


def test_lines_have_no_more_events_than_the_limit(client: Client) -> None:
    most = (EVENT + b"\n\n") * BATCH_EVENTS_MAX
    assert post(client, most).json["accepted"] == BATCH_EVENTS_MAX
    assert_problem(post(client, most + b"5"), 413)


def test_lines_may_be_acknowledged_from_memory(client: Client) -> None:
    answer = post(client, event(log_id="line in memory"), query="?ack=memory").json
    assert (answer["accepted"], answer["results"][0]["line"]) == (1, 1)
    client.document("line in memory")


def test_lines_are_taken_at_the_address_of_a_single_event_too(client: Client) -> None:
    answer = client.post(body=EVENT + b"\n" + EVENT, content_type=NDJSON).json
    assert (answer["accepted"], [row["line"] for row in answer["results"]]) == (2, [1, 2])


def test_a_refused_media_type_names_all_that_are_taken(client: Client) -> None:
    answer = post(client, EVENT, "application/ndjson")
    assert_problem(answer, 415)
    assert answer.headers["accept"].startswith("application/json, application/x-ndjson, ")
