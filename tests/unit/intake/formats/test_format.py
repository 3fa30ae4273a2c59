"""The answer that names each event, and the refusals of all formats."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from forebay.errors import FIELD_CHARS_MAX, FieldError, Rejection
from forebay.intake.foreign import document_makers
from forebay.intake.formats.format import Format, Result, answer_each
from forebay.intake.formats.registry import FORMATS
from forebay.intake.senders import encode_sender
from forebay.model import Admission
from forebay.telemetry.counters import Counters


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


@pytest.mark.parametrize(
    "form",
    [form for form in FORMATS if form.media_type.endswith("json") and form.example.body.startswith((b"{", b"["))],
)
def test_a_refusal_repeats_no_more_of_a_name_than_helps(form: Format) -> None:
    name = "x" * 100_000
    first, *others = form.example.body.split(b"\n")
    content = json.loads(first)
    event = content[0] if isinstance(content, list) else content
    event[name] = json.loads("[" * 40 + "]" * 40)
    body = b"\n".join([json.dumps(content).encode(), *others])
    answer = take(form, body).decode()
    assert f'"{name[:FIELD_CHARS_MAX]}…"' in answer
    assert len(answer) < 2_000


def take(form: Format, body: bytes) -> bytes:
    """Return the body of the answer to a request, refused or not."""
    makers = document_makers("test", datetime(2024, 1, 1, tzinfo=UTC), Counters(), require_log_id=False)
    try:
        decoded = form.decode(body)
        sender = encode_sender("app")
        _, results = makers[decoded.is_foreign].make(decoded.events, sender, datetime(2026, 3, 15, tzinfo=UTC), None)
        return form.answer(decoded.places, results, Admission.CREATED)
    except Rejection as error:
        return form.refuse(error)[2]
