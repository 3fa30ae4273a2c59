"""A single event, a batch of one."""

from __future__ import annotations

import json

import pytest

from forebay.errors import Rejection
from forebay.intake.formats.single import SingleEvent
from forebay.model import Admission, Event


def test_a_body_is_one_event() -> None:
    decoded = SingleEvent().decode(b'{"page":"/home","event":"click"}')
    (event,) = decoded.events
    assert isinstance(event, Event)
    assert (event.page, list(decoded.places), decoded.sent_at) == ("/home", [0], None)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"page":"\xff","event":"b"}', b'{"page":"a"}'])
def test_the_refusal_of_the_event_is_the_one_of_the_request(body: bytes) -> None:
    with pytest.raises(Rejection) as raised:
        SingleEvent().decode(body)
    assert raised.value.status == 400


@pytest.mark.parametrize("log_id", ["a-1", 'with "quotes" \\ and\n', "日本 😀", "\x00", "100 %d %b"])
@pytest.mark.parametrize("admission", Admission)
def test_an_admitted_event_is_answered_with_its_log_id(admission: Admission, log_id: str) -> None:
    body = SingleEvent().answer([0], [json.dumps(log_id).encode()], admission)
    assert json.loads(body) == {"status": admission.value, "log_id": log_id}


def test_an_event_that_was_refused_later_is_answered_with_its_refusal() -> None:
    refusal = Rejection(400, "the event is not valid")
    with pytest.raises(Rejection) as raised:
        SingleEvent().answer([0], [refusal], Admission.CREATED)
    assert raised.value is refusal
