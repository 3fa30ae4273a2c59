"""An entry is made once and passed on as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from forebay.model import (
    DELIVERED,
    DUPLICATE,
    Address,
    Document,
    EventInfo,
    Outcome,
    Verdict,
    encode_entry,
    entry_address,
    entry_document,
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


def test_joined_entries_are_split_where_they_were_joined() -> None:
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


def test_only_an_event_that_may_still_arrive_is_not_settled() -> None:
    settled = {verdict for verdict in Verdict if Outcome(verdict).settled}
    assert settled == {Verdict.DELIVERED, Verdict.DUPLICATE, Verdict.DEAD}
    assert DELIVERED.settled
    assert DUPLICATE.settled
