"""NDJSON: one event a line, named by the number of the line."""

from __future__ import annotations

import json

import pytest

from forebay.errors import Rejection
from forebay.intake.formats.lines import EventLines
from forebay.model import Admission, Event

EVENT = b'{"page":"/home","event":"click"}'


def outcomes(body: bytes) -> dict[int, bool]:
    """Return by the number of each line that is not empty whether its event was taken."""
    decoded = EventLines().decode(body)
    return dict(zip(decoded.places, [isinstance(event, Event) for event in decoded.events], strict=True))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\t\r\n"])
def test_each_line_is_an_event_however_lines_end(end: bytes) -> None:
    assert outcomes(EVENT + end + b"5" + end + EVENT + end) == {1: True, 2: False, 3: True}


def test_the_last_line_needs_no_end() -> None:
    assert outcomes(EVENT + b"\n" + EVENT) == {1: True, 2: True}


@pytest.mark.parametrize("empty", [b"", b"\n", b"\r\n", b"\n \t\r\n\n"])
def test_empty_lines_are_no_events(empty: bytes) -> None:
    assert outcomes(empty) == {}
    assert outcomes(empty + EVENT) == {empty.count(b"\n") + 1: True}


@pytest.mark.parametrize(
    "line", [b"\x0b", b"\x0c", b"\x00", b"\xa0", b"[]", b"null", EVENT * 2, EVENT + b",", b"{", b'"']
)
def test_a_bad_line_costs_no_other_line(line: bytes) -> None:
    assert outcomes(b"\n".join([EVENT, line, EVENT])) == {1: True, 2: False, 3: True}


def test_a_line_that_is_not_utf_8_is_named_by_its_own_bytes() -> None:
    lines = [EVENT, b'{"page":"\xff","event":"click"}', '{"page":"日","event":"click"}'.encode()]
    decoded = EventLines().decode(b"\n".join(lines))
    first, second, third = decoded.events
    assert isinstance(second, Rejection)
    assert (second.status, second.detail) == (400, "the line is not UTF-8 (byte 9)")
    assert isinstance(first, Event)
    assert isinstance(third, Event)
    assert third.page == "日"


def test_an_event_over_two_lines_is_two_bad_lines() -> None:
    assert outcomes(b'{"page":"/home",\n"event":"click"}') == {1: False, 2: False}


def test_a_line_has_no_time_of_sending_but_its_own() -> None:
    decoded = EventLines().decode(b'{"page":"a","event":"b","sent_at":5}\n')
    (event,) = decoded.events
    assert isinstance(event, Event)
    assert (decoded.sent_at, event.sent_at) == (None, 5)


def test_the_answer_names_each_line_by_its_number() -> None:
    answer = EventLines().answer([1, 4], [b'"a"', Rejection(400, "no event")], Admission.PENDING)
    assert json.loads(answer) == {
        "accepted": 1,
        "rejected": 1,
        "results": [
            {"line": 1, "log_id": "a", "status": "pending"},
            {"line": 4, "status": "rejected", "error": {"detail": "no event"}},
        ],
    }
