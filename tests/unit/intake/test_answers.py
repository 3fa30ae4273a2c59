"""Answers as bytes, and their order."""

from __future__ import annotations

import asyncio
import http
import json

import pytest

from forebay.errors import FieldError, Rejection, SpoolUnavailable
from forebay.intake import answers, refusals
from forebay.intake.answers import Answer, AnswerQueue, KnownTurn, ServerLines, Turn
from forebay.intake.limits import ConnectionLimits
from forebay.telemetry.counters import Counters


def read(reply: Answer) -> tuple[int, dict[str, str], bytes]:
    """Return status, header lines and body of a well-formed response."""
    status, head, body = reply
    assert head.endswith(b"\r\n")
    assert b"\r\n\r\n" not in head
    first, *lines = head.decode("latin-1").removesuffix("\r\n").split("\r\n")
    assert first == f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return status, headers, body


def test_a_rejection_names_the_fields_and_has_its_headers() -> None:
    error = Rejection(400, "not so", (FieldError("page", "is required"),), (("Allow", "POST"),))
    status, headers, body = read(refusals.rejection(error))
    assert (status, headers["content-type"], headers["allow"]) == (400, "application/problem+json", "POST")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "not so",
        "errors": [{"field": "page", "reason": "is required"}],
    }


def test_a_rejection_without_a_field_to_blame_has_no_errors() -> None:
    assert "errors" not in json.loads(read(refusals.rejection(Rejection(413, "too large")))[2])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 431, 500, 501, 503])
def test_every_status_that_is_answered_has_its_line_and_title(status: int) -> None:
    assert json.loads(read(refusals.rejection(Rejection(status, "x")))[2])["title"] == http.HTTPStatus(status).phrase


def test_an_unavailable_spool_tells_when_to_send_again() -> None:
    status, headers, body = read(refusals.rejection(refusals.unavailable(SpoolUnavailable("the spool is full", 60))))
    assert (status, headers["retry-after"], json.loads(body)["detail"]) == (503, "60", "the spool is full")


def test_the_refusals_of_a_flood_are_made_once() -> None:
    first = refusals.rejection(Rejection(429, "too much", headers=(("Retry-After", "7"),)))
    assert refusals.rejection(Rejection(429, "too much", headers=(("Retry-After", "7"),))) is first


@pytest.mark.parametrize(
    "error", [Rejection(400, "not so", (FieldError("page", "is required"),)), Rejection(400, "x" * 1_000)]
)
def test_a_refusal_in_the_words_of_a_client_is_not_kept(error: Rejection) -> None:
    first = refusals.rejection(error)
    assert refusals.rejection(error) == first
    assert refusals.rejection(error) is not first


def test_a_fault_of_our_own_is_not_explained() -> None:
    status, _, body = read(refusals.rejection(refusals.FAILED))
    assert (status, json.loads(body)["detail"]) == (500, "the server failed; nothing was taken")


def test_ping_is_answered_with_pong() -> None:
    status, headers, body = read(answers.PONG)
    assert (status, body, headers["content-type"]) == (200, b"pong", "text/plain; charset=utf-8")


def test_any_json_is_the_body_of_an_answer() -> None:
    status, headers, body = read((200, answers.ok_head("application/json") % 14, b'{"results":[]}'))
    assert (status, headers["content-type"], body) == (200, "application/json", b'{"results":[]}')


def test_ping_by_head_has_the_head_of_the_whole_answer() -> None:
    assert (200, answers.PONG[1], b"") == answers.PONG_WITHOUT_BODY


def test_the_lines_of_the_server_are_made_again_for_a_new_list_only() -> None:
    lines = ServerLines()
    headers = [(b"date", b"today"), (b"x", b"y")]
    first = lines.join(headers)
    assert first == b"date: today\r\nx: y\r\n"
    assert lines.join(headers) is first
    assert lines.join([(b"date", b"tomorrow")]) == b"date: tomorrow\r\n"


class Began(Turn, eq=False, kw_only=True):
    """A turn that records its part, as a request of the ASGI application has one."""

    heard: list[str]

    def begin(self) -> None:
        self.heard.append("begin")

    def disconnect(self) -> None:
        self.heard.append("disconnect")


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


def make_queue(*turns: Turn) -> tuple[AnswerQueue, list[bytes]]:
    transport = FakeTransport()
    queue = AnswerQueue(transport, ConnectionLimits(1, 1_000, Counters()))
    for turn in turns:
        queue.append(turn)
    return queue, transport.written


def test_answers_leave_in_the_order_of_the_requests() -> None:
    event, ping, late = Turn(), KnownTurn(answer=answers.PONG), Turn()
    queue, written = make_queue(event, ping, late)
    ping.response = b"pong"
    assert not queue.write_due()
    assert written == []
    event.response = b"created"
    assert not queue.write_due()
    assert written == [b"createdpong"]
    assert list(queue) == [late]


def test_the_application_begins_when_all_requests_before_its_own_are_answered() -> None:
    event, asgi, behind = Turn(), Began(heard=[]), Began(heard=[])
    queue, written = make_queue(event, asgi, behind)
    assert not queue.write_due()
    assert asgi.heard == []
    event.response = b"created"
    assert not queue.write_due()
    assert (asgi.heard, behind.heard) == (["begin"], [])
    # It has written its own answer.
    asgi.response = b""
    assert not queue.write_due()
    assert (behind.heard, written) == (["begin"], [b"created"])


def test_nothing_is_written_behind_the_last_answer() -> None:
    last, behind = Turn(is_last=True), Began(heard=[])
    queue, written = make_queue(last, behind)
    last.response, behind.response = b"last", b"never"
    assert queue.write_due()
    assert written == [b"last"]
    assert behind.heard == []


def test_the_connection_can_be_ended_behind_the_newest_request() -> None:
    first, newest = Turn(), Turn()
    queue, _ = make_queue(first, newest)
    queue.end_connection()
    assert (first.is_last, newest.is_last) == (False, True)


def test_a_client_that_is_gone_is_told_to_all_of_its_requests() -> None:
    turns = [Began(heard=[]), Began(heard=[])]
    queue, _ = make_queue(*turns)
    queue.disconnect()
    assert [turn.heard for turn in turns] == [["disconnect"]] * 2
    assert not queue
