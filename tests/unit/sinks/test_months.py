"""Old months are those that ended long enough ago, of one environment, and never the two that take events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from forebay.sinks.months import StoredMonth, choose_old, describe_late_events, month_of, months_before

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def names(environment: str, before: datetime, *months: str, now: datetime = NOW) -> list[str]:
    return [month.name for month in choose_old([StoredMonth(name, 1, 1) for name in months], environment, before, now)]


@pytest.mark.parametrize(
    ("index", "environment", "month"),
    [
        ("events_prod_2026-01", "prod", (2026, 1)),
        ("events_prod_eu_2026-12", "prod_eu", (2026, 12)),
        ("events_prod_eu_2026-01", "prod", None),
        ("events_prod_2026-01", "prod_eu", None),
        ("events_prod_2026-13", "prod", None),
        ("events_prod_2026-00", "prod", None),
        ("events_prod_2026-01-02", "prod", None),
        ("events_prod_2026-01\n", "prod", None),
        ("events_prod_２０２６-01", "prod", None),
        (".events_prod_2026-01", "prod", None),
        ("events_prod", "prod", None),
    ],
)
def test_index_belongs_to_the_environment_that_its_whole_name_says(
    index: str, environment: str, month: tuple[int, int] | None
) -> None:
    assert month_of(index, environment) == month


def test_month_is_old_once_the_whole_of_it_is() -> None:
    months = ("events_a_2025-11", "events_a_2025-09", "events_a_2025-10")

    assert names("a", datetime(2025, 11, 30, 23, 59, tzinfo=UTC), *months) == ["events_a_2025-09", "events_a_2025-10"]
    assert names("a", datetime(2025, 12, 1, tzinfo=UTC), *months) == sorted(months)


@pytest.mark.parametrize("now", [NOW, NOW.replace(day=1)])
def test_current_and_previous_month_stay_whatever_is_asked(now: datetime) -> None:
    months = ("events_a_2026-01", "events_a_2026-02", "events_a_2026-03", "events_a_2026-04")

    assert names("a", datetime(2030, 1, 1, tzinfo=UTC), *months, now=now) == ["events_a_2026-01"]


def test_previous_month_of_january_is_in_the_year_before() -> None:
    months = ("events_a_2025-11", "events_a_2025-12", "events_a_2026-01")

    now = datetime(2026, 1, 5, tzinfo=UTC)
    assert names("a", now, *months, now=now) == ["events_a_2025-11"]


@pytest.mark.parametrize(
    ("months", "then"), [(0, (2026, 3, 31)), (1, (2026, 2, 28)), (3, (2025, 12, 31)), (25, (2024, 2, 29))]
)
def test_months_ago_is_the_same_day_or_the_last_one(months: int, then: tuple[int, int, int]) -> None:
    assert months_before(NOW, months) == NOW.replace(year=then[0], month=then[1], day=then[2])


def test_time_before_all_years_is_refused() -> None:
    with pytest.raises(OverflowError):
        months_before(NOW, 2026 * 12)


@pytest.mark.parametrize(
    ("deleted", "after"),
    [
        (["events_a_2024-05", "events_a_2023-12"], "2024-06"),
        (["events_a_2025-12"], "2026-01"),
        (["events_a_2024-01"], "2024-02"),
        (["events_a_2023-12", "events_b_2025-01"], None),
        ([], None),
    ],
)
def test_late_events_are_told_of_if_a_deleted_month_still_takes_some(deleted: list[str], after: str | None) -> None:
    told = describe_late_events([StoredMonth(name, 1, 1) for name in deleted], "a", "2024-01")

    assert ("back to 2024-01 (FOREBAY_OLDEST_MONTH)" in told, f"with {after} they" in told) == (bool(after),) * 2
