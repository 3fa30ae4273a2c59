"""Events are read back from the sink: the newest, those that meet conditions, and new ones as they come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from msgspec import Raw

from forebay.cli import events
from forebay.model import entry_document
from forebay.sinks.port import Query
from unit.cli.running import HOSTILE, HOSTILE_SHOWN, NOON, NUMBERS, Folder, Result, Run, make_document, make_entry

FOLLOW = "import sys; from forebay.cli import events, main; events.POLL_S = 0.05; sys.exit(main())"


def later(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


def test_tail_shows_the_newest_with_the_newest_last(run: Run, folder: Folder) -> None:
    folder.deliver(*(make_entry(f"id-{number}", NOON + later(number)) for number in range(20)))

    result = run("events", "tail", "-n", "3")

    assert (result.code, result.err) == (0, "")
    assert [line.split()[-1] for line in result.out.splitlines()] == ["log_id", "id-17", "id-18", "id-19"]


def test_tail_prints_json_lines(run: Run, folder: Folder) -> None:
    entries = [make_entry(f"id-{number}", NOON + later(number), label="wörth") for number in range(3)]
    folder.deliver(*entries)

    result = run("events", "tail", "--json")

    assert (result.code, result.err) == (0, "")
    assert result.json_lines() == [make_document(entry) for entry in entries]
    assert "wörth" in result.out


@pytest.mark.parametrize("command", ["tail", "search"])
def test_numbers_are_shown_as_they_came(run: Run, folder: Folder, command: str) -> None:
    folder.deliver(make_entry("a", param=NUMBERS))

    shown, as_json = run("events", command), run("events", command, "--json")

    assert (shown.code, shown.err, as_json.code, as_json.err) == (0, "", 0, "")
    assert shown.out.split()[-1] == "a"
    assert f'"param": {NUMBERS.decode()}' in as_json.out
    assert len(as_json.out.splitlines()) == 1


def test_white_space_of_a_client_ends_no_line(run: Run, folder: Folder) -> None:
    folder.deliver(make_entry("a", param=b'{"a":\r\t1}'))

    assert run("events", "tail", "--json").out.endswith('"param": {"a": 1}}}\n')


def test_follow_tells_events_apart_whatever_their_numbers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (Raw(entry_document(make_entry(log_id, param=NUMBERS))) for log_id in ("old", "new"))

    code, out, _ = follow(run, monkeypatch, Pages([old], [new, old]))

    assert (code, [line.split()[-1] for line in out.splitlines()]) == (130, ["log_id", "old", "new"])


def test_document_of_another_form_is_shown_as_far_as_possible(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = Raw(b'{"received_at":7e999,"user_id":null,"log_id":{"a":1},"event_info":"none"}')
    monkeypatch.setattr(events, "make_sink", lambda _: Pages([strange]))

    assert run("events", "search").out.splitlines()[1].split() == ["7e999", '{"a":1}']


def test_text_of_an_event_reaches_no_terminal_as_a_command(run: Run, folder: Folder) -> None:
    folder.deliver(make_entry("a", label=HOSTILE))

    assert HOSTILE_SHOWN in run("events", "tail").out
    assert run("events", "tail", "--json").json_lines()[0]["event_info"]["label"] == HOSTILE


def test_long_values_are_whole_without_a_terminal(run: Run, folder: Folder) -> None:
    folder.deliver(make_entry("a", page="/long" * 100))

    assert "/long" * 100 in run("events", "search").out


def test_search_shows_events_that_meet_all_conditions_newest_first(run: Run, folder: Folder) -> None:
    folder.deliver(
        make_entry("a", NOON, param=b'{"key1":"value1"}'),
        make_entry("b", NOON + later(1), param=b'{"key1":"value1"}'),
        make_entry("c", NOON + later(2), param=b'{"key1":"value2"}'),
        make_entry("d", NOON + later(3), page="/a=b", param=b'{"key1":"value1"}'),
    )

    def ids(*conditions: str) -> list[str]:
        found = run("events", "search", *conditions, "--json")
        assert found.code == 0
        return [document["log_id"] for document in found.json_lines()]

    assert ids() == ["d", "c", "b", "a"]
    assert ids("param.key1=value1", "page=/home") == ["b", "a"]
    assert ids("page=/a=b") == ["d"]
    assert ids("label=") == []
    assert ids("-n", "1") == ["d"]


def test_count_counts_events_that_meet_all_conditions(run: Run, folder: Folder) -> None:
    folder.deliver(*(make_entry(str(number), page=f"/{number % 3}") for number in range(30)))

    assert run("events", "count") == (0, "30\n", "")
    assert run("events", "count", "page=/1") == (0, "10\n", "")
    assert run("events", "count", "page=/1", "--json").json_lines() == [{"count": 10}]


@pytest.mark.parametrize("command", ["tail", "search"])
def test_only_people_are_told_that_there_are_no_events(run: Run, command: str) -> None:
    assert run("events", command) == (0, "", "no events\n")
    assert run("events", command, "--json") == (0, "", "")


def test_nothing_delivered_yet_counts_as_none(run: Run, folder: Folder) -> None:
    assert run("events", "count", "--json").json_lines() == [{"count": 0}]
    assert not folder.store_path.exists()


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["page"], "'page' is not of the form FIELD=VALUE"),
        (["page=/a", "page=/b"], "page is given twice"),
        (["pge=/a"], "no event has a field 'pge'; did you mean page?"),
        (["xyz=/a"], "no event has a field 'xyz'; there are @timestamp, app_version,"),
        (["=x"], "no event has a field ''"),
    ],
)
def test_condition_that_no_event_can_meet_is_a_wrong_use(run: Run, conditions: list[str], said: str) -> None:
    for command in ("search", "count"):
        code, out, err = run("events", command, *conditions)

        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err


def test_store_that_cannot_be_read_is_one_line_and_exit_code_1(run: Run, folder: Folder) -> None:
    folder.store_path.write_text("no database" * 1000)

    code, out, err = run("events", "tail")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot be read: file is not a database" in err


def test_opensearch_that_is_down_is_one_line_without_credentials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_SEARCH_DNS", "http://admin:hunter2@127.0.0.1:1")

    code, out, err = run("events", "tail")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "127.0.0.1:1" in err
    assert "hunter2" not in err
    assert "admin" not in err


@pytest.fixture
def following(environment: dict[str, str], folder: Folder) -> subprocess.Popen[str]:
    folder.deliver(*(make_entry(f"old-{number}", NOON + later(number)) for number in range(12)))
    return subprocess.Popen(
        [sys.executable, "-c", FOLLOW, "events", "tail", "-f", "--json", "-n", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_follow_shows_each_event_once_however_late_it_comes_until_ctrl_c(
    following: subprocess.Popen[str], folder: Folder
) -> None:
    with following:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())["log_id"]
        folder.deliver(make_entry("new", NOON + later(30)), make_entry("late", NOON - later(200)))
        second = [json.loads(following.stdout.readline())["log_id"] for _ in range(2)]
        folder.deliver(make_entry("newer", NOON + later(31)))
        third = json.loads(following.stdout.readline())["log_id"]
        following.send_signal(signal.SIGINT)
        rest, err = following.communicate(timeout=30)

    assert (first, second, third) == ("old-11", ["late", "new"], "newer")
    assert (rest, err, following.returncode) == ("", "", 130)


class Pages:
    """A reader that finds one page after the other; then somebody presses Ctrl-C."""

    def __init__(self, *pages: list[Raw]) -> None:
        self._pages = iter(pages)
        self.queries: list[Query] = []

    async def search(self, query: Query) -> list[Raw]:
        self.queries.append(query)
        for page in self._pages:
            return page
        raise KeyboardInterrupt

    async def count(self, query: Query) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        pass


def follow(run: Run, monkeypatch: pytest.MonkeyPatch, reader: Pages) -> Result:
    monkeypatch.setattr(events, "POLL_S", 0)
    monkeypatch.setattr(events, "POLL_EVENTS_MAX", 3)
    monkeypatch.setattr(events, "make_sink", lambda _: reader)
    return run("events", "tail", "--follow", "-n", "2")


def newest_first(*numbers: int) -> list[Raw]:
    return [Raw(entry_document(make_entry(f"id-{number}", NOON + later(number)))) for number in numbers]


def test_follow_goes_on_with_one_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages(newest_first(3, 2, 1), newest_first(4, 3, 2), newest_first(4, 3, 2), newest_first(5, 4, 3))

    code, out, err = follow(run, monkeypatch, pages)

    assert (code, err) == (130, "")
    assert [line.split()[-1] for line in out.splitlines()] == ["log_id", "id-2", "id-3", "id-4", "id-5"]


def test_follow_looks_back_behind_the_newest_event_for_those_that_come_late(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages([], newest_first(60))

    assert follow(run, monkeypatch, pages).code == 130
    assert [query.received_after for query in pages.queries] == [None, None, "2026-11-24T11:56:00+00:00"]


def test_follow_says_if_more_came_than_it_shows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages(newest_first(1), newest_first(9, 8, 7))

    assert follow(run, monkeypatch, pages).err == "forebay: 3 events or more came at once; not all are shown\n"
