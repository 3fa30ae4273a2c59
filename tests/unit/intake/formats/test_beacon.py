"""Beacons: JSON that a browser sends without a preflight, and the token in it, which stays in no event."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec
import pytest

from forebay.errors import Rejection
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.beacon import FORM_FIELDS_MAX, FormBeacon, TextBeacon
from forebay.intake.formats.single import SingleEvent

TOKEN = "aaa.bbb.ccc"
EVENT = {"page": "/é & +", "event": "click", "param": {"a": [1, "%41"]}}
TEXT = TextBeacon(SingleEvent())
FORM = FormBeacon(SingleEvent())


def events_of(form: TextBeacon, body: bytes) -> Any:
    return json.loads(msgspec.json.encode(list(form.decode(body).events)))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_the_token_beside_the_fields_is_found_and_stays_in_no_event(place: int) -> None:
    items = list(EVENT.items())
    body = json.dumps(dict([*items[:place], ("access_token", TOKEN), *items[place:]])).encode()
    assert TEXT.find_token(body) == TOKEN.encode()
    assert events_of(TEXT, body) == [EVENT]


@pytest.mark.parametrize("name", ["access_token", "access\\u005ftoken"])
def test_the_name_of_the_token_may_be_escaped(name: str) -> None:
    body = b'{"page":"/","event":"x","%b":"t"}' % name.encode()
    assert TEXT.find_token(body) == b"t"
    assert events_of(TEXT, body) == [{"page": "/", "event": "x"}]


def test_a_token_that_is_given_twice_stays_in_no_event() -> None:
    body = b'{"access_token":"a","page":"/","event":"x","access_token":"b"}'
    assert TEXT.find_token(body) == b"b"
    assert events_of(TEXT, body) == [{"page": "/", "event": "x"}]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"x", b"{", b'{"a":1}', b'{"access_token":1}', b'"access_token"', b"\xff"]
)
def test_a_text_may_hold_no_token(body: bytes) -> None:
    assert TEXT.find_token(body) is None


def test_the_envelope_of_a_batch_may_hold_the_token() -> None:
    form = TextBeacon(EventBatch())
    body = json.dumps({"access_token": TOKEN, "events": [EVENT, EVENT], "sent_at": 1}).encode()
    assert form.find_token(body) == TOKEN.encode()
    assert events_of(form, body) == [EVENT, EVENT]
    assert form.decode(body).sent_at == 1


def test_a_form_holds_json_and_a_token() -> None:
    body = urlencode({"access_token": TOKEN, "data": json.dumps(EVENT, ensure_ascii=False)}).encode()
    assert FORM.find_token(body) == TOKEN.encode()
    assert events_of(FORM, body) == [EVENT]


def test_the_json_of_a_form_may_hold_the_token() -> None:
    body = b"data=" + quote_plus(json.dumps(EVENT | {"access_token": TOKEN})).encode()
    assert FORM.find_token(body) == TOKEN.encode()
    assert events_of(FORM, body) == [EVENT]


def test_a_form_may_hold_bytes_that_are_not_encoded() -> None:
    assert events_of(FORM, 'data={"page":"/é","event":"x"}'.encode()) == [{"page": "/é", "event": "x"}]


def test_bare_json_may_be_sent_as_a_form() -> None:
    assert events_of(FORM, b' {"page":"/&data=1","event":"x"}') == [{"page": "/&data=1", "event": "x"}]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "lacks the field data"),
        (b"access_token=x", "lacks the field data"),
        (b"&".join([b"a=1"] * (FORM_FIELDS_MAX + 1)), f"more than {FORM_FIELDS_MAX} fields"),
        (b"data=", "not JSON"),
        (b"data=%ff", "not UTF-8"),
    ],
)
def test_another_form_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Rejection, match=reason) as raised:
        FORM.decode(body)
    assert raised.value.status == 400


def test_a_refusal_shows_no_token() -> None:
    for form, body in ((TEXT, f'{{"access_token":"{TOKEN}"}}'), (FORM, f"access_token={TOKEN}&data={{}}")):
        with pytest.raises(Rejection) as raised:
            list(form.decode(body.encode()).events)
        assert TOKEN not in str(raised.value) + str(raised.value.errors)
