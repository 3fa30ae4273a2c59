"""A dead letter's document is corrected, validated first, and nothing else about it changes."""

from __future__ import annotations

import io
import json
import shlex
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forebay.clock import now_ms
from forebay.history import DeadLetter, History
from forebay.model import Address, entry_address
from forebay.spool.records import Transaction
from unit.cli.running import INDEX, NOON, NUMBERS, Folder, Run, make_document, make_entry, make_letter


@pytest.fixture(autouse=True)
def buried(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Return a folder with a spool of two dead letters."""
    folder.spool(Transaction(dead=[make_letter("a"), make_letter("b")]))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder.path))
    monkeypatch.setattr("tempfile.tempdir", str(folder.path))
    return folder


def entries(folder: Folder) -> dict[str, bytes]:
    return {str(log_id): entry for log_id, entry in folder.ask_spool("SELECT log_id, entry FROM dead_letters")}


def document(folder: Folder, log_id: str = "a") -> Any:
    return make_document(entries(folder)[log_id])


def left_behind(folder: Folder) -> list[Path]:
    return sorted(folder.path.glob("forebay-*"))


def use_editor(monkeypatch: pytest.MonkeyPatch, code: str, variable: str = "EDITOR") -> None:
    """Set an editor that runs this on the text `t` of the file."""
    script = f"import sys, pathlib; p = pathlib.Path(sys.argv[-1]); t = p.read_text(); {code}; p.write_text(t)"
    monkeypatch.setenv(variable, shlex.join([sys.executable, "-c", script]))


def test_fields_are_set_and_index_id_and_the_others_stay(run: Run, buried: Folder) -> None:
    before = entries(buried)

    result = run("dead", "edit", "a", "--set", 'page="/new"', "--set", "param.key.deep=[1]")

    assert result == (0, "a corrected\n", "")
    wanted = make_document(before["a"])
    wanted["event_info"] |= {"page": "/new", "param": {"key": {"deep": [1]}}}
    assert document(buried) == wanted
    assert entry_address(entries(buried)["a"]) == Address(INDEX, "a")
    assert entries(buried)["b"] == before["b"]
    assert buried.ask_spool("SELECT replay, reason FROM dead_letters WHERE log_id = 'a'")[0][0] == 0
    assert buried.ask_spool("SELECT * FROM requests") == []


def test_numbers_of_any_size_are_set_and_stay_as_they_came(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("dead", "edit", "a", "--set", f"param.numbers={NUMBERS.decode()}").code == 0
    use_editor(monkeypatch, "t = t.replace('/home', '/new')")
    assert run("dead", "edit", "a").code == 0

    written = msgspec.json.format(entries(buried)["a"].splitlines()[1], indent=0)
    assert NUMBERS in written
    assert b"/new" in written


def test_replay_marks_it_at_once_and_asks_the_server(run: Run, buried: Folder) -> None:
    code, out, _ = run("dead", "edit", "a", "--set", 'page="/new"', "--replay")

    assert (code, out) == (0, "a corrected; the server takes it within a second, or when it starts\n")
    assert buried.ask_spool("SELECT log_id FROM dead_letters WHERE replay") == [("a",)]
    assert buried.ask_spool("SELECT name FROM requests") == [("replay",)]


def test_letter_on_its_way_back_is_left_alone(run: Run, buried: Folder) -> None:
    run("dead", "replay", "a")
    before = entries(buried)

    code, out, err = run("dead", "edit", "a", "--set", 'page="/new"')

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "is on its way back" in err
    assert entries(buried) == before


def test_document_is_taken_from_standard_input_or_a_file(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = document(buried) | {"user_id": "somebody"}
    text = json.dumps(changed, indent=2).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    buried.path.joinpath("b.json").write_text(json.dumps(document(buried, "b") | {"app_version": "7"}))

    assert run("dead", "edit", "a", "--file", "-").code == 0
    assert run("dead", "edit", "b", "--file", "b.json").code == 0

    assert document(buried) == changed
    assert document(buried, "b")["app_version"] == "7"


@pytest.mark.parametrize("variable", ["EDITOR", "VISUAL"])
def test_editor_gets_the_indented_document_and_its_text_is_used(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("EDITOR", "false")
    check = """assert p.stat().st_mode & 0o077 == 0; assert '\\n    "page": "/home",\\n' in t"""
    use_editor(monkeypatch, f"{check}; t = t.replace('/home', '/new')", variable)

    assert run("dead", "edit", "a").code == 0

    assert document(buried)["event_info"]["page"] == "/new"
    assert left_behind(buried) == []


def test_invalid_text_is_kept_in_a_file_that_the_error_names(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = entries(buried)
    use_editor(monkeypatch, "t = t.replace('/home', '')")

    code, out, err = run("dead", "edit", "a")

    (kept,) = left_behind(buried)
    assert (code, out) == (2, "")
    assert err == (f"forebay: event_info.page: must not be empty; nothing was changed, and your text is in {kept}\n")
    assert '"page": ""' in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    assert entries(buried) == before


def test_text_that_was_not_changed_changes_nothing(run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even if it is no document that would be taken now.
    buried.ask_spool('UPDATE dead_letters SET entry = CAST(replace(entry, \'"log_id"\', \'"old":1,"log_id"\') AS BLOB)')
    before = entries(buried)
    use_editor(monkeypatch, "pass")

    assert run("dead", "edit", "a") == (0, "nothing was changed\n", "")
    assert (entries(buried), left_behind(buried)) == (before, [])


@pytest.mark.parametrize(
    ("editor", "said"), [("false", "false ended with exit code 1"), ("no-such-editor", "no-such-editor: ")]
)
def test_editor_that_fails_changes_nothing(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch, editor: str, said: str
) -> None:
    before = entries(buried)
    monkeypatch.setenv("EDITOR", editor)

    code, out, err = run("dead", "edit", "a")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err
    assert (entries(buried), left_behind(buried)) == (before, [])


def test_editor_that_removes_its_file_changes_nothing(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = entries(buried)
    use_editor(monkeypatch, "p.unlink(); sys.exit()")

    code, out, err = run("dead", "edit", "a")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith("No such file or directory; nothing was changed\n")
    assert (entries(buried), left_behind(buried)) == (before, [])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["a", "--set", "page"], 2, "'page' is not of the form FIELD=JSON"),
        (["a", "--set", '="/x"'], 2, "is not of the form FIELD=JSON"),
        (["a", "--set", "page=/new"], 2, "page: the value is not JSON"),
        (["a", "--set", 'log_id="b"'], 2, "log_id: must stay a"),
        (["a", "--set", 'page="/new"', "--set", 'received_at="now"'], 2, "received_at: invalid RFC3339"),
        (["a", "--set", "page=1", "--file", "x.json"], 2, "only one of them can be used"),
        (["a", "--file", "no-such.json"], 2, "no-such.json"),
        (["a"], 2, "neither $VISUAL nor $EDITOR is set"),
        ([], 2, "Missing argument 'LOG_ID'"),
        (["nobody", "--set", "page=1"], 1, "no dead letter has the log_id nobody"),
        (["a", "--index", "other", "--set", "page=1"], 1, "no dead letter of other has the log_id a"),
    ],
)
def test_edit_that_fails_is_one_line_and_changes_nothing(
    run: Run, buried: Folder, arguments: list[str], code: int, said: str
) -> None:
    buried.path.joinpath("x.json").write_text("{}")
    before = entries(buried)

    result = run("dead", "edit", *arguments)

    assert (result.code, result.out, result.err.count("\n")) == (code, "", 1)
    assert said in result.err
    assert (entries(buried), left_behind(buried)) == (before, [])


@pytest.mark.parametrize("variable", ["EDITOR", "VISUAL"])
def test_editor_that_is_not_a_command_is_a_wrong_use(
    run: Run, buried: Folder, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "'vi")

    code, out, err = run("dead", "edit", "a")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert 'not a command: "\'vi": No closing quotation' in err
    assert left_behind(buried) == []


def test_one_of_several_letters_is_chosen_by_its_index(run: Run, buried: Folder) -> None:
    again = make_entry("a").replace(INDEX.encode(), b"events_local_2026-10")
    buried.spool(Transaction(dead=[DeadLetter(again, "type", "reason", History(1), now_ms())]))

    code, _, err = run("dead", "edit", "a", "--set", 'page="/new"')
    assert code == 1
    assert "choose one with --index: events_local_2026-10, events_local_2026-11" in err
    assert run("dead", "edit", "a", "--index", "events_local_2026-10", "--set", 'page="/new"').code == 0
    changed = buried.ask_spool("SELECT index_name FROM dead_letters WHERE instr(entry, '/new')")
    assert changed == [("events_local_2026-10",)]


@pytest.fixture
def second(buried: Folder) -> Folder:
    """Return the folder with the spool of the second worker, which has a dead letter of the same event."""
    second = Folder(buried.path, "sqlite3.2.db")
    second.spool(Transaction(dead=[make_letter("a")]))
    return second


def receive_later(second: Folder) -> None:
    """Let the second worker have received its event later than the first one."""
    entry = make_entry("a", received_at=NOON + timedelta(minutes=1))
    second.spool(Transaction(dead=[DeadLetter(entry, "type", "reason", History(1), now_ms())]))


def test_letter_in_the_spools_of_two_workers_is_corrected_in_both(
    run: Run, buried: Folder, second: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_editor(monkeypatch, "t = t.replace('/home', '/new')")

    result = run("dead", "edit", "a", "--index", INDEX, "--replay")

    assert result == (0, "a corrected in 2 spools; the server takes it within a second, or when it starts\n", "")
    assert document(buried) == document(second)
    assert document(buried)["event_info"]["page"] == "/new"
    assert [folder.ask_spool("SELECT name FROM requests") for folder in (buried, second)] == [[("replay",)]] * 2
    assert document(buried, "b")["event_info"]["page"] == "/home"


def test_letters_that_differ_are_corrected_by_their_fields_or_replaced(
    run: Run, buried: Folder, second: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_later(second)
    before, before_second = document(buried), document(second)
    use_editor(monkeypatch, "t = t.replace('/home', '/new')")

    code, out, err = run("dead", "edit", "a")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "2 spools have different documents of it" in err
    assert (document(buried), document(second)) == (before, before_second)

    assert run("dead", "edit", "a", "--set", 'page="/new"').out == "a corrected in 2 spools\n"
    before["event_info"]["page"] = before_second["event_info"]["page"] = "/new"
    assert (document(buried), document(second)) == (before, before_second)

    buried.path.joinpath("a.json").write_text(json.dumps(before))
    assert run("dead", "edit", "a", "--file", "a.json").out == "a corrected in 2 spools\n"
    assert (document(buried), document(second)) == (before, before)
    assert run("dead", "edit", "a", "--file", "a.json").out == "nothing was changed\n"


def test_spool_in_which_the_letter_is_on_its_way_back_is_named(run: Run, buried: Folder, second: Folder) -> None:
    buried.ask_spool("UPDATE dead_letters SET replay = 1")
    before = document(buried)

    code, out, err = run("dead", "edit", "a", "--set", 'page="/new"')

    assert (code, out) == (1, "")
    assert err.endswith("is on its way back, or has changed; not corrected in sqlite3.db\n")
    assert document(buried) == before
    assert document(second)["event_info"]["page"] == "/new"


def test_damaged_letter_cannot_be_corrected(run: Run, buried: Folder) -> None:
    buried.ask_spool("UPDATE dead_letters SET entry = x'ff0a7b7d0b0a' WHERE log_id = 'a'")

    code, _, err = run("dead", "edit", "a", "--set", 'page="/new"')

    assert (code, err) == (1, "forebay: the dead letter a is damaged: its index and _id cannot be read\n")
