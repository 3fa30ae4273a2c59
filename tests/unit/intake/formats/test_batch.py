"""Batches in one JSON text: an array or an object, and one bad event never costs the others."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime

import pytest

from forebay.errors import Rejection
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.format import Decoded
from forebay.intake.senders import encode_sender
from forebay.model import Event
from forebay.telemetry.counters import Counters

NOW = datetime(2026, 3, 15, tzinfo=UTC)
decode_batch = EventBatch().decode


def pages(batch: Decoded) -> list[str]:
    return [event.page for event in batch.events if isinstance(event, Event)]


def test_a_batch_is_an_array_or_an_object_with_events() -> None:
    array = decode_batch(b' \n[{"page":"a","event":"b"}, {"page":"c","event":"d"}]')
    assert pages(array) == ["a", "c"]
    assert list(array.places) == [0, 1]
    assert array.sent_at is None
    wrapped = decode_batch(b'{"sent_at": 5, "events": [{"page":"a","event":"b"}], "more": {}}')
    assert pages(wrapped) == ["a"]
    assert list(wrapped.places) == [0]
    assert wrapped.sent_at == 5


def test_an_event_of_a_batch_that_is_not_valid_is_refused_in_its_place() -> None:
    for body in (
        b'[{"page":"a","event":"b"},2,{"page":"c"}]',
        b'{"sent_at":5,"events":[{"page":"a","event":"b"},2,{}]}',
    ):
        batch = decode_batch(body)
        assert list(batch.places) == [0, 1, 2]
        assert batch.sent_at == (5 if b"sent_at" in body else None)
        first, second, third = batch.events
        assert isinstance(first, Event)
        assert isinstance(second, Rejection)
        assert isinstance(third, Rejection)
        assert "page" not in second.detail
        assert "event" in [error.field for error in third.errors]


@pytest.mark.parametrize("body", [b"[]", b'{"events":[]}'])
def test_a_batch_may_be_empty(body: bytes) -> None:
    assert list(decode_batch(body).events) == []


@pytest.mark.parametrize(
    "body", [b"{}", b'{"events":{}}', b'{"events":null}', b'{"events":[],"sent_at":"x"}', b"1", b'"x"', b"null"]
)
def test_a_batch_of_another_form_is_told_which_one_it_should_have(body: bytes) -> None:
    with pytest.raises(
        Rejection, match=r'a batch is an array of events or {"events": …}|a batch is an array'
    ) as raised:
        decode_batch(body)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[1,]", b'{"events":[1}', b"[" * 100_000, b'{"events":' * 100_000, b"\x0b[]"]
)
def test_a_batch_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(Rejection) as raised:
        decode_batch(body)
    assert raised.value.status == 400


GOOD = b'{"page":"/home","event":"click"}'
HARMFUL = [
    rb'{"page":"/home","event":"click","param":{"t":"cut \ud83d"}}',
    rb'{"page":"/home","event":"click","\ud83d":1}',
    rb'{"page":"/home","event":"click","label":"],[\" \q"}',
    b'{"page":"/home","event":"click","label":"a\nb"}',
    b'{"page":"/home","event":"click","label":"\\\xff"}',
    b'{"page":"/home","event":"click","param":{"t":"\xed\xa0\xbd"}}',
    b'{"page":"/home","event":"click","param":%b1%b}' % (b"[" * 5_000, b"]" * 5_000),
    b'{"page":"/home","event":"click","param":NaN}',
    b'{"page":"/home","event":"click","param":[1}}',
    b"{'page':'/home'}",
    b"undefined",
]
"""Events that cannot be taken, each for another reason."""


def taken(body: bytes) -> list[bool]:
    """Return whether each event of a batch is taken."""
    batch = decode_batch(body)
    # From Python 3.13 on the decoder reads deeper texts than a document may have.
    maker = DocumentMaker("test", NOW, Counters(), require_log_id=False)
    _, results = maker.make(batch.events, encode_sender("alice"), NOW, None)
    assert list(batch.places) == list(range(len(results)))
    refusals = [result for result in results if isinstance(result, Rejection)]
    assert all(error.status == 400 and error.detail.startswith("the event ") for error in refusals)
    return [isinstance(result, bytes) for result in results]


@pytest.mark.parametrize("harmful", HARMFUL)
@pytest.mark.parametrize("frame", [b"[%b]", b' {"events" : [%b]}\n', b'{"sent_at":5,"events":[%b],"more":[{}]}'])
def test_an_event_that_cannot_be_read_costs_a_batch_nothing_else(frame: bytes, harmful: bytes) -> None:
    assert taken(frame % harmful) == [False]
    assert taken(frame % b",".join([GOOD, harmful, GOOD, harmful, b"\t" + GOOD])) == [True, False, True, False, True]


@pytest.mark.parametrize("harmful", HARMFUL)
def test_a_field_that_is_not_known_costs_a_batch_nothing(harmful: bytes) -> None:
    for body in (b'{"events":[%b],"context":%b}', b'{"context":%b,"events":[%b]}'):
        parts = (GOOD, harmful) if body.startswith(b'{"events') else (harmful, GOOD)
        assert taken(body % parts) == [True]
    assert taken(rb'{"\ud83d":1,"events":[%b],"\u0065vents":[%b,%b]}' % (b"1", GOOD, GOOD)) == [True, True]


def test_a_batch_that_has_to_be_cut_keeps_its_time() -> None:
    assert decode_batch(rb'{"events":[],"sent_at":5,"context":"\ud83d"}').sent_at == 5
    assert decode_batch(rb'{"events":[],"sent_at":null,"context":"\ud83d"}').sent_at is None
    with pytest.raises(Rejection, match="a batch is an array"):
        decode_batch(rb'{"events":[],"sent_at":"x","context":"\ud83d"}')


@pytest.mark.parametrize(
    "body",
    [
        rb'["\ud83d"',
        rb'["\ud83d",]',
        rb'[,"\ud83d"]',
        rb'["\ud83d"],',
        rb'["\ud83d"]]',
        rb'["\ud83d]',
        rb'["\ud83d"}',
        rb'{"events":["\ud83d"]',
        rb'{"events":["\ud83d"],}',
        rb'{"events":["\ud83d"],"context"}',
        rb'{"events":"\ud83d"}',
        rb'{"context":"\ud83d"}',
        b"\xff",
        b"[\xff",
    ],
)
def test_a_batch_whose_events_cannot_be_told_apart_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(Rejection) as raised:
        decode_batch(body)
    assert raised.value.status == 400


@pytest.mark.parametrize("filling", [b"[],", b"[[]],", b",", b'"",', b"[", b'{"":', b'"', b"{}"])
def test_a_large_batch_that_cannot_be_read_is_cut_in_good_time(filling: bytes) -> None:
    body = rb'["\ud83d",%b1]' % (filling * (2_000_000 // len(filling)))
    began_at = time.perf_counter()
    with contextlib.suppress(Rejection):
        decode_batch(body)
    assert time.perf_counter() - began_at < 2
