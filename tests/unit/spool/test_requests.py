"""The owner takes each request of a command once, and moves dead letters back that are to be replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.errors import SpoolUnavailable
from forebay.history import History
from forebay.spool import requests
from forebay.spool.beside.inspection import Choice, inspect
from forebay.spool.beside.requests import Request
from forebay.spool.loading import EVERY
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.spool import Spool
from unit.pipeline.fakes import PLENTY, commit, load_all, make_entries, make_entry, make_letter, read_rows


async def test_requests_of_commands_are_taken_once(spool: Spool, path: Path) -> None:
    assert await spool.take_requests() == frozenset()
    with inspect(path) as inspection:
        inspection.ask(Request.RETRY)
        inspection.ask(Request.REPLAY)
        inspection.ask(Request.RETRY)

    assert await spool.take_requests() == {"retry", "replay"}
    assert await spool.take_requests() == frozenset()


async def test_dead_letters_become_a_group_again_if_that_was_requested(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter(make_entry(name)) for name in "abcd"]))
    with inspect(path) as inspection:
        for name in "abd":
            inspection.request_replay(Choice((name,)))

    assert (await spool.replay(1, 2))[0] == 2
    assert (await spool.replay(2, 2))[0] == 1
    assert await spool.replay(3, 2) == (0, 0)

    groups = await spool.load(0, frozenset(), PLENTY, EVERY)
    assert {group.id: group.entries for group in groups} == {
        1: [make_entry("a"), make_entry("b")],
        2: [make_entry("d")],
    }
    assert [group.history for group in groups] == [History(), History()]
    assert read_rows(path, "SELECT log_id FROM dead_letters") == [("c",)]


async def test_a_replay_reports_what_the_file_then_holds(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(dead=[make_letter(make_entry(f"{number}", 200)) for number in range(20)]))
    with inspect(path) as inspection:
        inspection.request_replay(Choice())

    assert await spool.replay(1, 100) == tuple(read_rows(path, "SELECT events, length(body) FROM groups")[0])


async def test_large_dead_letters_become_several_groups(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "REPLAY_BYTES_MAX", 1000)
    sizes = [400, 600, 100, 5000, 100]
    letters = [make_letter(make_entry(f"{number}", size)) for number, size in enumerate(sizes)]
    await commit(spool, Transaction(dead=letters))
    with inspect(path) as inspection:
        inspection.request_replay(Choice())

    assert [(await spool.replay(row_id, 100))[0] for row_id in range(1, 6)] == [2, 1, 1, 1, 0]
    assert [entry for entries in (await load_all(spool)).values() for entry in entries] == [
        letter.entry for letter in letters
    ]


async def test_a_replay_that_fails_leaves_the_dead_letters(spool: Spool, path: Path) -> None:
    await commit(spool, Transaction(inserts=[NewGroup(1, make_entries(1))], dead=[make_letter(make_entry("dead"))]))
    with inspect(path) as inspection:
        inspection.request_replay(Choice())

    with pytest.raises(SpoolUnavailable):
        await spool.replay(1, 10)

    assert read_rows(path, "SELECT log_id, replay FROM dead_letters") == [("dead", 1)]
    assert (await spool.replay(2, 10))[0] == 1
