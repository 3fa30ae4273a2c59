"""An entry is made once and passed on as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.history import ATTEMPT_TIMES_MAX, History
from forebay.model import (
    DELIVERED,
    DUPLICATE,
    Address,
    Outcome,
    Verdict,
    entry_address,
    entry_document,
    entry_index,
    join_entries,
    split_entries,
)

NOW = datetime(2026, 3, 15, 12, 30, 0, 123_456, UTC)


def entry(log_id: str = "a", param: bytes = b"{}") -> bytes:
    document = Document(NOW, NOW, log_id, "alice", EventInfo("/home", "click", param=Raw(param)))
    return encode_entry(Address("events_test_2026-03", log_id), document)


def test_an_entry_is_the_action_and_the_document_each_on_a_line() -> None:
    assert entry(param=b'{"k":1}') == (
        b'{"create":{"_index":"events_test_2026-03","_id":"a"}}\n'
        b'{"@timestamp":"2026-03-15T12:30:00.123456Z","received_at":"2026-03-15T12:30:00.123456Z","log_id":"a",'
        b'"user_id":"alice","event_info":{"page":"/home","event":"click","param":{"k":1}}}\n'
    )


@pytest.mark.parametrize("log_id", ["a", 'quoted " and \\', "new\nline", "日本 😀", "\x00\x1f\u2028"])
def test_an_entry_gives_back_its_address_and_its_document(log_id: str) -> None:
    made = entry(log_id)
    assert entry_address(made) == Address("events_test_2026-03", log_id)
    assert json.loads(entry_document(made))["log_id"] == log_id


@pytest.mark.parametrize("param", [b'{\n"a":\n1}', b'{"a":[1,\r\n\t2]}', b'{\n\n"text":"a\\nb \xe6\x97\xa5"\n}\n'])
def test_newlines_of_the_client_do_not_end_the_document(param: bytes) -> None:
    made = entry(param=param)
    assert made.count(b"\n") == 2
    assert json.loads(entry_document(made))["event_info"]["param"] == json.loads(param)


def test_taking_out_newlines_leaves_numbers_and_order_alone() -> None:
    made = entry(param=b'{"z":1.0,\n"a":12345678901234567890123,"m":1e400,"n":-0.10}')
    assert b'"param":{"z":1.0,"a":12345678901234567890123,"m":1e400,"n":-0.10}' in made


def test_joined_entries_are_split_again() -> None:
    entries = [entry("a"), entry("b", b'{"text":"\\n"}'), entry("a")]
    assert split_entries(join_entries(entries)) == entries
    assert split_entries(join_entries([])) == []


@pytest.mark.parametrize("cut", [1, 60])
def test_a_body_that_was_cut_off_is_no_sequence_of_entries(cut: int) -> None:
    with pytest.raises(ValueError, match="not a sequence of entries"):
        split_entries(join_entries([entry("a"), entry("b")])[:-cut])


def test_a_body_that_lacks_a_document_is_no_sequence_of_entries() -> None:
    action, _, _ = entry().partition(b"\n")
    with pytest.raises(ValueError, match="not a sequence of entries"):
        split_entries(entry() + action + b"\n")


def test_an_entry_tells_its_index_from_its_first_bytes() -> None:
    assert entry_index(entry()) == "events_test_2026-03"
    assert entry_index(b"action\nbody\n") == ""


def test_only_an_event_that_may_still_arrive_is_not_settled() -> None:
    settled = {verdict for verdict in Verdict if Outcome(verdict).settled}
    assert settled == {Verdict.DELIVERED, Verdict.DUPLICATE, Verdict.DROPPED, Verdict.DEAD}
    assert DELIVERED.settled
    assert DUPLICATE.settled


def test_an_attempt_is_added_to_a_history() -> None:
    history = History().tried(1000).tried(2000, strikes=1)

    assert history == History(2, (1000, 2000), 1)


def test_a_refusal_is_added_to_a_history_with_its_status_and_counts_if_it_is_a_strike() -> None:
    history = History().tried(1).refused(403, is_struck=False)
    assert (history.attempts, history.refusals, history.refused_status) == (1, 0, 403)

    history = history.tried(2).refused(400, is_struck=True).tried(3)
    assert history == History(3, (1, 2, 3), 0, 1, 400), "an attempt without an answer changes nothing of it"


def test_of_two_histories_the_last_refusal_is_the_later_one() -> None:
    refused, later = History(1, (1,), 0, 1, 400), History(1, (2,), 0, 2, 403)

    assert refused.followed_by(later) == History(2, (1, 2), 0, 3, 403)
    assert refused.followed_by(History(1, (2,))) == History(2, (1, 2), 0, 1, 400)


def test_of_many_attempts_the_first_time_and_the_newest_are_kept() -> None:
    history = History()
    for at_ms in range(1000):
        history = history.tried(at_ms)

    assert history.attempts == 1000
    assert len(history.attempted_at_ms) == ATTEMPT_TIMES_MAX
    assert history.attempted_at_ms == (0, *range(1001 - ATTEMPT_TIMES_MAX, 1000))


def test_two_histories_of_an_event_become_one() -> None:
    first, second = History(2, (1, 2), 1), History(3, (4, 5, 6), 2)

    assert first.followed_by(second) == History(5, (1, 2, 4, 5, 6), 3)
    assert len(History(90, tuple(range(90))).followed_by(History(90, tuple(range(90)))).attempted_at_ms) == 100
