"""Commands that shut senders out, and let them in again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from unit.cli.running import HOSTILE, HOSTILE_SHOWN, Folder, Run


@pytest.fixture(autouse=True)
def denials(folder: Folder) -> Path:
    folder.spool_path.touch()
    return folder.path / "sqlite3.db.denials"


def read(denials: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in denials.read_text().splitlines()]


def test_senders_of_each_kind_are_listed_newest_first(run: Run) -> None:
    assert run("deny", "device", "phone", "tablet", "--reason", "stolen").code == 0
    assert run("deny", "sub", "alice").out == "sub alice shut out, in all workers within two seconds\n"
    assert run("deny", "address", "192.0.2.0/24", "::ffff:198.51.100.1").code == 0

    lines = run("deny", "list", "--json").json_lines()

    assert [(line["kind"], line["value"], line["reason"], line["until"]) for line in lines] == [
        ("address", "198.51.100.1", "", None),
        ("address", "192.0.2.0/24", "", None),
        ("sub", "alice", "", None),
        ("device", "tablet", "stolen", None),
        ("device", "phone", "stolen", None),
    ]
    assert run("deny", "list").out.splitlines()[-1] == "5 of 5 entries of the denial list"


def test_a_sender_that_is_shut_out_again_is_the_newest(run: Run) -> None:
    for device in ("phone", "tablet", "phone"):
        run("deny", "device", device)

    assert [line["value"] for line in run("deny", "list", "--json").json_lines()] == ["phone", "tablet"]


def test_an_empty_list_is_shown_as_one(run: Run) -> None:
    assert run("deny", "list") == (0, "0 of 0 entries of the denial list\n", "")
    assert run("deny", "list", "--json") == (0, "", "")


def test_a_sender_is_let_in_again(run: Run) -> None:
    run("deny", "device", "phone", "tablet")
    run("deny", "address", "::ffff:10.0.0.0/104")
    assert run("deny", "remove", "device", "phone").code == 0
    assert run("deny", "remove", "address", "10.0.0.0/8").code == 0
    assert [line["value"] for line in run("deny", "list", "--json").json_lines()] == ["tablet"]


def test_a_sender_that_is_not_in_the_list_is_an_error_and_nothing_changes(run: Run) -> None:
    run("deny", "device", "phone")
    code, out, err = run("deny", "remove", "device", "phone", "tablet")
    assert (code, out) == (1, "")
    assert err == "forebay: the device tablet is not in the list; nothing was changed\n"
    assert len(run("deny", "list", "--json").json_lines()) == 1


def test_an_entry_may_have_an_end(run: Run, denials: Path) -> None:
    run("deny", "device", "a", "--until", "2100-01-01")
    run("deny", "device", "b", "--until", "2100-01-01T12:00:00+02:00")
    run("deny", "device", "c", "--days", "7")
    ends = [datetime.fromisoformat(line["until"]) for line in read(denials)]
    assert ends[:2] == [datetime(2100, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, 10, tzinfo=UTC)]
    assert abs(ends[2] - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)


def test_an_entry_that_is_over_is_not_listed(run: Run, denials: Path) -> None:
    entry = '{"kind":"sub","value":"a","reason":"","at":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z"}\n'
    denials.write_text(entry)
    assert run("deny", "list").out == "0 of 0 entries of the denial list\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["device"], "DEVICE"),
        (["device", ""], "must not be empty"),
        (["device", "a", ""], "must not be empty"),
        (["device", "x" * 8_193], "longer than 8192 bytes"),
        (["sub", "\udcff"], "not UTF-8"),
        (["sub", "a", "--reason", "\udcff"], "not UTF-8"),
        (["address", "10.0.0.0/33"], "is not an address or a network"),
        (["address", "10.1.2.3/8"], "10.0.0.0/8 may be meant"),
        (["address", "0.0.0.0/0"], "would shut out everybody"),
        (["address", "::/0"], "would shut out everybody"),
        (["address", "fe80::1%eth0"], "zone"),
        (["remove", "address", "nonsense"], "is not an address or a network"),
        (["remove", "token", "a"], "token"),
        (["sub", "a", "--until", "2020-01-01"], "is over"),
        (["sub", "a", "--until", "tomorrow"], "is not a day such as"),
        (["sub", "a", "--until", "2100-01-01T12:00"], "is not a day such as"),
        (["sub", "a", "--days", "0"], "--days"),
        (["sub", "a", "--days", "1", "--until", "2100-01-01"], "only one of them"),
    ],
)
def test_wrong_use_is_one_line_and_changes_nothing(run: Run, denials: Path, arguments: list[str], said: str) -> None:
    code, out, err = run("deny", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not denials.exists()


def test_a_damaged_list_is_one_line_that_names_the_line(run: Run, denials: Path) -> None:
    denials.write_text("damaged\n")
    for arguments in (("list",), ("device", "a"), ("remove", "device", "a")):
        code, out, err = run("deny", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "line 1 is no entry of it" in err
    assert denials.read_text() == "damaged\n"


def test_a_folder_without_a_spool_is_an_error(run: Run, folder: Folder, denials: Path) -> None:
    folder.spool_path.unlink()
    code, out, err = run("deny", "device", "a")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "there is no spool at sqlite3.db" in err
    assert not denials.exists()


def test_hostile_names_are_escaped(run: Run) -> None:
    run("deny", "device", HOSTILE, "--reason", HOSTILE)
    for result in (run("deny", "list"), run("deny", "list", "--json")):
        assert result.out.count(HOSTILE_SHOWN) == 2 or result.out.count(HOSTILE_SHOWN.replace("\\", "\\\\")) == 2
