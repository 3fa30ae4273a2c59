"""The file of the denial list: read whole, or refused with the line that is at fault."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from forebay.denials import entries
from forebay.denials.entries import ENTRIES_MAX, Denial, Kind, decode_entries, encode_entries, read_entries
from forebay.errors import SettingsError
from unit.denials.making import AT, Files, denial

SECONDS_MAX = 4.0
"""Of processor time for a full list: ten times as much as it takes."""

GOOD = b'{"kind":"sub","value":"a","reason":"","at":"2026-11-26T12:00:00Z"}'


def test_entries_are_read_as_they_were_written(files: Files) -> None:
    written = [denial(kind, "192.0.2.0/24", AT + timedelta(days=1), 'be"cause\n\u2028ü') for kind in Kind]
    files.write(*written, denial(Kind.SUB, "🙂"))
    assert read_entries(files.denials) == [*written, denial(Kind.SUB, "🙂")]


def test_a_file_that_is_missing_or_empty_is_an_empty_list(files: Files) -> None:
    assert read_entries(files.denials) == []
    files.write()
    assert read_entries(files.denials) == []


def test_a_list_written_by_hand_needs_no_newline_at_its_end(files: Files) -> None:
    files.denials.write_bytes(GOOD + b"\r\n" + GOOD.replace(b'"a"', b'"b"'))
    assert [entry.value for entry in read_entries(files.denials)] == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"\x00" * 20,
        GOOD[:-7],
        GOOD + GOOD,
        b"[1]",
        b"[" * 100_000,
        b"\xff\xfe",
        GOOD.replace(b'"a"', b'"\xe9"'),
        GOOD.replace(b'"a"', b'"\\ud83d"'),
        GOOD.replace(b'"a"', b'""'),
        GOOD.replace(b'"a"', b"5"),
        GOOD.replace(b"sub", b"user"),
        GOOD.replace(b"sub", b"address"),
        GOOD.replace(b"Z", b""),
        GOOD.replace(b"2026-11", b"2026-13"),
        GOOD.replace(b'"reason"', b'"why"'),
        GOOD.replace(b"}", b',"until":"tomorrow"}'),
        GOOD.replace(b"}", b',"scope":"admin"}'),
    ],
)
def test_a_line_that_is_no_entry_is_named_and_refuses_the_list(files: Files, line: bytes) -> None:
    files.denials.write_bytes(b"\n".join([GOOD, GOOD, line, GOOD]))
    with pytest.raises(SettingsError, match="line 3 is no entry of it") as raised:
        read_entries(files.denials)
    assert str(files.denials) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_list_with_too_many_lines_or_bytes_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.denials.write_bytes((GOOD + b"\n") * (ENTRIES_MAX + 1))
    with pytest.raises(SettingsError, match="more than 100000 lines"):
        read_entries(files.denials)
    monkeypatch.setattr(entries, "FILE_BYTES_MAX", 1_000)
    with pytest.raises(SettingsError, match="larger than 1000 bytes"):
        read_entries(files.denials)


def test_a_list_that_may_not_be_read_or_is_a_folder_is_refused_on_one_line(files: Files) -> None:
    files.denials.mkdir()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_entries(files.denials)


@pytest.mark.parametrize("kind", [Kind.TOKEN, Kind.ADDRESS])
def test_a_full_list_is_read_in_bounded_time(files: Files, kind: Kind) -> None:
    made = (
        f"2001:db8::{number >> 16:x}:{number & 65535:x}" if kind is Kind.ADDRESS else f"{number:064x}"
        for number in range(ENTRIES_MAX)
    )
    data = encode_entries(denial(kind, value, AT, "a reason of the usual length") for value in made)
    began = time.thread_time()
    assert len(decode_entries(data, files.denials)) == ENTRIES_MAX
    assert time.thread_time() - began < SECONDS_MAX


def test_an_entry_is_over_from_its_end_on() -> None:
    end = datetime.now(UTC)
    entry = Denial(Kind.SUB, "a", "", AT, end)
    assert not entry.is_over(end - timedelta(microseconds=1))
    assert entry.is_over(end)
    assert not denial(Kind.SUB, "a").is_over(end)


def test_a_stamp_tells_one_state_of_the_file_from_the_next(files: Files) -> None:
    assert entries.read_stamp(files.denials) is None
    seen = []
    for number in range(5):
        files.write(denial(Kind.SUB, str(number)))
        os.utime(files.denials, ns=(number, number))
        seen.append(entries.read_stamp(files.denials))
    assert len(set(seen)) == 5
