"""The answer that names each event."""

from __future__ import annotations

import json

import pytest

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.format import Result, answer_each
from forebay.model import Admission


@pytest.mark.parametrize("admission", Admission)
@pytest.mark.parametrize("word", ["index", "line"])
def test_each_event_is_named_by_its_place(admission: Admission, word: str) -> None:
    refusal = Rejection(400, "not so", (FieldError("page", "is required"), FieldError("100 %d", "%b")))
    results: list[Result] = [b'"a %d %b \\" \\u0000"', refusal, b'"c"', Rejection(400, "no event")]
    assert json.loads(answer_each(word, [2, 3, 5, 8], results, admission)) == {
        "accepted": 2,
        "rejected": 2,
        "results": [
            {word: 2, "log_id": 'a %d %b " \x00', "status": admission.value},
            {
                word: 3,
                "status": "rejected",
                "error": {
                    "detail": "not so",
                    "errors": [{"field": "page", "reason": "is required"}, {"field": "100 %d", "reason": "%b"}],
                },
            },
            {word: 5, "log_id": "c", "status": admission.value},
            {word: 8, "status": "rejected", "error": {"detail": "no event"}},
        ],
    }


def test_a_request_without_events_has_no_results() -> None:
    assert json.loads(answer_each("index", [], [], Admission.CREATED)) == {"accepted": 0, "rejected": 0, "results": []}
