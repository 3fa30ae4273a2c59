"""Events and batches, over real connections: which are taken, the answers, and the documents."""

from __future__ import annotations

import time
import uuid

import pytest

from forebay.intake.month import new_log_id
from testbed.servers.doors import BATCH_EVENTS_MAX
from testbed.traffic.requests import EVENT, Client, assert_created, assert_problem, event, nested


@pytest.mark.parametrize("log_id", ["my-1", "01a20cea-e993-767e-9b6e-e60ffa0e7691", '日本 😀 " \\ \n \x00', "x" * 512])
def test_an_event_is_answered_with_its_own_log_id(client: Client, log_id: str) -> None:
    assert_created(client.post(body=event(log_id=log_id)), log_id)
    assert client.document(log_id)["log_id"] == log_id


def test_an_event_without_log_id_is_answered_with_a_new_uuid7(client: Client) -> None:
    first, second = (assert_created(client.post()) for _ in range(2))
    assert first != second
    for log_id in (first, second):
        parsed = uuid.UUID(log_id)
        assert parsed.version == 7
        assert abs((parsed.int >> 80) / 1000 - time.time()) < 60
        assert client.document(log_id)["log_id"] == log_id


def test_a_document_contains_the_event_and_its_sender(client: Client) -> None:
    sent = event(label="l", param={"k": [1.50, "日本"]}, experiment={"arm": 2}, timestamp="2026-01-02T03:04:05+09:00")
    answer = client.post(
        body=sent, device_uuid="3f0a", app_version="4.2.1", os_version="iOS 19", user_agent="app/1 (日本)"
    )
    document = client.document(assert_created(answer))
    assert document["user_id"] == "tester"
    assert (document["device_uuid"], document["app_version"], document["os_version"]) == ("3f0a", "4.2.1", "iOS 19")
    assert document["user_agent"] == "app/1 (日本)"
    assert document["@timestamp"] == "2026-01-01T18:04:05Z"
    assert document["event_info"] == {
        "page": "/home",
        "event": "click",
        "label": "l",
        "param": {"k": [1.5, "日本"]},
        "extra": {"experiment": {"arm": 2}},
    }


def test_newlines_within_an_event_split_nothing(client: Client) -> None:
    body = b'{\n"page": "a",\r\n"event": "b",\n"log_id": "lines",\n"param": {\n"k":\n[\n1]\n}\n}\n'
    assert_created(client.post(body=body), "lines")
    assert client.document("lines")["event_info"]["param"] == {"k": [1]}


def test_an_event_sent_twice_is_there_once(client: Client) -> None:
    for _ in range(2):
        assert_created(client.post(body=event(log_id="twice")), "twice")
    assert client.document("twice")
    assert_created(client.post(body=event(log_id="after twice")))
    client.document("after twice")
    assert len(client.stored("log_id = 'twice'")) == 1


def test_a_late_event_is_in_the_index_of_its_own_month_once(client: Client, other: Client) -> None:
    happened_at = time.time() - 400 * 86_400
    month = time.strftime("%Y-%m", time.gmtime(happened_at))
    happened_at_ms = int(happened_at * 1000)
    for fields in ({"log_id": new_log_id(happened_at_ms)}, {"log_id": "late", "timestamp": happened_at_ms}):
        log_id = str(fields["log_id"])
        for server in (client, client, other):
            assert_created(server.post(body=event(**fields)), log_id)
            server.document(log_id)
        assert_created(client.post(body=event(log_id=f"after {log_id}")))
        client.document(f"after {log_id}")
        assert len(client.stored("log_id = ?", [log_id])) == 1
        assert len(client.stored(f"log_id = ? AND index_name LIKE '%_{month}'", [log_id])) == 1
        # Its oldest month is the current one.
        assert other.stored(f"log_id = ? AND index_name LIKE '%_{month}'", [log_id]) == []


@pytest.mark.parametrize(
    "media", [None, "application/json", "application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_the_media_type_of_json_may_be_written_in_many_ways(client: Client, media: str | None) -> None:
    assert_created(client.post(content_type=media))


def test_a_byte_order_mark_before_the_body_is_ignored(client: Client) -> None:
    mark = b"\xef\xbb\xbf"
    assert_created(client.post(body=mark + event(log_id="marked")), "marked")
    for body in (
        b"[%b]" % event(log_id="marked in an array"),
        b'{"events":[%b]}' % event(log_id="marked in an object"),
    ):
        assert client.post("/events/batch", mark + body).json["accepted"] == 1
    client.documents(["marked", "marked in an array", "marked in an object"])
    assert_problem(client.post(body=mark + mark + EVENT), 400)
    assert_problem(client.post(body=mark), 400)


@pytest.mark.parametrize("coding", ["", "identity"])
def test_a_body_may_be_declared_as_not_compressed(client: Client, coding: str) -> None:
    assert_created(client.post(content_encoding=coding))


# Batches


def test_a_batch_is_an_array(client: Client) -> None:
    answer = client.post("/events/batch", b"[" + event(log_id="array-1") + b"," + EVENT + b"]")
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejected"]) == (2, 0)
    first, second = answer.json["results"]
    assert first == {"index": 0, "log_id": "array-1", "status": "created"}
    assert (second["index"], second["status"], uuid.UUID(second["log_id"]).version) == (1, "created", 7)
    client.documents(["array-1", second["log_id"]])


def test_a_batch_is_an_object_with_the_clients_clock(client: Client) -> None:
    an_hour_ago = int((time.time() - 3600) * 1000)
    wrong = an_hour_ago - 86_400_000
    events = event(log_id="clock", timestamp=wrong)
    answer = client.post("/events/batch", b'{"events":[%b],"sent_at":%d}' % (events, wrong + 3_600_000))
    assert answer.json["accepted"] == 1
    happened_at = client.document("clock")["@timestamp"]
    assert (
        abs(time.mktime(time.strptime(happened_at[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - an_hour_ago / 1000) < 60
    )


def test_bad_events_of_a_batch_are_named_by_their_index_and_good_ones_taken(client: Client) -> None:
    events = [
        event(log_id="good-0"),
        b'{"event":"click"}',
        b"5",
        event(log_id="x" * 513),
        event(log_id="good-4", param={"nested": [1]}),
        b'{"page":"","event":[],"label":1}',
        b'{"page":"a","event":"b","param":%b}' % nested(33),
        event(log_id="good-7"),
    ]
    answer = client.post("/events/batch", b"[" + b",".join(events) + b"]")
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["rejected"]) == (3, 5)
    results = answer.json["results"]
    assert [result["index"] for result in results] == list(range(8))
    assert [result["status"] for result in results] == [
        "created", "rejected", "rejected", "rejected", "created", "rejected", "rejected", "created",
    ]  # fmt: skip
    assert [[error["field"] for error in result.get("error", {}).get("errors", [])] for result in results] == [
        [], ["page"], [], ["log_id"], [], ["event", "label", "page"], ["param"], [],
    ]  # fmt: skip
    assert all(result["error"]["detail"] for result in results if result["status"] == "rejected")
    client.documents(["good-0", "good-4", "good-7"])


def test_an_event_that_is_not_json_is_named_by_its_index_and_costs_no_other_one(client: Client) -> None:
    half = rb'{"page":"/home","event":"click","param":{"t":"cut \ud83d"}}'
    deep = b'{"page":"/home","event":"click","param":%b}' % nested(5_000)
    latin = '{"page":"é","event":"click"}'.encode("latin-1")
    body = b'{"context":{"t":"\\ud83d"},"events":[%b]}' % b",".join([event(log_id="beside"), half, deep, latin])
    answer = client.post("/events/batch", body)
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (200, 1, 3)
    assert [result["status"] for result in answer.json["results"]] == ["created", *["rejected"] * 3]
    assert client.document("beside")["event_info"]["page"] == "/home"


def test_an_empty_batch_is_accepted(client: Client) -> None:
    for body in (b"[]", b'{"events":[]}'):
        assert client.post("/events/batch", body).json == {"accepted": 0, "rejected": 0, "results": []}


def test_a_batch_of_bad_events_only_is_answered_too(client: Client) -> None:
    assert client.post("/events/batch", b"[1,2]").json["rejected"] == 2


def test_a_batch_has_no_more_events_than_the_limit(client: Client) -> None:
    most = b"[" + b",".join([EVENT] * BATCH_EVENTS_MAX) + b"]"
    assert client.post("/events/batch", most).json["accepted"] == BATCH_EVENTS_MAX
    assert_problem(client.post("/events/batch", most[:-1] + b"," + EVENT + b"]"), 413)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"5", b'"x"', b"[", b"[1,", b'{"events":5}', b'{"events":[],"sent_at":"x"}', b"[" * 100_000]
)
def test_a_body_that_is_not_a_batch_is_refused_as_a_whole(client: Client, body: bytes) -> None:
    assert_problem(client.post("/events/batch", body), 400)
