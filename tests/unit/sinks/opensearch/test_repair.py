"""A refused event is made into one that OpenSearch takes, and nothing else about it changes."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.event import decode_event
from forebay.intake.senders import encode_sender
from forebay.model import Entry, entry_address, entry_document
from forebay.sinks.opensearch.repair import OVERWHELMING_BYTES_MIN, may_overwhelm, repair
from forebay.telemetry.counters import Counters

RECEIVED_AT = datetime(2026, 11, 24, tzinfo=UTC)
SENDER = encode_sender("alice")
# One term is `event_info.param.event_info.param.key=value`, of 32,766 bytes.
ROOM_BYTES = 32_766 - 17 - 16


def make(param: str, more: str = "") -> Entry:
    body = f'{{"page":"/home","event":"click","log_id":"a","param":{param}{more}}}'
    maker = DocumentMaker("test", datetime(2024, 1, 1, tzinfo=UTC), Counters(), require_log_id=False)
    (part,), _ = maker.make([decode_event(body.encode())], SENDER, RECEIVED_AT, None)
    (entry,) = part.entries
    return entry


def repaired(param: str, more: str = "") -> tuple[Any, Any, Any]:
    """Return `param`, `extra` and `unindexed` of the repaired document; a number as its characters in a tuple."""
    entry = make(param, more)
    changed = repair(entry)
    assert entry_address(changed) == entry_address(entry)
    assert repair(changed) is changed
    document = json.loads(entry_document(changed), parse_int=lambda text: (text,), parse_float=lambda text: (text,))
    info = document["event_info"]
    return info.get("param"), info.get("extra"), document.get("unindexed")


def value_that_fits(path: str) -> str:
    """Return the longest value that is a term at a path such as `.a.b`."""
    return "v" * (ROOM_BYTES - len(f"{path}=".encode()))


@pytest.mark.parametrize(
    "param",
    [
        "{}",
        "null",
        "[[1, [2]], {}, null]",
        '{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
        '{"n":[1e400,-1e-400,0e999999999,1E+1000000000,-0,1.10,1.0e0]}',
        f'{{"n":[-{"1" * 1000},0.{"0" * 999},{"1" * 998}.5e1]}}',
        '{"":{"":1},".":2,"..":3,"a.b":4,"\\u0000":"\\u0000","\\ud83d\\ude00":"😀"}',
        f'{{"a":"{value_that_fits(".a")}","b":["{value_that_fits(".b")}"]}}',
        f'{{"é":{{"b":"{value_that_fits(".é.b")}"}}}}',
        f'{{"{"k" * (ROOM_BYTES - len(".=true"))}":true}}',
    ],
)
def test_an_entry_that_opensearch_takes_is_returned_itself(param: str) -> None:
    entry = make(param)
    assert repair(entry) is entry


@pytest.mark.parametrize(
    "entry",
    [b"", b"\n", b"{}\n{\n", b"{}\n[]\n", b"{}\n" + b"[" * 100_000 + b"\n", b'{}\n{"event_info":7}\n', b'{}\n"\xff"\n'],
)
def test_an_entry_that_cannot_be_read_is_returned_itself(entry: bytes) -> None:
    assert repair(entry) is entry


def test_the_last_of_the_values_of_a_key_is_kept_at_any_depth() -> None:
    deep = '{"a":' * 30 + '{"k":1,"\\u006b":{"x":1,"x":2}}' + "}" * 30
    param, extra, unindexed = repaired(deep, ',"more":[{"b":1,"b":[]}]')
    for _ in range(30):
        param = param["a"]
    assert param == {"k": {"x": ("2",)}}
    assert extra == {"more": [{"b": []}]}
    assert unindexed is None


@pytest.mark.parametrize("number", ["1" * 1001, f"-{'1' * 5000}", f"0.{'0' * 1000}", f"1e{'0' * 999}1", "9" * 30_000])
def test_a_number_with_too_many_digits_becomes_text_and_others_keep_their_characters(number: str) -> None:
    param, extra, _ = repaired(f'{{"n":[1.10,{number},1e400]}}', f',"more":{number}')
    assert param == {"n": [("1.10",), number, ("1e400",)]}
    assert extra == {"more": number}


def test_a_value_too_long_for_a_term_is_kept_beside_with_its_path() -> None:
    long = value_that_fits(".a") + "v"
    assert repaired(f'{{"a":"{long}","b":1}}') == (
        {"b": ("1",)},
        None,
        [{"path": "/event_info/param/a", "value": long}],
    )


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_bytes_count_and_not_characters(character: str) -> None:
    fitting = character * ((ROOM_BYTES - len(".a=")) // len(character.encode()))
    entry = make(f'{{"a":"{fitting}"}}')
    assert repair(entry) is entry
    long = fitting + character
    assert repaired(json.dumps({"a": long}))[2] == [{"path": "/event_info/param/a", "value": long}]


def test_the_path_counts_with_the_value_and_an_array_adds_nothing_to_it() -> None:
    fitting = value_that_fits(".a.b.c")
    entry = make(f'{{"a":{{"b":[[{{"c":"{fitting}"}}]]}}}}')
    assert repair(entry) is entry
    param, _, unindexed = repaired(f'{{"a":{{"b":[[{{"c":"{fitting}v"}}]]}}}}')
    assert param == {"a": {"b": [[{}]]}}
    assert unindexed == [{"path": "/event_info/param/a/b/0/0/c", "value": f"{fitting}v"}]


def test_in_an_array_null_stays_in_its_place() -> None:
    long = "v" * ROOM_BYTES
    param, _, unindexed = repaired(f'["{long}",1,"{long}"]')
    assert param == {"value": [None, ("1",), None]}
    assert [element["path"] for element in unindexed] == ["/event_info/param/value/0", "/event_info/param/value/2"]


def test_a_path_is_a_json_pointer() -> None:
    long = "v" * ROOM_BYTES
    unindexed = repaired(json.dumps({"a/b": {"~": {"c.d": {"": long}}}}))[2]
    assert unindexed == [{"path": "/event_info/param/a~1b/~0/c.d/", "value": long}]


def test_a_field_that_is_not_known_is_looked_at_too() -> None:
    long = "v" * ROOM_BYTES
    assert repaired("{}", f',"more":{{"a":"{long}"}}') == (
        {},
        {"more": {}},
        [{"path": "/event_info/extra/more/a", "value": long}],
    )


@pytest.mark.parametrize("value", ["1", "1.10", "true", "null", '"v"', '""'])
def test_a_key_too_long_for_a_term_goes_into_the_path(value: str) -> None:
    key = "k" * 40_000
    param, _, (element,) = repaired(f'{{"{key}":{value},"b":2}}')
    assert param == {"b": ("2",)}
    assert element == {
        "path": f"/event_info/param/{key}",
        "value": json.loads(value, parse_int=lambda text: (text,), parse_float=lambda text: (text,)),
    }


def test_what_is_under_a_key_too_long_is_kept_as_text() -> None:
    outer, inner = "k" * 40_000, "i" * 60_000
    param, _, (element,) = repaired(f'{{"{outer}":{{"{inner}":[1.10,{{}}]}}}}')
    assert param == {}
    assert element == {"path": f"/event_info/param/{outer}", "json": f'{{"{inner}":[1.10,{{}}]}}'}


def test_values_that_fit_stay_beside_those_that_do_not_under_a_long_path() -> None:
    key = "k" * 20_000
    param, _, unindexed = repaired(json.dumps({key: {"long": "v" * 15_000}, "b": {key: {"short": "v"}}}))
    assert param == {"b": {key: {"short": "v"}}}
    assert [element["path"] for element in unindexed] == [f"/event_info/param/{key}"]


@pytest.mark.parametrize(
    "param",
    [
        {"k" * 8_000: list(range(2_100))},
        {"a": [1] * 205_000},
        {"a": {"k" * 2_000: {"b" * 2_000: [[{"c": number}] for number in range(4_500)]}}},
    ],
)
def test_a_field_whose_terms_are_too_much_together_is_kept_beside_as_a_whole(param: Any) -> None:
    assert may_overwhelm(make(json.dumps(param)))
    stored, extra, unindexed = repaired(json.dumps(param), ',"more":7')
    assert (stored, extra) == (None, {"more": ("7",)})
    assert [element["path"] for element in unindexed] == ["/event_info/param"]
    assert json.loads(unindexed[0]["json"]) == param


@pytest.mark.parametrize(
    ("param", "may"),
    [
        ({"a": "b"}, False),
        ({"text": "a, b" * 400, "list": list(range(1_000))}, False),
        ({"text": "a" * 1_000_000}, False),
        ({"k" * 8_000: list(range(2_000))}, True),  # not quite: it is looked at, and stays
    ],
)
def test_few_entries_are_looked_at_before_they_are_sent(param: Any, may: bool) -> None:  # noqa: FBT001
    entry = make(json.dumps(param))
    assert may_overwhelm(entry) is may
    assert (repair(entry) is entry) is (len(entry) < 1_000_000)


@pytest.mark.parametrize(
    "param",
    [
        {"k" * 32_720: {f"key number {number}": number for number in range(50_000)}},
        {"k" * 16_300: {str(number): ["v" * 20] * 3 for number in range(30_000)}, "long": "v" * 40_000},
        {"k" * 16_300: ["v" * 17_000] * 60},
        [{"a": [[]] * 100_000}, "v" * 40_000],
        {"." * 1_000_000: 1},
        "\\" * 400_000,
    ],
)
def test_a_megabyte_is_repaired_in_bounded_time_and_space(param: Any) -> None:
    entry = make(json.dumps(param))
    started_at = time.process_time()
    changed = repair(entry)
    assert time.process_time() - started_at < 3
    assert changed is not entry
    assert len(changed) < 3 * len(entry)


def test_no_entry_below_the_least_length_can_overwhelm() -> None:
    assert not may_overwhelm(b"," * (OVERWHELMING_BYTES_MIN - 1))
    assert may_overwhelm(b"," * (OVERWHELMING_BYTES_MIN + 200))
