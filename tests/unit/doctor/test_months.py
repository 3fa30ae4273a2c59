"""The months that are stored are compared with those that events may still open."""

from __future__ import annotations

import pytest

from forebay.doctor.finding import ok
from forebay.doctor.months import judge_months


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([], "none; events open any from 2024-01 (FOREBAY_OLDEST_MONTH) on"),
        (["events_a_eu_2025-01", "events_a_x"], "none; events open any from 2024-01 (FOREBAY_OLDEST_MONTH) on"),
        (
            ["events_a_2026-03", "events_a_2025-11"],
            "2, from 2025-11 to 2026-03; late events open earlier ones too, back to 2024-01 (FOREBAY_OLDEST_MONTH)",
        ),
        (["events_a_2024-01", "events_a_2024-02"], "2, from 2024-01 to 2024-02"),
        (
            ["events_a_2023-12", "events_a_2026-03"],
            "2, from 2023-12 to 2026-03; those before 2024-01 (FOREBAY_OLDEST_MONTH) take no events",
        ),
    ],
)
def test_months_that_are_there_are_compared_with_the_oldest_one_that_counts(indices: list[str], text: str) -> None:
    assert judge_months(indices, "a", "2024-01") == ok(text)
