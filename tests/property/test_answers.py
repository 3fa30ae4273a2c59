"""An answer to a bulk that is recognised by its bytes means the same as when it is decoded."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from forebay.model import DELIVERED, Outcome, SameOutcome
from forebay.sinks.opensearch.answers import read_answer
from forebay.sinks.opensearch.refusals import read_items

CREATED = b'{"create":{"status":201}}'
ITEMS = (
    CREATED,
    b'{"create":{"status":200}}',
    b'{"create":{"status": 201}}',
    b'{"create":{"status":201,"error":{"type":"odd"}}}',
    b'{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}}',
    b'{"create":{"status":429,"error":{"type":"rejected_execution_exception","reason":"busy"}}}',
    b'{"index":{"status":201}}',
)
HEADS = (
    b'{"errors":false,"items":[',
    b'{"errors":true,"items":[',
    b'{"took":3,"errors":false,"items":[',
    b'{"items":[',
)
TAILS = (b"]}", b"]}\n", b'],"took":3}', b"]")


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, int]:
    """Draw an answer near the usual one, and the number of events in the bulk."""
    events = draw(st.integers(1, 30))
    items = [CREATED] * draw(st.one_of(st.just(events), st.integers(0, 32)))
    for place in draw(st.sets(st.integers(0, 31), max_size=2)):
        items[place : place + 1] = [draw(st.sampled_from(ITEMS))]
    body = draw(st.sampled_from(HEADS)) + b",".join(items) + draw(st.sampled_from(TAILS))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=2)) + body[place + draw(st.integers(0, 2)) :]
    return body, events


@given(answers())
def test_an_answer_means_the_same_whether_it_is_recognised_or_decoded(drawn: tuple[bytes, int]) -> None:
    body, events = drawn

    assert list(read_answer(200, body, events)) == list(read_items(body, events))


@given(st.integers(1, 2000))
def test_the_usual_answer_is_recognised_for_its_number_of_events_alone(events: int) -> None:
    body = b'{"errors":false,"items":[' + b",".join(itertools.repeat(CREATED, events)) + b"]}"

    assert isinstance(read_answer(200, body, events), SameOutcome)
    for others in (events - 1, events + 1):
        assert DELIVERED not in list(read_answer(200, body, others))


@given(st.lists(st.slices(20), max_size=3), st.integers(-25, 25))
def test_outcomes_that_are_the_same_are_like_a_list_of_them(slices: list[slice], place: int) -> None:
    same, listed = SameOutcome(DELIVERED, 20), [DELIVERED] * 20
    for part in slices:
        same, listed = same[part], listed[part]

    assert same == listed
    assert (len(same), list(same), same.count(DELIVERED)) == (len(listed), listed, len(listed))
    assert look_up(same, place) == look_up(listed, place)


def look_up(outcomes: SameOutcome | list[Outcome], place: int) -> Outcome | None:
    try:
        return outcomes[place]
    except IndexError:
        return None
