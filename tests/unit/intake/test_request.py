"""A request's address, its body and its one answer."""

from __future__ import annotations

import json

import pytest

from forebay.errors import Rejection, SpoolInDoubt, SpoolUnavailable
from forebay.intake.request import EventRequest, Route, resolve
from forebay.intake.responses import Response
from forebay.model import Admission
from forebay.telemetry.counters import Counters


class RecordingConnection:
    """Records the answers."""

    def __init__(self) -> None:
        self.answers: list[Response] = []
        self.abandoned = 0

    def answer(self, request: EventRequest, response: Response) -> None:
        del request
        self.answers.append(response)

    def abandon(self, request: EventRequest) -> None:
        del request
        self.abandoned += 1


@pytest.fixture
def connection() -> RecordingConnection:
    return RecordingConnection()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def request_of_two(connection: RecordingConnection, counters: Counters) -> EventRequest:
    """A batch of three, one of which is rejected."""
    request = EventRequest(connection, counters, Route.BATCH, b"", {})
    request.entries = [b"first", b"third"]
    request.results = [{"index": 0}, {"index": 1, "status": "rejected"}, {"index": 2}]
    return request


@pytest.mark.parametrize(
    ("url", "route", "query"),
    [
        (b"/ping", Route.PING, b""),
        (b"/events", Route.EVENT, b""),
        (b"/events/batch", Route.BATCH, b""),
        (b"/events?ack=memory", Route.EVENT, b"ack=memory"),
        (b"/%65vents", Route.EVENT, b""),
        (b"http://forebay/events?ack=disk", Route.EVENT, b"ack=disk"),
        (b"/events/", None, b""),
        (b"/metrics", None, b""),
    ],
)
def test_an_address_has_its_route_however_it_is_written(url: bytes, route: Route | None, query: bytes) -> None:
    assert resolve(url) == (route, query)


@pytest.mark.parametrize("url", [b"http://x", b"http://[/"])
def test_an_invalid_address_is_rejected(url: bytes) -> None:
    with pytest.raises(Rejection) as rejection:
        resolve(url)
    assert rejection.value.status == 400


@pytest.mark.parametrize("pieces", [[b"abc"], [b"a", b"bc"], [b"a", b"b", b"c"], [b"", b"abc"]])
def test_a_body_is_put_together_from_its_pieces(
    connection: RecordingConnection, counters: Counters, pieces: list[bytes]
) -> None:
    request = EventRequest(connection, counters, Route.EVENT, b"", {})
    for piece in pieces:
        request.receive(piece)
    assert request.body == b"abc"


def test_the_answer_to_a_batch_names_each_event(
    request_of_two: EventRequest, connection: RecordingConnection, counters: Counters
) -> None:
    request_of_two.admitted(Admission.PENDING)
    status, _, body = connection.answers[0]
    assert status == 200
    assert json.loads(body) == {
        "accepted": 2,
        "rejected": 1,
        "results": [
            {"index": 0, "status": "pending"},
            {"index": 1, "status": "rejected"},
            {"index": 2, "status": "pending"},
        ],
    }
    assert counters.accepted == 2


def test_a_client_is_asked_to_send_events_again_that_were_not_stored(
    request_of_two: EventRequest, connection: RecordingConnection, counters: Counters
) -> None:
    request_of_two.refused(SpoolUnavailable("the disk is full"))
    assert connection.answers[0][0] == 503
    assert (counters.accepted, counters.unavailable) == (0, 2)


def test_events_get_no_answer_if_nobody_knows_whether_they_are_stored(
    request_of_two: EventRequest, connection: RecordingConnection, counters: Counters
) -> None:
    request_of_two.refused(SpoolInDoubt("a sync failed"))
    assert (connection.answers, connection.abandoned) == ([], 1)
    assert counters.unavailable == 2
