"""The template is there, new enough and the one that counts; the month's index has its mapping."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from forebay.doctor.finding import Level
from forebay.doctor.opensearch import mapping, template
from forebay.own_indices import UNINDEXED
from forebay.sinks.opensearch.template import NAME, TEMPLATE, VERSION
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES
from unit.doctor.contexts import INDEX, judge, levels, make_settings


def templates(version: int | None = VERSION, **others: dict[str, Any]) -> dict[str, Any]:
    known = others | ({NAME: TEMPLATE | {"version": version}} if version is not None else {})
    return {"index_templates": [{"name": name, "index_template": template} for name, template in known.items()]}


def other(pattern: str, priority: int | None) -> dict[str, Any]:
    return {"index_patterns": [pattern]} | ({} if priority is None else {"priority": priority})


@pytest.mark.parametrize(
    ("there", "level", "said"),
    [
        (templates(), Level.OK, f"version {VERSION}"),
        (templates(VERSION + 1), Level.OK, f"version {VERSION + 1}"),
        (templates(0), Level.WARN, f"version 0; this Forebay has {VERSION}"),
        (templates(None), Level.WARN, "is not there"),
        (templates(a=other("events_prod_*", 101)), Level.FAIL, "a has a higher priority than 100"),
        (templates(a=other("*", 100), b=other("*", None), c=other("events_test_*", 900)), Level.OK, ""),
    ],
)
def test_template_is_judged(there: Any, level: Level, said: str) -> None:
    (finding,) = judge(template.check, templates=there)

    assert finding.level is level
    assert said in finding.text
    assert bool(finding.advice) is (level is not Level.OK)


def of_ubi(version: int, index: str = "ubi_events", **others: dict[str, Any]) -> dict[str, Any]:
    ours = UBI_TEMPLATES[index]
    return templates(VERSION, **{ours.name: ours.body | {"version": version}}, **others)


@pytest.mark.parametrize("index", UBI_TEMPLATES)
def test_a_template_of_ubi_is_spoken_of_only_if_it_is_there_and_not_well(index: str) -> None:
    assert levels(judge(template.check, templates=of_ubi(1, index))) == [Level.OK]
    _, old = judge(template.check, templates=of_ubi(0, index))
    assert (old.level, "--ubi" in old.advice) == (Level.WARN, True)
    _, hidden = judge(template.check, templates=of_ubi(1, index, a=other("ubi_*", 200)))
    assert f"does not count for {index}" in hidden.text


def test_old_template_that_does_not_count_either_is_both() -> None:
    found = judge(template.check, templates=templates(0, a=other("events_*", 200)))

    assert levels(found) == [Level.WARN, Level.FAIL]


def test_missing_template_is_looked_at_as_it_is_set() -> None:
    (finding,) = judge(template.check, make_settings(index_template=False), templates=templates(None))

    assert "FOREBAY_INDEX_TEMPLATE=false" in finding.text


def template_mapping() -> Any:
    return copy.deepcopy(TEMPLATE["template"]["mappings"])


def test_mapping_is_the_templates() -> None:
    found = template_mapping()
    found["properties"]["more"] = {"type": "long"}

    (finding,) = judge(mapping.check, mapping={INDEX: {"mappings": found}})
    assert finding.level is Level.OK


def test_month_without_an_index_is_well() -> None:
    (finding,) = judge(mapping.check, mapping={})
    assert (finding.level, finding.text) == (Level.OK, f"{INDEX} is not there yet")


def test_each_index_in_the_place_of_the_month_is_looked_at() -> None:
    backing = [f".ds-{INDEX}-{number:06}" for number in (1, 2, 3)]
    mappings: dict[str, Any] = {name: {"mappings": template_mapping()} for name in backing}
    (finding,) = judge(mapping.check, mapping=mappings)
    assert (finding.level, finding.text) == (Level.OK, f"{INDEX} has the template's mapping")

    mappings[backing[1]] = {"mappings": {"properties": {"log_id": {"type": "text"}}}}
    (finding,) = judge(mapping.check, mapping=mappings)
    assert (finding.level, finding.text.split()[0]) == (Level.FAIL, backing[1])


def test_field_of_another_type_is_named() -> None:
    found = template_mapping()
    found["properties"]["@timestamp"] = {"type": "text"}
    found["properties"]["event_info"]["properties"]["param"] = {"properties": {"a": {"type": "long"}}}

    (finding,) = judge(mapping.check, mapping={INDEX: {"mappings": found}})
    assert finding.level is Level.FAIL
    assert "@timestamp is text, not date, event_info.param is object, not flat_object" in finding.text


def test_missing_fields_are_named_up_to_a_limit() -> None:
    (finding,) = judge(mapping.check, mapping={INDEX: {"mappings": {}}})

    assert finding.level is Level.WARN
    assert "@timestamp, received_at, log_id, user_id, device_uuid and 6 more" in finding.text


def test_field_that_must_not_be_indexed_is_a_clash_if_it_is_and_not_missed_if_it_is_not_there() -> None:
    found = template_mapping()
    found["properties"][UNINDEXED] = {"properties": {"value": {"type": "long"}}}
    (finding,) = judge(mapping.check, mapping={INDEX: {"mappings": found}})
    assert finding.level is Level.FAIL
    assert "unindexed is object, not object that is not indexed" in finding.text

    del found["properties"][UNINDEXED]
    (finding,) = judge(mapping.check, mapping={INDEX: {"mappings": found}})
    assert finding.level is Level.OK
