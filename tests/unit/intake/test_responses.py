"""Responses as bytes."""

from __future__ import annotations

import http
import json

import pytest

from forebay.errors import FieldError, Rejection, SpoolUnavailable
from forebay.intake import responses
from forebay.model import Admission


def read(reply: responses.Response) -> tuple[int, dict[str, str], bytes]:
    """Return status, header lines and body of a well-formed response."""
    status, head, body = reply
    assert head.endswith(b"\r\n")
    assert b"\r\n\r\n" not in head
    first, *lines = head.decode("latin-1").removesuffix("\r\n").split("\r\n")
    assert first == f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return status, headers, body


@pytest.mark.parametrize("log_id", ["a-1", 'with "quotes" \\ and\n', "日本 😀", "\x00"])
@pytest.mark.parametrize("admission", Admission)
def test_an_admitted_event_is_answered_with_its_log_id(admission: Admission, log_id: str) -> None:
    status, headers, body = read(responses.admitted(admission, log_id))
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"status": admission.value, "log_id": log_id}


def test_a_rejection_names_the_fields_and_has_its_headers() -> None:
    error = Rejection(400, "not so", (FieldError("page", "is required"),), (("Allow", "POST"),))
    status, headers, body = read(responses.rejection(error))
    assert (status, headers["content-type"], headers["allow"]) == (400, "application/problem+json", "POST")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "not so",
        "errors": [{"field": "page", "reason": "is required"}],
    }


def test_a_rejection_without_a_field_to_blame_has_no_errors() -> None:
    assert "errors" not in json.loads(read(responses.rejection(Rejection(413, "too large")))[2])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 431, 500, 501, 503])
def test_every_status_that_is_answered_has_its_line_and_title(status: int) -> None:
    assert json.loads(read(responses.rejection(Rejection(status, "x")))[2])["title"] == http.HTTPStatus(status).phrase


def test_an_unavailable_spool_tells_when_to_send_again() -> None:
    status, headers, body = read(responses.unavailable(SpoolUnavailable("the spool is full", 60)))
    assert (status, headers["retry-after"], json.loads(body)["detail"]) == (503, "60", "the spool is full")


def test_a_fault_of_our_own_is_not_explained() -> None:
    status, _, body = read(responses.failed())
    assert (status, json.loads(body)["detail"]) == (500, "the server failed; nothing was taken")


def test_ping_is_answered_with_pong() -> None:
    status, headers, body = read(responses.PONG)
    assert (status, body, headers["content-type"]) == (200, b"pong", "text/plain; charset=utf-8")


def test_any_value_becomes_json() -> None:
    assert json.loads(read(responses.json({"results": [{"index": 0}]}))[2]) == {"results": [{"index": 0}]}


@pytest.mark.parametrize("date", [b"today", b"tomorrow"])
def test_a_whole_response_has_the_lines_of_its_time_and_connection(date: bytes) -> None:
    whole = responses.as_bytes(responses.PONG, [(b"date", date), (b"x", b"y")], responses.CLOSE_LINE)
    assert whole == responses.PONG[1] + b"date: " + date + b"\r\nx: y\r\nconnection: close\r\n\r\npong"
