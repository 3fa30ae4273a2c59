"""The limits are those of the whole server."""

import pytest

from forebay.settings import DIVIDED, Settings
from forebay.workers.worker import take_share

DIVIDED_FIELDS = {name for name, field in Settings.model_fields.items() if DIVIDED in field.metadata}


def test_the_limits_of_the_whole_server_are_marked() -> None:
    assert {
        "channel_events_max",
        "channel_bytes_max",
        "spool_bytes_max",
        "bulk_workers",
        "connections_max",
        "in_hand_bytes_max",
    } == DIVIDED_FIELDS


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_shares_of_all_workers_are_the_whole(workers: int) -> None:
    whole = Settings(_env_file=None, workers=workers)
    shares = [take_share(whole, number) for number in range(1, workers + 1)]
    for name in DIVIDED_FIELDS:
        parts = [getattr(share, name) for share in shares]
        assert sum(parts) == getattr(whole, name)
        assert max(parts) - min(parts) <= 1


def test_a_worker_has_at_least_one_of_everything_that_is_divided() -> None:
    whole = Settings(_env_file=None, workers=3, bulk_workers=1, channel_events_max=2)
    assert [take_share(whole, number).bulk_workers for number in (1, 2, 3)] == [1, 1, 1]
    assert [take_share(whole, number).channel_events_max for number in (1, 2, 3)] == [1, 1, 1]


def test_a_worker_can_take_the_largest_body_that_is_allowed() -> None:
    whole = Settings(_env_file=None, workers=3, body_bytes_max=4096, in_hand_bytes_max=5000)
    assert [take_share(whole, number).in_hand_bytes_max for number in (1, 2, 3)] == [4096] * 3


def test_what_is_no_limit_of_the_whole_stays_as_it_is() -> None:
    whole = Settings(_env_file=None, workers=4)
    share = take_share(whole, 2)
    assert {name for name in Settings.model_fields if getattr(share, name) != getattr(whole, name)} == DIVIDED_FIELDS
