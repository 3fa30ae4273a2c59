"""What OpenSearch answers about itself is told in one line each, with what to do where something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.doctor import cluster
from forebay.doctor.rights import judge_rights
from forebay.findings import Finding, Level

INDEX = "events_prod_2026-11"
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


def levels(found: Any) -> list[Level]:
    found = list(found)
    assert all(finding.advice for finding in found if finding.level is not Level.OK)
    return [finding.level for finding in found]


def root(number: str, distribution: str | None = "opensearch") -> dict[str, Any]:
    return {"version": {"number": number} | ({"distribution": distribution} if distribution else {})}


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (root("3.4.0"), Level.OK),
        (root("2.7.0"), Level.OK),
        (root("2.6.9"), Level.FAIL),
        (root("1.3.20"), Level.FAIL),
        (root("2.19.0"), Level.WARN),
        (root("2.19.1"), Level.OK),
        (root("3.0.0-beta1"), Level.OK),
        (root("8.15.0", None), Level.FAIL),
    ],
)
def test_version_is_one_that_events_can_go_to(answer: Any, level: Level) -> None:
    assert cluster.judge_version("x", answer).level is level


@pytest.mark.parametrize(("status", "level"), [("green", Level.OK), ("yellow", Level.WARN), ("red", Level.FAIL)])
def test_health_is_that_of_the_cluster(status: str, level: Level) -> None:
    assert levels(cluster.judge_health("x", HEALTH | {"status": status})) == [level]


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

    found = cluster.judge_disks("x", [node, unassigned], {"defaults": WATERMARKS, "persistent": settings})
    assert levels(found) == [level]


def test_setting_of_today_comes_before_those_that_last_and_the_defaults() -> None:
    settings = {"transient": {"a": "1"}, "persistent": {"a": "2", "b": "2"}, "defaults": {"a": "3", "b": "3", "c": "3"}}
    assert cluster.flatten(settings) == {"a": "1", "b": "2", "c": "3"}


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
    found = levels(cluster.judge_cluster_settings("x", {"persistent": settings}, INDEX))

    assert found == ([Level.FAIL] * failed or [Level.OK])


@pytest.mark.parametrize("block", ["read_only_allow_delete", "read_only", "write"])
def test_block_counts_on_the_months_that_events_come_for_alone(block: str) -> None:
    def blocked(*months: str) -> dict[str, Any]:
        return {month: {"settings": {f"index.blocks.{block}": "true"}} for month in months}

    months = ("events_prod_2026-10", INDEX)
    assert levels(cluster.judge_blocks("x", blocked("events_prod_2026-09", "events_prod_eu_2026-11"), months)) == [
        Level.OK
    ]
    assert levels(cluster.judge_blocks("x", blocked(*months), months)) == [Level.FAIL] * 2


def test_block_on_metadata_is_none_for_events() -> None:
    settings = {INDEX: {"settings": {"index.blocks.metadata": "true", "index.blocks.write": "false"}}}
    assert levels(cluster.judge_blocks("x", settings, (INDEX,))) == [Level.OK]


@pytest.mark.parametrize(("active", "level"), [(10, Level.OK), (18, Level.WARN), (19, Level.WARN), (20, Level.FAIL)])
def test_room_for_shards_is_that_of_all_data_nodes(active: int, level: Level) -> None:
    settings = {"defaults": {"cluster.max_shards_per_node": "10"}}
    health = HEALTH | {"active_shards": active - 2, "initializing_shards": 1, "unassigned_shards": 1}

    assert levels(cluster.judge_shards("x", health, settings)) == [level]


@pytest.mark.parametrize(
    ("bulk_bytes", "body_bytes", "said"),
    [(100, 100, None), (101, 1, "FOREBAY_BULK_BYTES_MAX to 50"), (1, 101, "FOREBAY_BODY_BYTES_MAX")],
)
def test_bulk_and_event_fit_into_what_the_smallest_node_takes(
    bulk_bytes: int, body_bytes: int, said: str | None
) -> None:
    nodes = {
        "nodes": {name: {"http": {"max_content_length_in_bytes": size}} for name, size in (("a", 900), ("b", 100))}
    }

    (finding,) = cluster.judge_bulk_bytes("x", nodes, bulk_bytes, body_bytes)
    assert finding.level is (Level.WARN if said else Level.OK)
    assert (said or "") in finding.advice


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ({"accessAllowed": True, "missingPrivileges": []}, Level.OK),
        ({"accessAllowed": False, "missingPrivileges": ["indices:data/write/index"]}, Level.FAIL),
        (
            {"error": {"reason": "contains unrecognized parameter: [perform_permission_check]"}, "status": 400},
            Level.WARN,
        ),
        ([], Level.WARN),
    ],
)
def test_right_to_write_is_what_the_plugin_says_and_open_where_it_does_not(answer: Any, level: Level) -> None:
    finding = judge_rights("user a with the roles b", INDEX, answer)

    assert isinstance(finding, Finding)
    assert finding.level is level
    assert "user a" in finding.text
