"""Documents that have UBI's form and not ours go through every command as others do."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from forebay.cli import events
from forebay.history import DeadLetter, History
from forebay.intake.foreign import document_makers
from forebay.intake.formats.ubi import UbiEvents
from forebay.intake.senders import encode_sender
from forebay.model import Entry, entry_document
from forebay.sinks.local import LocalSink
from forebay.sinks.port import Query
from forebay.spool.records import NewGroup, Transaction
from forebay.telemetry.counters import Counters
from unit.cli.running import NOON, Folder, Run, make_entry

EVENT = {"action_name": "click", "event": "of the client's", "user_id": "u1", "timestamp": "2026-11-24T11:59:00.000Z"}


def make_ubi_entry(number: int) -> Entry:
    """Return an entry as intake makes it."""
    _, maker = document_makers("local", NOON - timedelta(days=365), Counters(), require_log_id=True)
    decoded = UbiEvents().decode(json.dumps([EVENT | {"number": number}]).encode())
    received_at = NOON + timedelta(seconds=number)
    (part,), (result,) = maker.make(decoded.events, encode_sender("shop", b"phone"), received_at, None)
    assert isinstance(result, bytes)
    assert part.index == "ubi_events"
    (entry,) = part.entries
    return entry


def document_of(entry: Entry) -> Any:
    return json.loads(entry_document(entry))


def id_of(entry: Entry) -> str:
    return str(json.loads(entry.splitlines()[0])["create"]["_id"])


def test_the_receipt_is_in_a_field_of_its_own() -> None:
    document = document_of(make_ubi_entry(1))
    assert document.pop("forebay") == {
        "received_at": "2026-11-24T12:00:01Z",
        "source": "shop",
        "device_uuid": "phone",
    }
    assert document == EVENT | {"number": 1}


def test_a_document_without_fields_gets_its_time_and_the_receipt() -> None:
    _, maker = document_makers("local", NOON - timedelta(days=365), Counters(), require_log_id=False)
    (part,), _ = maker.make(UbiEvents().decode(b"[{}]").events, encode_sender('a"b'), NOON, None)
    assert document_of(part.entries[0]) == {
        "timestamp": "2026-11-24T12:00:00Z",
        "forebay": {"received_at": "2026-11-24T12:00:00Z", "source": 'a"b'},
    }


def test_the_embedded_store_takes_it_once_and_shows_it_in_its_order(run: Run, folder: Folder) -> None:
    entry = make_ubi_entry(1)
    folder.deliver(make_entry("before"), entry, entry, make_entry("behind", NOON + timedelta(seconds=2)))
    assert run("events", "count").out == "3\n"
    _, second, _ = run("events", "tail", "--json").json_lines()
    assert second == document_of(entry)
    row = run("events", "tail").out.splitlines()[2]
    assert row.split() == ["2026-11-24T12:00:01Z", "of", "the", "client's", "u1"]


def test_no_month_is_listed_or_deleted_for_it(run: Run, folder: Folder) -> None:
    folder.deliver(make_ubi_entry(1), make_entry("a"))
    assert run("index", "prune", "--older-than", "0d", "--yes").code == 0
    assert run("events", "count").out == "2\n"


async def test_the_doctor_counts_them_beside_the_months(folder: Folder) -> None:
    sink = LocalSink(folder.store_path, "local")
    await sink.deliver([make_ubi_entry(1), make_ubi_entry(2), make_entry("a")])
    (found,) = (await sink.check()).addresses
    await sink.close()
    assert found.text.startswith("1 events in 1 months, 2 of UBI, ")


class Pages:
    """A reader that finds one page after the other; then somebody presses Ctrl-C."""

    def __init__(self, *pages: list[Raw]) -> None:
        self._pages = iter(pages)

    async def search(self, query: Query) -> list[Raw]:
        del query
        for page in self._pages:
            return page
        raise KeyboardInterrupt

    async def close(self) -> None:
        pass


def test_follow_tells_them_apart(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (Raw(entry_document(make_ubi_entry(number))) for number in (1, 2, 3))
    monkeypatch.setattr(events, "POLL_S", 0)
    monkeypatch.setattr(events, "make_sink", lambda _: Pages([first], [second, first], [third, second]))
    found = run("events", "tail", "--follow", "--json").json_lines()
    assert [document["number"] for document in found] == [1, 2, 3]


def test_pending_ones_are_listed_and_can_be_buried(run: Run, folder: Folder) -> None:
    entry = make_ubi_entry(1)
    folder.spool(Transaction(inserts=[NewGroup(1, [entry])]))
    (found,) = run("pending", "list", "--json").json_lines()
    assert (found["index"], found["log_id"], found["document"]) == ("ubi_events", id_of(entry), document_of(entry))
    assert run("pending", "list").code == 0
    assert "ubi_events" in run("pending", "bury", id_of(entry), "--yes").out


@pytest.fixture
def buried(folder: Folder) -> str:
    """Bury one, and return its id."""
    entry = make_ubi_entry(1)
    folder.spool(Transaction(dead=[DeadLetter(entry, "mapper_parsing_exception", "no", History(1, (5_000,)), 1_000)]))
    return id_of(entry)


def letter(run: Run, log_id: str) -> Any:
    (found,) = run("dead", "show", log_id, "--json").json_lines()
    return found


def test_a_dead_one_is_shown_and_replayed(run: Run, buried: str) -> None:
    assert letter(run, buried)["document"] == document_of(make_ubi_entry(1))
    assert run("dead", "replay", buried).code == 0
    assert letter(run, buried)["replay"]


@pytest.mark.parametrize("field", ["event", "action_name", "extra.x", "event_attributes.position.ordinal"])
def test_a_field_of_a_dead_one_is_set_where_it_is_named(run: Run, buried: str, field: str) -> None:
    assert run("dead", "edit", buried, "--set", f"{field}=7").code == 0
    found = letter(run, buried)["document"]
    for name in field.split("."):
        found = found[name]
    assert found == 7


def test_a_whole_document_is_replaced(run: Run, buried: str, tmp_path: Path) -> None:
    document = document_of(make_ubi_entry(1)) | {"action_name": "view", "more": {"a": [1]}}
    file = tmp_path / "corrected.json"
    file.write_text(json.dumps(document, indent=2))
    assert run("dead", "edit", buried, "--file", str(file)).code == 0
    assert letter(run, buried)["document"] == document


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"forebay":{}}', '{"forebay":{"received_at":"yesterday"}}', '{"forebay":{"received_at":5}}', "{"],
)
def test_a_document_without_its_receipt_is_refused(run: Run, buried: str, tmp_path: Path, text: str) -> None:
    file = tmp_path / "corrected.json"
    file.write_text(text)
    code, out, err = run("dead", "edit", buried, "--file", str(file))
    assert (code != 0, out, err.count("\n")) == (True, "", 1)
    assert letter(run, buried)["document"] == document_of(make_ubi_entry(1))
