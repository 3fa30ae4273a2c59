"""The index template is put in place by hand; old months are deleted, and no others."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from io import StringIO

import pytest
import typer

from forebay.cli.index import parse_before
from forebay.document import Document, EventInfo, encode_entry
from forebay.model import Address
from forebay.sinks.opensearch.sink import OpenSearchSink
from unit.cli.running import Folder, Run

NOW = datetime.now(UTC)


def index_of(months_ago: int, environment: str = "local") -> str:
    number = NOW.year * 12 + NOW.month - 1 - months_ago
    return f"events_{environment}_{number // 12:04}-{number % 12 + 1:02}"


OLD = [index_of(30), index_of(14)]
KEPT = [index_of(1), index_of(0), index_of(14, "local_eu"), index_of(14, "loca")]


@pytest.fixture
def filled(folder: Folder) -> Folder:
    """Return a folder with a store of old months, new ones and those of other environments."""
    folder.deliver(
        *(
            encode_entry(Address(name, f"{name}-{number}"), Document(NOW, NOW, "id", "user", EventInfo("/", "click")))
            for name in OLD + KEPT
            for number in range(3)
        )
    )
    return folder


def late(old: list[str], oldest_month: str = "2024-01") -> str:
    """Return the warning about late events of deleted months."""
    after = index_of(13 if old[-1] == OLD[-1] else 29)[-7:]
    return (
        f"late events of these months, back to {oldest_month} (FOREBAY_OLDEST_MONTH), open their indices again; "
        f"with {after} they go to the month in which they come\n"
    )


def left(folder: Folder) -> set[str]:
    return {name for (name,) in folder.ask_store("SELECT DISTINCT index_name FROM events")}


def test_init_puts_the_template_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def prepare(sink: OpenSearchSink, *, with_ubi: bool) -> str:
        return f"put into {sink.location}" + ("\nand those of UBI" if with_ubi else "")

    monkeypatch.setattr(OpenSearchSink, "prepare", prepare)
    monkeypatch.setenv("OPEN_SEARCH_DNS", "http://localhost:9200")

    assert run("index", "init") == (0, "put into OpenSearch at http://localhost:9200\n", "")
    assert run("index", "init", "--ubi") == (0, "put into OpenSearch at http://localhost:9200\nand those of UBI\n", "")


@pytest.mark.parametrize("command", ["init", "prune --older-than 6m --yes"])
def test_no_opensearch_is_one_line_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("OPEN_SEARCH_DNS", "http://user:hunter2@127.0.0.1:1")

    code, out, err = run("index", *command.split())

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "hunter2" not in err


def test_template_needs_an_opensearch(run: Run) -> None:
    assert run("index", "init").code == 1


@pytest.mark.parametrize("limit", ["2m", "300d", "14m"])
def test_prune_deletes_the_old_months_of_this_environment(run: Run, filled: Folder, limit: str) -> None:
    code, out, err = run("index", "prune", "--older-than", limit, "--yes")

    # The month that lies 14 months back ended less than 14 months ago.
    old = OLD if limit != "14m" else OLD[:1]
    assert (code, err) == (0, late(old))
    assert [line.split()[:2] for line in out.splitlines()[1:-1]] == [[name, "3"] for name in old]
    assert out.splitlines()[-1].startswith(f"deleted: {len(old)} months with {3 * len(old)} documents, ")
    assert left(filled) == set(OLD + KEPT) - set(old)


def test_prune_never_touches_the_current_and_the_previous_month(run: Run, filled: Folder) -> None:
    assert run("index", "prune", "--older-than", "0d", "--yes").code == 0

    assert left(filled) == set(KEPT)


def test_dry_run_only_lists(run: Run, filled: Folder) -> None:
    rows = run("index", "prune", "--older-than", "6m", "--dry-run", "--json").json_lines()

    assert [(row["index"], row["documents"]) for row in rows] == [(name, 3) for name in OLD]
    assert all(row["bytes"] > 0 for row in rows)
    assert left(filled) == set(OLD + KEPT)


@pytest.mark.parametrize("option", ["--dry-run", "--yes"])
def test_prune_warns_of_late_events_that_open_a_deleted_month_again(
    run: Run, filled: Folder, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    del filled
    monkeypatch.setenv("FOREBAY_OLDEST_MONTH", OLD[-1][-7:])
    assert run("index", "prune", "--older-than", "6m", "--dry-run").err == late(OLD, OLD[-1][-7:])

    monkeypatch.setenv("FOREBAY_OLDEST_MONTH", index_of(13)[-7:])
    code, out, err = run("index", "prune", "--older-than", "6m", option)
    assert (code, OLD[0] in out, err) == (0, True, "")


@pytest.mark.parametrize(("answer", "code", "kept"), [("y\n", 0, []), ("n\n", 1, OLD), ("", 1, OLD)])
def test_prune_lists_and_asks_first(
    run: Run, filled: Folder, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, kept: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))

    result = run("index", "prune", "--older-than", "6m")

    assert result.code == code
    assert OLD[0] in result.out
    assert "Delete 2 months with 6 documents, " in result.out + result.err
    assert result.err.startswith(late(OLD)), "before the question"
    assert left(filled) == set(KEPT + kept)


def test_prune_without_old_months_says_so_and_does_not_ask(run: Run, folder: Folder) -> None:
    del folder
    assert run("index", "prune", "--older-than", "6m") == (
        0,
        "no month is that old; the current one and the one before it always stay\n",
        "",
    )


@pytest.mark.parametrize("arguments", [[], ["--older-than", "6"], ["--older-than", "6w"], ["--older-than", "-1d"]])
def test_prune_without_an_age_is_a_wrong_use(run: Run, filled: Folder, arguments: list[str]) -> None:
    code, out, err = run("index", "prune", "--yes", *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--older-than" in err
    assert left(filled) == set(OLD + KEPT)


def test_store_that_cannot_be_read_is_one_line_and_exit_code_1(run: Run, folder: Folder) -> None:
    folder.store_path.write_text("no database" * 1000)

    code, out, err = run("index", "prune", "--older-than", "6m")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "sqlite3-events.db" in err


@pytest.mark.parametrize(
    ("text", "days"), [("0m", (0, 0)), ("1m", (28, 31)), ("12m", (365, 366)), ("400d", (400, 400))]
)
def test_age_is_a_number_of_months_or_days(text: str, days: tuple[int, int]) -> None:
    then = parse_before(text)
    ago = datetime.now(UTC) - then

    assert days[0] <= ago.days <= days[1]


@pytest.mark.parametrize("text", ["", "6", "6months", "-6m", "36h", "99999m", "99999999d"])
def test_anything_else_is_not_an_age(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a whole number with m for months or d for days"):
        parse_before(text)
