"""A month that is no single index, or will be none, gets a warning."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.doctor.finding import Finding, Level
from forebay.doctor.opensearch import ids
from forebay.doctor.opensearch.ids import CONSEQUENCE
from forebay.sinks.opensearch.template import NAME, TEMPLATE
from unit.doctor.contexts import INDEX, judge, levels


def names(streams: list[str] | None = None, aliases: dict[str, list[str]] | None = None) -> dict[str, Any]:
    return {
        "indices": [{"name": INDEX, "attributes": ["open"]}],
        "data_streams": [{"name": name, "backing_indices": [f".ds-{name}-000001"]} for name in streams or []],
        "aliases": [{"name": name, "indices": indices} for name, indices in (aliases or {}).items()],
    }


def templates(**others: dict[str, Any]) -> dict[str, Any]:
    known = {NAME: TEMPLATE} | others
    return {"index_templates": [{"name": name, "index_template": template} for name, template in known.items()]}


def stream(pattern: str, priority: int | None) -> dict[str, Any]:
    return {"index_patterns": ["logs-*", pattern], "priority": priority, "data_stream": {}}


def judge_ids(there: dict[str, Any], known: dict[str, Any]) -> list[Finding]:
    return judge(ids.check, names=there, templates=known)


@pytest.mark.parametrize(
    "there",
    [
        names(),
        names(aliases={INDEX: ["one"]}),
        names(["events_prod_eu_2026-11", "events_prod_new"], {"events_prod_all": ["a", "b"]}),
    ],
    ids=["an index", "an alias of one index", "names of others"],
)
def test_months_of_one_index_are_well(there: dict[str, Any]) -> None:
    (finding,) = judge_ids(there, templates())
    assert finding.level is Level.OK


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (names([INDEX]), f"{INDEX} is a data stream: {CONSEQUENCE}"),
        (names(aliases={INDEX: ["a", "b"]}), f"{INDEX} is an alias of 2 indices: {CONSEQUENCE}"),
        (
            names(["events_prod_2026-12"], {INDEX: ["a", "b", "c"]}),
            f"{INDEX} is an alias of 3 indices, events_prod_2026-12 is a data stream: {CONSEQUENCE}",
        ),
    ],
)
def test_months_of_several_indices_are_named(there: dict[str, Any], said: str) -> None:
    (finding,) = judge_ids(there, templates())
    assert (finding.level, finding.text) == (Level.WARN, said)
    assert finding.advice


def test_many_months_are_named_up_to_a_limit() -> None:
    (finding,) = judge_ids(names([f"events_prod_2026-{month:02}" for month in range(1, 13)]), templates())
    assert "events_prod_2026-05 is a data stream and 7 more" in finding.text


@pytest.mark.parametrize(
    ("known", "level"),
    [
        (templates(a=stream("events_prod_*", 101)), Level.WARN),
        (templates(a=stream("events_prod_*", 99)), Level.OK),
        (templates(a=stream("events_prod_*", None)), Level.OK),
        (templates(a=stream("events_test_*", 101)), Level.OK),
        (templates(a=stream("events_prod_*", 101), b={"index_patterns": ["*"], "priority": 102}), Level.OK),
        ({"index_templates": [{"name": "a", "index_template": stream("events_*", None)}]}, Level.WARN),
        ({"index_templates": []}, Level.OK),
    ],
)
def test_template_that_makes_data_streams_is_told_of_if_it_counts(known: dict[str, Any], level: Level) -> None:
    (finding,) = judge_ids(names(), known)
    assert finding.level is level
    assert level is Level.OK or finding.text == f"the template a makes a data stream of a month: {CONSEQUENCE}"


def test_data_stream_and_the_template_that_makes_more_are_both_told_of() -> None:
    found = judge_ids(names([INDEX]), templates(a=stream("events_*", 500)))
    assert levels(found) == [Level.WARN, Level.WARN]
