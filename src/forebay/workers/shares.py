"""A worker's share of the limits: they are those of the whole server, however many workers it has."""

from __future__ import annotations

from forebay.settings import Settings

SHARED = ("channel_events_max", "channel_bytes_max", "spool_bytes_max", "bulk_workers")


def take_share(settings: Settings, slot: int) -> Settings:
    """Return the settings of the worker in a slot; what cannot be divided evenly goes to the lowest slots."""
    return settings.model_copy(
        update={name: _divide(getattr(settings, name), settings.workers, slot) for name in SHARED}
    )


def _divide(whole: int, workers: int, slot: int) -> int:
    return max(1, whole // workers + (slot <= whole % workers))
