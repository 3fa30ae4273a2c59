"""Lost, doubled and spoilt events are found, and a loss counts as explained only by a kill that can have caused it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chaos import comparison
from chaos.comparison import Unexplained, compare, explain_unwritten
from chaos.load import Taken, digest
from chaos.stage import Kill

INFO = {"page": "/", "event": "view"}


def taken(*, month: str | None = None, answered_at: float = 0.0, ack: str = "memory") -> Taken:
    return Taken(digest(INFO), month, answered_at, ack, doomed=False)


class Documents:
    """The documents in OpenSearch."""

    def __init__(self, *copies: tuple[str, str, dict[str, Any]]) -> None:
        self._copies = copies

    async def copies(self) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        for place in self._copies:
            yield place


def document(log_id: str, index: str = "events_x_2026-11", **info: str) -> tuple[str, str, dict[str, Any]]:
    return index, log_id, {"log_id": log_id, "event_info": INFO | info}


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    letters: set[str] = set()
    monkeypatch.setattr(comparison, "read_dead", lambda _: letters)
    return letters


async def find(events: dict[str, Taken], *copies: tuple[str, str, dict[str, Any]]) -> comparison.Comparison:
    return await compare(events, Documents(*copies), None)  # type: ignore[arg-type]


async def test_an_event_that_is_nowhere_is_lost(dead: set[str]) -> None:
    dead.add("b")
    found = await find({"a": taken(), "b": taken(), "c": taken()}, document("c"))
    assert (found.lost, found.duplicated, found.dead) == ({"a"}, set(), {"b"})


async def test_an_event_in_two_indices_or_also_among_the_dead_is_duplicated(dead: set[str]) -> None:
    dead.add("b")
    events = {"a": taken(), "b": taken(), "c": taken()}
    found = await find(events, document("a"), document("a", "events_x_2026-12"), document("b"), document("c"))
    assert (found.lost, found.duplicated) == (set(), {"a", "b"})


@pytest.mark.usefixtures("dead")
async def test_an_event_with_other_fields_or_in_the_wrong_index_is_lost() -> None:
    events = {"a": taken(), "b": taken(month="2026-12"), "c": taken(month="2026-11")}
    found = await find(events, document("a", label="other"), document("b"), document("c"))
    assert found.lost == {"a", "b"}
    assert found.spoilt == ["a: with other fields", "b: in events_x_2026-11, not in the index of 2026-12"]


@pytest.mark.usefixtures("dead")
async def test_a_document_that_nobody_was_told_of_is_counted_apart() -> None:
    found = await find({"a": taken()}, document("a"), document("unknown"))
    assert (found.lost, found.duplicated, found.unanswered) == (set(), set(), 1)


def test_events_in_memory_at_a_kill_may_be_lost() -> None:
    events = {"a": taken(answered_at=9.8), "b": taken(answered_at=20.1)}
    kills = [Kill(10, 10.2, 1), Kill(20, 20.2, 1)]
    assert "2 lost, in 2 of 2 kills; each was answered from memory at most 0.20 s" in explain_unwritten(
        {"a", "b"}, events, kills, 1.0
    )


def test_events_that_the_next_life_answered_were_not_lost_by_the_kill_before() -> None:
    events = {"a": taken(answered_at=9.8), "b": taken(answered_at=10.3)}
    kills = [Kill(10, 10.2, 1), Kill(10.9, 11, 1)]
    assert "in 2 of 2 kills" in explain_unwritten({"a", "b"}, events, kills, 1.0)


@pytest.mark.parametrize(
    ("event", "contradiction"),
    [
        (taken(answered_at=9.8, ack="disk"), "a was answered with ack=disk, before the last kill"),
        (taken(answered_at=8.0), "one was answered 2.00 s before a kill, and 1 are enough to write it"),
        (taken(answered_at=11.0), "a was answered with ack=memory, after the last kill"),
    ],
)
def test_a_loss_that_no_kill_explains_is_not_explained(event: Taken, contradiction: str) -> None:
    with pytest.raises(Unexplained, match=contradiction):
        explain_unwritten({"a"}, {"a": event}, [Kill(10, 10.2, 5)], 1.0)


def test_a_kill_cannot_take_more_than_was_in_memory() -> None:
    events = {"a": taken(answered_at=9.8), "b": taken(answered_at=9.9)}
    with pytest.raises(Unexplained, match="a kill took 2 events, and only 1 were unsettled"):
        explain_unwritten({"a", "b"}, events, [Kill(10, 10.2, 1)], 1.0)
