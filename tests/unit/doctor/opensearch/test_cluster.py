"""Each answer about the cluster becomes one line, with advice if something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.doctor.finding import Level, ok
from forebay.doctor.opensearch import blocks, bulk_bytes, cluster, disks, shards
from forebay.doctor.opensearch.answers import AnswerUnknown
from forebay.doctor.opensearch.cluster_settings import read_settings
from unit.doctor.contexts import INDEX, judge, levels, make_settings

DISK = "cluster.routing.allocation.disk"
WATERMARKS = {
    f"{DISK}.threshold_enabled": "true",
    f"{DISK}.watermark.flood_stage": "95%",
    f"{DISK}.watermark.high": "90%",
}
HEALTH = {
    "status": "green",
    "number_of_nodes": 2,
    "number_of_data_nodes": 2,
    "active_shards": 10,
    "initializing_shards": 0,
    "unassigned_shards": 0,
}


@pytest.mark.parametrize(("status", "level"), [("green", Level.OK), ("yellow", Level.WARN), ("red", Level.FAIL)])
def test_health_is_that_of_the_cluster(status: str, level: Level) -> None:
    assert levels(judge(cluster.check, health=HEALTH | {"status": status})) == [level]


@pytest.mark.parametrize(
    ("percent", "settings", "level"),
    [
        ("89", {}, Level.OK),
        ("90", {}, Level.WARN),
        ("95", {}, Level.FAIL),
        ("99", {f"{DISK}.threshold_enabled": "false"}, Level.OK),
        ("91", {f"{DISK}.watermark.flood_stage": "0.9"}, Level.FAIL),
        ("50", {f"{DISK}.watermark.flood_stage": "11gb"}, Level.FAIL),
        ("50", {f"{DISK}.watermark.flood_stage": "5gb", f"{DISK}.watermark.high": "10gb"}, Level.WARN),
        ("50", {f"{DISK}.watermark.flood_stage": "1mb", f"{DISK}.watermark.high": "9.5gb"}, Level.OK),
    ],
)
def test_disk_is_compared_with_the_watermarks_that_are_in_force(
    percent: str, settings: dict[str, str], level: Level
) -> None:
    node = {"node": "a", "disk.percent": percent, "disk.avail": str(10 * 1024**3)}
    unassigned = {"node": "UNASSIGNED", "disk.percent": None, "disk.avail": None}

    (finding,) = judge(
        disks.check, allocation=[node, unassigned], settings={"defaults": WATERMARKS, "persistent": settings}
    )
    assert finding.level is level
    assert finding.text.startswith(f"a: {percent}% of its disk used, 10 GiB free")


def test_transient_setting_comes_before_a_persistent_one_and_that_before_a_default() -> None:
    settings = {"transient": {"a": "1"}, "persistent": {"a": "2", "b": "2"}, "defaults": {"a": "3", "b": "3", "c": "3"}}
    (finding,) = judge(lambda context: [ok(str(read_settings(context)))], settings=settings)

    assert finding.text == str({"a": "1", "b": "2", "c": "3"})


@pytest.mark.parametrize(
    ("settings", "failed"),
    [
        ({}, 0),
        ({"cluster.blocks.read_only": "true"}, 1),
        ({"cluster.blocks.read_only_allow_delete": "true", "cluster.blocks.create_index": "true"}, 2),
        ({"action.auto_create_index": "true"}, 0),
        ({"action.auto_create_index": "false"}, 1),
        ({"action.auto_create_index": "+events_*,-*"}, 0),
        ({"action.auto_create_index": "-events_prod*, +events_*"}, 1),
        ({"action.auto_create_index": "logs-*"}, 1),
    ],
)
def test_cluster_that_takes_nothing_or_makes_no_month_is_said(settings: dict[str, str], failed: int) -> None:
    found = levels(judge(blocks.check_cluster, settings={"persistent": settings}))

    assert found == ([Level.FAIL] * failed or [Level.OK])


@pytest.mark.parametrize("block", ["read_only_allow_delete", "read_only", "write"])
def test_block_counts_on_the_months_that_events_come_for_alone(block: str) -> None:
    def blocked(*months: str) -> dict[str, Any]:
        return {month: {"settings": {f"index.blocks.{block}": "true"}} for month in months}

    others = blocked("events_prod_2026-09", "events_prod_eu_2026-11")
    assert levels(judge(blocks.check_months, blocks=others)) == [Level.OK]
    assert levels(judge(blocks.check_months, blocks=blocked("events_prod_2026-10", INDEX))) == [Level.FAIL] * 2


def test_block_on_metadata_is_none_for_events() -> None:
    settings = {INDEX: {"settings": {"index.blocks.metadata": "true", "index.blocks.write": "false"}}}
    assert levels(judge(blocks.check_months, blocks=settings)) == [Level.OK]


@pytest.mark.parametrize(("active", "level"), [(10, Level.OK), (18, Level.WARN), (19, Level.WARN), (20, Level.FAIL)])
def test_room_for_shards_is_that_of_all_data_nodes(active: int, level: Level) -> None:
    settings = {"defaults": {"cluster.max_shards_per_node": "10"}}
    health = HEALTH | {"active_shards": active - 2, "initializing_shards": 1, "unassigned_shards": 1}

    assert levels(judge(shards.check, health=health, settings=settings)) == [level]


def test_limit_of_shards_that_is_not_told_leaves_it_unknown() -> None:
    with pytest.raises(AnswerUnknown, match=r"no cluster\.max_shards_per_node"):
        judge(shards.check, health=HEALTH, settings={})


@pytest.mark.parametrize(
    ("bulk_bytes_max", "body_bytes_max", "said"),
    [(100, 100, None), (101, 1, "FOREBAY_BULK_BYTES_MAX to 50"), (1, 101, "FOREBAY_BODY_BYTES_MAX")],
)
def test_bulk_and_event_fit_into_the_limit_of_the_smallest_node(
    bulk_bytes_max: int, body_bytes_max: int, said: str | None
) -> None:
    limits = {"bulk_bytes_max": bulk_bytes_max, "body_bytes_max": body_bytes_max}
    nodes = {name: {"http": {"max_content_length_in_bytes": size}} for name, size in (("a", 900), ("b", 100))}

    (finding,) = judge(bulk_bytes.check, make_settings().model_copy(update=limits), nodes={"nodes": nodes})
    assert finding.level is (Level.WARN if said else Level.OK)
    assert (said or "") in finding.advice
